from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.program import stub_realisation
from envctl.engines.realise import realise_all
from envctl.errors import ResourceError
from envctl.model.topology import Build, Job, Probe, Service, Source

MakeSite = Callable[..., Site]
pytestmark = [pytest.mark.engines, pytest.mark.cell]
SERVER = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        seen = {"env": dict(os.environ), "prefix": sys.prefix, "app": os.listdir("/app"), "home": os.path.exists(os.path.expanduser("~/.ssh"))}
        self.wfile.write(json.dumps(seen).encode())
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


def fetch(cell: Any, url: str) -> Any:
    return json.loads(cell.python(f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"))


def test_a_service_runs_in_its_own_build_and_a_job_after_it(cell: Any, site: MakeSite, stack: Path) -> None:
    (stack / "web").mkdir()
    (stack / "web" / "app.py").write_text(SERVER)
    (stack / "web" / "app.py").chmod(0o600)
    web = Service(
        name="web", source=Source("tree", "web"), command=("python", "app.py"), ports={"http": 8080},
        build=Build(("sh", "-c", "python3 -m venv --without-pip $OUT")), ready=Probe("http", port=8080, target="/"),
    )
    job = Job(
        name="once", source=Source("tree", "web"), needs=("web",), env={"URL": "${web.http.url}"},
        command=("python3", "-c", "import os, urllib.request as u; assert u.urlopen(os.environ['URL']).status == 200"),
    )
    made = site(web, job)
    for realisation in realise_all(made.topology, ("once", "web"), (), made):
        cell.up(realisation)
    seen = fetch(cell, "http://web:8080")
    assert seen["prefix"] == "/build"
    assert seen["app"] == ["app.py"]
    assert seen["env"]["ENVCTL_NODE"] == "web-0"
    assert os.environ.get("HOME") not in seen["env"].values()
    assert cell.reach.node("once-0").exit_status == 0


def test_a_job_that_fails_says_what_it_said(cell: Any, site: MakeSite, stack: Path) -> None:
    (stack / "web").mkdir()
    job = Job(name="bad", source=Source("tree", "web"), command=("sh", "-c", "echo no such table >&2; exit 3"))
    made = site(job)
    with pytest.raises(ResourceError, match="no such table"):
        cell.up(realise_all(made.topology, ("bad",), (), made)[0])


def test_a_stub_answers_in_place_of_a_service(cell: Any, site: MakeSite, stack: Path) -> None:
    (stack / "examples.yaml").write_text(
        "envctl: examples/v1\nhttp:\n  - request: {method: GET, path: /rates}\n    response: {status: 200, body: {eur: 1}}\n"
    )
    stubbed = Service(name="rates", source=Source("tree", "."), command=("x",), ports={"http": 8080}, stub="examples.yaml")
    cell.up(stub_realisation(stubbed, site(stubbed, stubbed=("rates",))))
    assert fetch(cell, "http://rates:8080/rates") == {"eur": 1}
