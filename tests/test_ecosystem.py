"""The judged findings of real applications are well-formed, and the script that compares with them tells the truth.

Offline: the applications themselves are linted by hand, as CONTRIBUTING.md says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ecosystem.run import JUDGED, VERDICTS, Finding, Project, read, write

from session_lint import rulebook

SCRIPT = JUDGED.with_name("run.py")
FALSE = "false alarm"
WITHOUT_FALSE_ALARMS = ("fastapi/full-stack-fastapi-template", "pypi/warehouse", "hypothesis/h")

LEAK = """\
from sqlalchemy.orm import Session


def count(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""
CLEAN = "from sqlalchemy.orm import Session\n"
INTRODUCTION = "# Two applications\n"


def projects() -> dict[str, Project]:
    return {project.repository: project for project in read(JUDGED)[1]}


def findings() -> list[Finding]:
    return [finding for project in projects().values() for finding in project.findings]


# ---------------------------------------------------------------------------------------------------- what is judged


def test_every_project_is_pinned_and_named_once() -> None:
    _, all_projects = read(JUDGED)
    assert len(all_projects) > 20
    assert len({project.repository for project in all_projects}) == len(all_projects)
    assert [project.repository for project in all_projects if not re.fullmatch(r"[0-9a-f]{40}", project.commit)] == []


def test_every_finding_is_of_a_rule_and_has_a_verdict_with_its_reason() -> None:
    codes = {page.code for page in rulebook.load_pages().values()}
    wrong = [
        str(finding)
        for finding in findings()
        if finding.code not in codes
        or finding.verdict not in VERDICTS
        or finding.confidence not in ("certain", "likely")
        or not finding.path.endswith(".py")
        or finding.line < 1
        or len(finding.reason.split()) < 4
    ]
    assert wrong == []
    assert len(findings()) == len({(finding.where, finding.line) for finding in findings()})


def test_at_most_one_in_twenty_is_a_false_alarm() -> None:
    verdicts = Counter(finding.verdict for finding in findings())
    assert verdicts.total() > 50
    assert verdicts[FALSE] <= verdicts.total() * 0.05


@pytest.mark.parametrize("repository", WITHOUT_FALSE_ALARMS)
def test_no_false_alarm_in(repository: str) -> None:
    assert [str(finding) for finding in projects()[repository].findings if finding.verdict == FALSE] == []


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    introduction, known = read(JUDGED)
    write(tmp_path / "copy.md", introduction, known)
    assert (tmp_path / "copy.md").read_text(encoding="utf-8") == JUDGED.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------- comparing


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(directory: Path, **files: str) -> str:
    """A repository with one commit; its name."""
    directory.mkdir(parents=True)
    git(directory, "init", "-q")
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text, encoding="utf-8")
    git(directory, "add", ".")
    git(directory, "commit", "-q", "-m", "first")
    return git(directory, "rev-parse", "HEAD")


def section(name: str, commit: str, *rows: str, unread: int = 0) -> str:
    table = ["", "| verdict | code | place | function | confidence | reason |", "|---|---|---|---|---|---|", *rows]
    return "\n".join(["", f"## {name}", "", f"Commit `{commit}`, {unread} files not read.", *(table if rows else [])])


