"""The formats for programs: json, github, sarif, junit, gitlab."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from reports import COMMIT, HOSTILE, UNREADABLE, YIELD, full_report

from session_lint import __version__, rulebook
from session_lint.findings import Finding, Report, Span, Verdict
from session_lint.reporters import FOR_PEOPLE, FORMATS, render
from session_lint.reporters.context import Context
from session_lint.runtime.evidence import Evidence, Oracle
from session_lint.runtime.places import Place

MACHINES = [name for name in FORMATS if name not in FOR_PEOPLE]


def test_all_formats_are_tested_here_or_with_the_people() -> None:
    assert MACHINES == ["json", "github", "sarif", "junit", "gitlab"]


@pytest.mark.parametrize("output_format", MACHINES)
def test_every_format_takes_the_most_awkward_texts_as_utf8(output_format: str) -> None:
    render(output_format, full_report(HOSTILE), Context()).encode("utf-8", "backslashreplace").decode("utf-8")


# ---------------------------------------------------------------------------------------------- json


def test_json_is_the_contract_of_version_1() -> None:
    document = json.loads(render("json", full_report(), Context()))
    assert list(document) == ["version", "findings", "summary"]
    assert document["version"] == 1
    assert document["summary"] == {
        "files": 40,
        "files_analysed": 12,
        "lines": 3456,
        "functions": 78,
        "findings": 3,
        "suppressed": 3,
        "mitigated": 1,
        "errors": 1,
    }
    _, provider, commit = document["findings"]
    fingerprint = commit.pop("fingerprint")
    assert re.fullmatch("[0-9a-f]{32}", fingerprint)
    assert commit == {
        "code": "SES101",
        "name": "commit-without-rollback",
        "message": "if commit() fails, update lets the exception out without rolling back",
        "path": "app/routes.py",
        "line": 5,
        "column": 5,
        "end_line": 5,
        "end_column": 22,
        "function": "update",
        "severity": "error",
        "confidence": "certain",
        "verdict": "static",
        "trail": [
            {"path": "app/db.py", "line": 2, "column": 12, "message": "the session is opened here"},
            {"path": "app/routes.py", "line": 4, "column": 5, "message": "written here"},
            {"path": "app/routes.py", "line": 5, "column": 11, "message": "commit() may raise here"},
        ],
        "affects": [],
        "url": "https://github.com/session-lint/session-lint/blob/main/rules/SES101-commit-without-rollback.md",
    }
    assert provider["affects"][1] == {
        "path": "app/routes.py",
        "line": 12,
        "column": 1,
        "function": "Threads.remove",
        "message": "its commit may fail",
    }


def test_json_of_nothing() -> None:
    document = json.loads(render("json", Report(files=2), Context()))
    assert document["findings"] == []
    assert document["summary"]["files"] == 2


def test_json_loses_nothing() -> None:
    finding = json.loads(render("json", Report(findings=[HOSTILE]), Context()))["findings"][0]
    assert (finding["message"], finding["path"], finding["function"]) == (
        HOSTILE.message,
        HOSTILE.path,
        HOSTILE.function,
    )


# ---------------------------------------------------------------------------------------------- github


def commands(*findings: Finding, **environment: str) -> list[str]:
    return render("github", Report(findings=list(findings)), Context(environment=environment)).splitlines()


def test_github_commands_the_worst_first() -> None:
    info, warning, error = full_report().findings
    assert [line.split(" ")[0] for line in commands(info, warning, error)] == ["::error", "::warning", "::notice"]
    assert "\n".join(commands(error)) == (
        "::error file=app/routes.py,line=5,endLine=5,col=5,endColumn=22,"
        "title=SES101 commit-without-rollback (certain)::"
        "if commit() fails, update lets the exception out without rolling back"
        "%0A1. app/db.py:2: the session is opened here%0A2. app/routes.py:4: written here"
        "%0A3. app/routes.py:5: commit() may raise here"
    )


def test_github_properties_and_messages_are_escaped_in_their_own_ways() -> None:
    [line] = commands(HOSTILE)
    match = re.fullmatch(r"::error ([^:]*)::(.*)", line)
    assert match is not None
    properties = dict(pair.split("=", 1) for pair in match[1].split(","))
    assert properties["file"] == "dir%2C with%3A odd%25/na\"me'<é>.py"
    assert "50%25 of «a», b: c%0D%0A" in match[2]
    assert "::error::x" in match[2]


def test_github_takes_columns_only_within_one_line() -> None:
    [line] = commands(replace(YIELD, span=Span(3, 2, 9, 4)))
    assert line.startswith("::warning file=app/db.py,line=3,endLine=9,title=SES202 ")


def test_paths_for_ci_systems_begin_at_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    for output_format, variable in [
        ("github", "GITHUB_WORKSPACE"),
        ("gitlab", "CI_PROJECT_DIR"),
        ("sarif", "GITHUB_WORKSPACE"),
    ]:
        context = Context(working_directory=tmp_path / "backend", environment={variable: str(tmp_path)})
        assert "backend/app/routes.py" in render(output_format, full_report(), context)
        context = Context(working_directory=tmp_path / "backend", environment={variable: str(tmp_path / "other")})
        assert "backend/app/routes.py" not in render(output_format, full_report(), context)


# ---------------------------------------------------------------------------------------------- sarif


def validated(report: Report) -> dict[str, Any]:
    """The only run of a log that the official schema accepts."""
    log = json.loads(render("sarif", report, Context()))
    schema = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0-rtm.4.json").read_text(encoding="utf-8"))
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(log)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("/sarif-schema-2.1.0.json")
    [run] = log["runs"]
    assert isinstance(run, dict)
    return run


def test_the_schema_is_one_that_can_refuse() -> None:
    schema = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0-rtm.4.json").read_text(encoding="utf-8"))
    log = json.loads(render("sarif", full_report(), Context()))
    log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(schema).validate(log)


def test_sarif_is_valid_and_complete() -> None:
    run = validated(full_report())
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("session-lint", __version__)
    assert run["columnKind"] == "unicodeCodePoints"
    _, provider, commit = run["results"]
    assert driver["rules"][commit["ruleIndex"]]["id"] == commit["ruleId"] == "SES101"
    assert [result["level"] for result in run["results"]] == ["note", "warning", "error"]
    assert commit["message"]["text"] == COMMIT.message
    [location] = commit["locations"]
    assert location == {
        "physicalLocation": {
            "artifactLocation": {"uri": "app/routes.py", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 5, "startColumn": 5, "endLine": 5, "endColumn": 22},
        },
        "logicalLocations": [{"fullyQualifiedName": "update", "kind": "function"}],
    }
    assert commit["partialFingerprints"] == {"sessionLint/v1": full_report().findings[2].fingerprint}
    assert commit["properties"] == {"confidence": "certain", "verdict": "static"}
    steps = commit["codeFlows"][0]["threadFlows"][0]["locations"]
    assert [step["location"]["message"]["text"] for step in steps] == [step.message for step in COMMIT.trail]
    assert steps[0]["location"]["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 12}
    related = provider["relatedLocations"]
    assert [entry["id"] for entry in related] == [1, 2]
    assert related[1]["message"]["text"] == "exposes Threads.remove: its commit may fail"


def test_sarif_of_nothing_and_of_awkward_things_is_valid() -> None:
    assert validated(Report())["results"] == []
    run = validated(Report(findings=[HOSTILE, replace(UNREADABLE, path="/abs/with space/ü.py", span=Span(0, 0, 0, 0))]))
    first, second = run["results"]
    place = first["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"] == "dir%2C%20with%3A%20odd%25/na%22me%27%3C%C3%A9%3E.py"
    place = second["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "file:///abs/with%20space/%C3%BC.py"}
    assert place["region"] == {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}


PAGE = """+++
code = "SES101"
name = "commit-without-rollback"
family = "transactions"
summary = "A commit may fail."
severity = "error"
since = "0.1.0"
preview = false
fix = false
proof = "pg_stat_activity"
+++
# commit-without-rollback (SES101)

