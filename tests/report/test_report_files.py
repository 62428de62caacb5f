"""The four files: from whole and partial records, replaced whole, bounded and inert."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from envctl.errors import UsageError
from envctl.model.verdict import Evidence, Finding, Verdict
from envctl.record.verdict import load_verdict, save_verdict
from envctl.report import write_all

FILES = {"report.html", "report.md", "report.json", "junit.xml"}
ELEMENTS = {  # what the page's own templates write
    "a", "article", "b", "body", "br", "button", "circle", "code", "dd", "defs", "details", "div", "dl", "dt", "figure",
    "footer", "g", "h1", "h2", "h3", "head", "header", "html", "i", "li", "main", "marker", "meta", "nav", "ol", "p", "path",
    "pre", "rect", "script", "section", "small", "span", "style", "summary", "svg", "table", "tbody", "td", "text", "th",
    "thead", "time", "title", "tr", "ul",
}


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attrs, self.words, self.ids = set(), [], [], []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attrs += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        self.scripts += tag == "script"

    def handle_data(self, data):
        self.words.append(data)


def written(directory):
    path = write_all(directory)
    assert path == directory / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def left(directory):
    return {path.name for path in directory.iterdir()} & FILES


def test_a_whole_run_gives_four_files_and_no_others(whole):
    before = {path.name for path in whole.iterdir()}
    written(whole)
    assert {path.name for path in whole.iterdir()} - before == FILES


def test_the_page_says_the_verdict_and_the_worst_reason_before_anything_else(whole):
    written(whole)
    head, main = (whole / "report.html").read_text().split("<main>")
    assert '<span class="stamp fail">' in head
    text = " ".join(" ".join(Page(main).words).split())
    order = [text.index(words) for words in ("3 of 200 accepted orders were never published", "order 7f3a… accepted 7.10 s", "spans were lost",
                                             "envctl run scenarios/under-fire.yaml --rng-seed 7", "Timeline", "Findings", "Post-mortem")]
    assert order == sorted(order)


def test_a_trace_that_is_shown_is_linked_and_not_spelled_out_again(whole):
    written(whole)
    told = re.findall(r'<div class="told mono">(.*?)</div>', (whole / "report.html").read_text())
    assert told[0] == "order 7f3a… accepted 7.10 s, never published; under packet-loss"


def test_the_page_loads_nothing_and_links_to_nothing_outside(whole):
    page = written(whole)
    assert not [(tag, name, value) for tag, name, value in page.attrs if name in ("src", "srcset", "data", "action", "background", "poster")]
    assert all(value.startswith(("#", "./")) for _, name, value in page.attrs if name in ("href", "xlink:href"))
    text = (whole / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text, re.IGNORECASE)
    assert "default-src 'none'" in text


def test_links_inside_the_page_lead_somewhere(whole):
    page = written(whole)
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for _, name, value in page.attrs if name == "href" and value.startswith("#")} <= set(page.ids)
    assert all((whole / value).is_file() for _, name, value in page.attrs if name == "href" and value.startswith("./"))


def test_every_table_has_headers_and_every_drawing_a_description(whole):
    text = (written(whole), (whole / "report.html").read_text())[1]
    assert all("<th scope" in table for table in re.findall(r"<table.*?</table>", text, re.DOTALL))
    assert all("aria-label" in svg or "aria-hidden" in svg for svg in re.findall(r"<svg[^>]*>", text))


def test_hostile_words_stay_words_on_the_page(hostile):
    page = written(hostile)
    assert page.tags <= ELEMENTS, page.tags - ELEMENTS
    assert page.scripts == 2
    assert not [name for _, name, _ in page.attrs if name.startswith("on")]
    assert all(value.startswith(("#", "./")) for _, name, value in page.attrs if name == "href")
    assert "{{7*7}}" in "".join(page.words)
    assert len(page.ids) == len(set(page.ids))


def test_only_the_pages_own_script_may_run(hostile):
    from base64 import b64encode
    from hashlib import sha256

    written(hostile)
    text = (hostile / "report.html").read_text(encoding="utf-8")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in text
    assert json.loads(data)["count"] > 0


def test_hostile_words_stay_words_in_markdown(hostile):
    written(hostile)
    text = (hostile / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)[<>]", outside.replace("\n> ", "\n"))
    assert "@team" not in outside
    assert not re.search(r"#\d|https?://", outside)
    assert all(row.startswith("|") and row.endswith("|") for row in outside.splitlines() if "|" in row.replace("\\|", ""))


def test_junit_has_a_case_for_each_finding_with_what_went_wrong(whole):
    from junitparser import Error, Failure, JUnitXml, Skipped

    written(whole)
    (suite,) = JUnitXml.fromfile(str(whole / "junit.xml"))
    cases = {case.name: case.result for case in suite}
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped, suite.time) == ("under-fire", 6, 1, 1, 1, 22.0)
    assert isinstance(cases["no-loss"][0], Failure)
    assert "never published; under packet-loss" in cases["no-loss"][0].text
    assert isinstance(cases["traces-complete"][0], Error)
    assert isinstance(cases["old-one"][0], Skipped)
    assert cases["slo:p95"] == []
    assert {one.name: one.value for one in suite.properties()}["rng_seed"] == "7"


@pytest.mark.parametrize("name", ["report.md", "junit.xml"])
def test_nothing_in_what_ci_systems_show_steers_them_or_a_terminal(hostile, name):
    written(hostile)
    text = (hostile / name).read_text(encoding="utf-8")
    assert r"\x1b" in text
    assert not set(text) & set("\x00\x1b\x9b\r\u202e")
    assert not re.search(r"^\s*::|##\[", text, re.MULTILINE)


def test_junit_survives_characters_that_xml_cannot_hold(hostile):
    written(hostile)
    assert ET.parse(hostile / "junit.xml").getroot().find("testsuite") is not None


def test_markdown_has_the_reasons_the_numbers_and_the_command(whole):
    written(whole)
    text = (whole / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## ❌ **fail** · under-fire")
    assert "order 7f3a… accepted 7.10 s" in text
    assert "… and 9 more" in text
    assert "| packet-loss | from orders, to bus, loss 20 %" in text
    assert text.rstrip().endswith("```text\nenvctl run scenarios/under-fire.yaml --rng-seed 7\n```")


def test_json_is_versioned_and_holds_what_the_page_shows(whole):
    written(whole)
    data = json.loads((whole / "report.json").read_text(), parse_constant=pytest.fail)
    assert (data["format"], data["outcome"], data["run"]["id"]) == ("report/v1", "fail", whole.name)
    assert {"run", "findings", "figures", "timeline", "faults", "objectives", "nodes", "components", "links", "traces", "cost", "files",
            "post_mortem", "gaps", "notes", "unverified", "reproduce"} <= set(data)
    assert data["figures"]["operations"] == 200
    assert data["faults"][0]["recover_s"] == 1.5


def test_a_huge_verdict_gives_bounded_files(whole):
    noise = tuple(Evidence("x" * 30_000 + "`" * 40, ids=("1",) * 10) for _ in range(10))
    findings = tuple(Finding(f"f{n}", "c", "fail", "t" * 20_000, evidence=noise, total=10**9) for n in range(800))
    save_verdict(whole, Verdict("fail", findings, notes=("n" * 10_000,) * 1000, reproduce="envctl run s"))
    page = written(whole)
    assert (whole / "report.md").stat().st_size < 900 * 1024
    assert len((whole / "report.md").read_text()) < 65_536, "a comment's limit"
    assert "envctl run s" in (whole / "report.md").read_text()
    assert (whole / "report.html").stat().st_size < 12_000_000
    assert "400 more are in report.json" in "".join(page.words)


def test_a_run_that_was_cut_short_is_told_as_far_as_it_went(cut_short):
    text = "".join(written(cut_short).words)
    assert left(cut_short) == FILES
    assert "the run did not reach its end" in text
    assert "has not been judged" in text
    assert "Not judged" in text
    data = json.loads((cut_short / "report.json").read_text())
    assert data["outcome"] is None
    assert data["figures"]["operations"] > 50
    assert "envctl run scenarios/under-fire.yaml --rng-seed 7" in text


def test_a_run_without_events_spans_or_inputs_is_told_too(start):
    for path in (start / "inputs").iterdir():
        path.unlink()
    (start / "error.json").write_text(json.dumps({"message": f"no traffic in /home/ann/shop/.envctl/runs/{start.name}/inputs/traffic.jsonl"}))
    text = "".join(written(start).words)
    assert left(start) == FILES
    assert "the events can't be read" in text
    assert "the run broke off: no traffic in inputs/traffic.jsonl" in text
    assert "Nothing was recorded over time" in text
    assert str(start) not in text, "a page is read on other machines"


@pytest.mark.parametrize("name", ["verdict.json", "events.jsonl", "telemetry/telemetry.sqlite", "inputs/scenario.yaml", "inputs/topology.yaml"])
def test_a_broken_file_is_a_gap_and_not_an_end(whole, name):
    (whole / name).write_bytes(b"{broken\n\x00")
    assert "can't be read" in "".join(written(whole).words) or name == "verdict.json"
    assert left(whole) == FILES


def test_where_there_is_no_run_nothing_is_written(tmp_path):
    with pytest.raises(UsageError):
        write_all(tmp_path)
    assert not list(tmp_path.iterdir())


def test_writing_again_replaces_and_leaves_nothing_behind(whole):
    written(whole)
    first = json.loads((whole / "report.json").read_text())
    save_verdict(whole, replace(load_verdict(whole), outcome="pass", findings=()))
    written(whole)
    second = json.loads((whole / "report.json").read_text())
    assert (first["outcome"], second["outcome"]) == ("fail", "pass")
    assert not [path for path in whole.iterdir() if path.name.endswith(".tmp")]


def test_the_record_is_only_read(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    written(whole)
    assert {path: path.read_bytes() for path in before} == before
