"""One run of the bug bench: a scenario in a fresh copy of the shop, with a defect in it or none; and the file of all results."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.bugs_defects import Defect
from bench.project import ENVCTL, HERE, PARTS, copied
from envctl.errors import Exit
from envctl.model.verdict import EXITS, Finding
from envctl.record.verdict import load_verdict

LIMIT_S = 900  # a scenario's own deadline ends it long before
OUTCOMES = {int(code): outcome for outcome, code in EXITS.items()}
KEPT = ("verdict.json", "report.html")
SAID = 2000  # characters of what a run that came to no verdict said last
Key = tuple[str, str, str, int, str]


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one run; a line of the results."""

    commit: str
    defect: str  # empty: a clean run
    patch: str  # digest of the patch
    seed: int
    scenario: str
    outcome: str  # of its verdict, or "error" where there is none
    seconds: float
    findings: list[dict[str, Any]] = field(default_factory=list)  # those that failed: `id`, `check`, `text`; the first one is the reason given
    said: str = ""
    at: str = ""

    @property
    def key(self) -> Key:
        """What a run is found by."""
        return self.commit, self.defect, self.patch, self.seed, self.scenario


class Results:
    """A file of JSON lines; a line that a killed writer left torn is passed over."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.runs: dict[Key, Run] = {}
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            try:
                run = Run(**json.loads(line))
            except (TypeError, ValueError):
                continue
            self.runs[run.key] = run

    def add(self, run: Run) -> None:
        """Keeps a run, at once and for good."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        torn = self._file.exists() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(asdict(run)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.runs[run.key] = run


def revision(root: Path = HERE) -> str:
    """The last commit that changed what is measured, with a digest of what was changed since and not committed."""
    measured = ("envctl", *PARTS)
    commit = _git(root, "log", "-1", "--format=%h", "--", *measured).strip()
    changed = _git(root, "diff", "HEAD", "--", *measured)
    for name in _git(root, "ls-files", "--others", "--exclude-standard", "--", *measured).splitlines():
        changed += name + (root / name).read_text(encoding="utf-8", errors="replace")
    return commit + (f"+{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, text=True, capture_output=True).stdout


def run(commit: str, defect: Defect | None, seed: int, scenario: str, keep: Path | None = None) -> Run:
    """Runs a scenario, unmodified, on the shop with the defect.  Raises KeyboardInterrupt once the run it broke off is removed.

    `keep` is where the run's verdict and report are kept.
    """
    begun = time.monotonic()
    with copied() as root:
        if defect is not None:
            subprocess.run(["git", "apply", str(defect.patch)], cwd=root, check=True)
        code, said = _ci(root, scenario, seed)
        outcome = OUTCOMES.get(code, "error")
        newest = max((root / ".envctl" / "runs").glob("*/verdict.json"), default=None)
        failed = [f for f in load_verdict(newest.parent).findings if f.outcome == "fail" and not f.waived] if newest else []
        if newest is not None and keep is not None:
            _keep(newest.parent, keep)
    return Run(
        commit, defect.name if defect else "", defect.digest if defect else "", seed, scenario, outcome,
        round(time.monotonic() - begun, 1), [{"id": f.id, "check": f.check, "text": _text(f)} for f in failed],
        said[-SAID:] if outcome == "error" else "", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


def _text(finding: Finding) -> str:
    """All that a finding says."""
    return "\n".join((finding.id, finding.title, *(each.summary for each in finding.evidence), json.dumps(dict(finding.stats), default=str, ensure_ascii=False)))


def _keep(directory: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (directory / name).exists():
            shutil.copy(directory / name, keep / name)


def _ci(root: Path, scenario: str, seed: int) -> tuple[int, str]:
    argv = [ENVCTL, "-C", str(root), "ci", *_extent(root, scenario), "--inconclusive", "fail", "--scenario", scenario, "--rng-seed", str(seed)]
    with tempfile.TemporaryFile() as output:
        # in a session of its own: a terminal's Ctrl-C reaches it through us alone, so that the first one is not its second
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        code = ended(process, LIMIT_S)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _extent(root: Path, scenario: str) -> list[str]:
    """Everything; but with all components nothing is stubbed, so where the scenario wants that, only what it takes and needs."""
    asked = yaml.safe_load((root / "scenarios" / f"{scenario}.yaml").read_text(encoding="utf-8"))
    return ["--only", asked["takes"][0]] if asked.get("stubs") else ["--full"]


def ended(process: subprocess.Popen[bytes], limit_s: float) -> int:
    """The exit code of `envctl ci`, when it has removed its environment: each Ctrl-C is handed on, and raised when it is over.

    After `limit_s` it is told to end, and its exit code is that of a timeout.
    """
    code, told = _waited(process, limit_s)
    if code is None:
        process.send_signal(signal.SIGTERM)
        _, told = _waited(process, None)
        code = int(Exit.TIMED_OUT)
    if told:
        raise KeyboardInterrupt
    return code


def _waited(process: subprocess.Popen[bytes], limit_s: float | None) -> tuple[int | None, bool]:
    told = False
    while True:
        try:
            return process.wait(None if told else limit_s), told
        except subprocess.TimeoutExpired:
            return None, told
        except KeyboardInterrupt:
            told = True
            process.send_signal(signal.SIGINT)