## What it does

Finds commits
that may fail.

## Why it is bad

It is.
"""


def test_sarif_rules_carry_their_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SES101-commit-without-rollback.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(rulebook, "directory", lambda: tmp_path)
    [rule] = validated(Report(findings=[COMMIT, COMMIT]))["tool"]["driver"]["rules"]
    assert rule["id"] == "SES101"
    assert rule["name"] == "CommitWithoutRollback"
    assert rule["shortDescription"]["text"] == "A commit may fail."
    assert rule["fullDescription"]["text"] == "Finds commits that may fail."
    assert rule["help"]["markdown"].startswith("# commit-without-rollback (SES101)\n")
    assert rule["help"]["text"] == rule["help"]["markdown"]
    assert rule["helpUri"] == COMMIT.url
    assert rule["properties"] == {"problem.severity": "error", "tags": ["transactions", "sqlalchemy"]}
    assert rule["defaultConfiguration"] == {"level": "error"}


def test_a_broken_rule_book_does_not_cost_the_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Path:
        raise rulebook.RuleBookError("no rule pages")

    monkeypatch.setattr(rulebook, "directory", broken)
    [rule] = validated(Report(findings=[COMMIT]))["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"] == "commit without rollback"


# ---------------------------------------------------------------------------------------------- junit


def test_junit_has_a_suite_per_file_and_a_failed_case_per_finding() -> None:
    again = replace(COMMIT, span=Span(9, 5, 9, 22))
    root = ET.fromstring(render("junit", full_report(again), Context()))
    assert root.tag == "testsuites"
    assert root.attrib == {"name": "session-lint", "tests": "4", "failures": "3", "errors": "1"}
    assert [(suite.get("name"), suite.get("tests")) for suite in root] == [
        ("app/broken.py", "1"),
        ("app/db.py", "1"),
        ("app/routes.py", "2"),
    ]
    case = root[2][0]
    assert case.attrib == {
        "classname": "app.routes",
        "name": "SES101 commit-without-rollback (5:5)",
        "file": "app/routes.py",
        "line": "5",
    }
    [failure] = case
    assert (failure.tag, failure.get("type"), failure.get("message")) == ("failure", "SES101", COMMIT.message)
    assert failure.text is not None
    assert failure.text.splitlines()[1] == "1. app/db.py:2: the session is opened here"
    assert root[0][0][0].tag == "error"


def test_junit_of_nothing_has_a_passed_case() -> None:
    root = ET.fromstring(render("junit", Report(files=3), Context()))
    [[case]] = [list(suite) for suite in root]
    assert len(case) == 0
    assert root.get("tests") == "1"


def test_junit_is_well_formed_whatever_the_texts_hold() -> None:
    text = render("junit", Report(findings=[HOSTILE]), Context())
    assert text.isascii()
    failure = ET.fromstring(text)[0][0][0]
    message = failure.get("message")
    assert message is not None
    assert message.startswith("50% of «a», b: c\r\n\ufffd[31m<d> & \"e\" 'f' \u202e\ufffd")


# ---------------------------------------------------------------------------------------------- gitlab


def test_gitlab_issues() -> None:
    issues = json.loads(render("gitlab", full_report(), Context()))
    assert [issue["severity"] for issue in issues] == ["info", "minor", "major"]
    assert issues[2] == {
        "description": f"SES101 {COMMIT.message}",
        "check_name": "SES101-commit-without-rollback",
        "fingerprint": full_report().findings[2].fingerprint,
        "severity": "major",
        "location": {"path": "app/routes.py", "lines": {"begin": 5, "end": 5}},
    }
    assert json.loads(render("gitlab", Report(), Context())) == []


def test_gitlab_fingerprints_are_there_and_differ_even_if_none_was_made() -> None:
    report = Report(findings=[COMMIT, replace(COMMIT, span=Span(9, 5, 9, 22))])
    first, second = json.loads(render("gitlab", report, Context()))
    assert len({first["fingerprint"], second["fingerprint"], ""}) == 3


# ---------------------------------------------------------------------------------------------- verdicts


def test_every_format_tells_the_verdict() -> None:
    evidence = Evidence(Oracle.LEAKED_CONNECTION, "Session left open", Place("app/db.py", 2, "get_db"), frozenset())
    findings = [
        replace(COMMIT, verdict=Verdict.CONFIRMED, evidence=(evidence, evidence)),
        replace(YIELD, verdict=Verdict.NOT_REACHED),
    ]
    texts = {name: render(name, Report(findings=findings), Context()) for name in FORMATS}
    for name, text in texts.items():
        assert "confirmed" in text, name
        assert "not reached" in text, name
    first, second, *_ = texts["concise"].splitlines()
    assert first.endswith("without rolling back (certain, confirmed)")
    assert second.endswith("it is never closed (likely, not reached)")
    assert "title=SES101 commit-without-rollback (certain%2C confirmed)::" in texts["github"]
    assert texts["github"].count(f"%0APostgreSQL: confirmed: {evidence.proof}") == 1
    assert texts["junit"].count("PostgreSQL: confirmed: leaked connection") == 1
    assert [issue["description"][-12:] for issue in json.loads(texts["gitlab"])] == [" (confirmed)", "not reached)"]