def run(tmp_path: Path, judged: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "judged.md").write_text(INTRODUCTION + judged + "\n", encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--judged", str(tmp_path / "judged.md"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


JUDGED_LEAK = "| true | SES201 | leaks.py:5 | count | certain | Nobody closes it. |"


def test_nothing_has_changed(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme" / "shop", leaks=LEAK)
    done = run(tmp_path, section("acme/shop", commit, JUDGED_LEAK))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^acme/shop +1 +0 +0 +0 +0\.0%$", done.stdout, re.MULTILINE)
    assert not re.search(r"^ +[-+~!]", done.stdout, re.MULTILINE)


def test_the_commit_counts_and_not_what_is_checked_out(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme+shop", leaks=LEAK)
    (tmp_path / "acme+shop" / "leaks.py").write_text(CLEAN, encoding="utf-8")
    git(tmp_path / "acme+shop", "commit", "-q", "-a", "-m", "second")
    assert run(tmp_path, section("acme/shop", commit, JUDGED_LEAK)).returncode == 0
    assert (tmp_path / "acme+shop" / "leaks.py").read_text(encoding="utf-8") == CLEAN
    assert git(tmp_path / "acme+shop", "status", "--porcelain") == ""


def test_what_nobody_has_judged_is_added_and_fails(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme" / "shop", leaks=LEAK)
    done = run(tmp_path, section("acme/shop", commit), "--write")
    assert done.returncode == 1
    assert "acme/shop\n  + leaks.py:5 SES201 (certain) count\n" in done.stdout
    (finding,) = read(tmp_path / "judged.md")[1][0].findings
    assert (finding.verdict, finding.line) == ("?", 5)


def test_what_is_no_longer_found_is_removed(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme" / "shop", leaks=CLEAN)
    done = run(tmp_path, section("acme/shop", commit, JUDGED_LEAK), "--write")
    assert done.returncode == 0
    assert "  - leaks.py:5 SES201 (certain) count: true, Nobody closes it.\n" in done.stdout
    assert read(tmp_path / "judged.md")[1][0].findings == []


def test_a_finding_on_another_line_keeps_its_verdict(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme" / "shop", leaks=LEAK)
    elsewhere = JUDGED_LEAK.replace(":5", ":6").replace("certain", "likely")
    done = run(tmp_path, section("acme/shop", commit, elsewhere), "--write")
    assert done.returncode == 0
    assert "  ~ leaks.py:6 SES201 (likely) count is now line 5, certain: true, Nobody closes it.\n" in done.stdout
    assert JUDGED_LEAK in (tmp_path / "judged.md").read_text(encoding="utf-8")


def test_shares_of_false_alarms(tmp_path: Path) -> None:
    shop = repository(tmp_path / "acme" / "shop", leaks=LEAK)
    bank = repository(tmp_path / "acme" / "bank", leaks=LEAK)
    judged = section("acme/shop", shop, JUDGED_LEAK) + "\n"
    judged += section("acme/bank", bank, JUDGED_LEAK.replace("true", FALSE))
    done = run(tmp_path, judged)
    assert re.search(r"^acme/bank +0 +0 +1 +0 +100\.0%$", done.stdout, re.MULTILINE)
    assert re.search(r"^all +1 +0 +1 +0 +50\.0%$", done.stdout, re.MULTILINE)
    assert "acme/bank" not in run(tmp_path, judged, "--only", "shop").stdout


def test_files_that_cannot_be_read_are_no_findings_but_counted(tmp_path: Path) -> None:
    commit = repository(tmp_path / "acme" / "shop", broken=f"{CLEAN}def (:\n")
    assert run(tmp_path, section("acme/shop", commit, unread=1)).returncode == 0
    done = run(tmp_path, section("acme/shop", commit))
    assert done.returncode == 1
    assert "  ! 1 files can't be read instead of 0" in done.stdout


def test_a_project_that_cannot_be_linted_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    repository(tmp_path / "acme" / "shop", leaks=LEAK)
    bank = repository(tmp_path / "acme" / "bank", leaks=LEAK)
    done = run(tmp_path, section("acme/shop", "0" * 40) + "\n" + section("acme/bank", bank, JUDGED_LEAK))
    assert done.returncode == 1
    assert "acme/shop\n  ! git ls-tree: " in done.stdout
    assert re.search(r"^acme/bank +1 ", done.stdout, re.MULTILINE)


def test_a_file_that_is_not_as_it_should_be_names_the_line(tmp_path: Path) -> None:
    done = run(tmp_path, section("acme/shop", "0" * 40, "| true | SES201 | leaks.py:5 | count |"))
    assert done.returncode == 2
    assert "judged.md:9: 4 cells instead of 6" in done.stderr
    assert "Traceback" not in done.stderr
