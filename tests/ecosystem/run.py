"""Lint well-kept applications again, and say what is other than judged in findings.md.

    python tests/ecosystem/run.py DIRECTORY                       # all of them
    python tests/ecosystem/run.py DIRECTORY --only Netflix        # those whose name holds this
    python tests/ecosystem/run.py DIRECTORY --write               # ... and bring findings.md up to date

DIRECTORY holds checkouts or bare repositories, as OWNER/NAME or OWNER+NAME; what is not there is fetched from GitHub
into it. Linted is the commit that findings.md names, with the default settings. Exits with 1 if a project can't be
linted or a finding has not been judged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

VERDICTS = ("true", "arguable", "false alarm")
UNJUDGED = "?"
JUDGED = Path(__file__).with_name("findings.md")
UNREAD = "SES902"
_DEFAULTS = ("--isolated", "--no-cache")

# What the linter reads: the code, and what says which versions it runs with.
_FILES = ("*.py", "*.pyi", ".gitignore", "*.toml", "*.lock", "*setup.cfg", "*Pipfile", "*requirements*")

_HEADING = re.compile(r"## ([\w.-]+/[\w.-]+)")
_COMMIT = re.compile(r"Commit `([0-9a-f]{40})`, (\d+) files? not read\.")
_COLUMNS = ("verdict", "code", "place", "function", "confidence", "reason")


class CannotRunError(Exception):
    """A project that can't be linted. The message is for the user."""


@dataclass(frozen=True)
class Finding:
    """A finding, and what a reader of the code says of it."""

    code: str
    path: str
    line: int
    function: str
    confidence: str
    verdict: str = UNJUDGED
    reason: str = ""

    @property
    def where(self) -> tuple[str, str, str]:
        """What stays when the linter points at another line of the function."""
        return self.code, self.path, self.function

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.code} ({self.confidence}) {self.function}"


@dataclass
class Project:
    """One repository at one commit; unread: the files that can't be parsed."""

    repository: str
    commit: str = ""
    unread: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Comparison:
    """What a run gives against what was judged; changed: (judged, found), at another line or another confidence."""

    added: list[Finding]
    removed: list[Finding]
    changed: list[tuple[Finding, Finding]]
    found: list[Finding]
    """All that the run gave, each with its verdict if it has one."""


def read(path: Path) -> tuple[str, list[Project]]:
    """The introduction and the projects of findings.md; a ValueError names the line that is not as it should be."""
    text = path.read_text(encoding="utf-8")
    introduction, mark, rest = text.partition("\n## ")
    start = introduction.count("\n") + 1
    projects: list[Project] = []
    for number, line in enumerate((mark + rest)[1:].splitlines(), start + 1):
        try:
            _read_line(line, projects)
        except ValueError as error:
            raise ValueError(f"{path.name}:{number}: {error}") from None
    return introduction.rstrip("\n"), projects


def _read_line(line: str, projects: list[Project]) -> None:
    if heading := _HEADING.fullmatch(line):
        projects.append(Project(heading[1]))
    elif commit := _COMMIT.fullmatch(line):
        projects[-1].commit, projects[-1].unread = commit[1], int(commit[2])
    elif line.startswith("| ") and not line.startswith("| verdict "):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != len(_COLUMNS):
            raise ValueError(f"{len(cells)} cells instead of {len(_COLUMNS)}")
        verdict, code, place, function, confidence, reason = cells
        name, _, number = place.rpartition(":")
        projects[-1].findings.append(Finding(code, name, int(number), function, confidence, verdict, reason))
    elif line and not line.startswith(("|--", "| verdict ")):
        raise ValueError("neither a heading, a commit nor a row of a table")


def write(path: Path, introduction: str, projects: Iterable[Project]) -> None:
    """The file that `read` reads."""
    parts = [introduction]
    for project in projects:
        files = "file" if project.unread == 1 else "files"
        parts += ["", f"## {project.repository}", "", f"Commit `{project.commit}`, {project.unread} {files} not read."]
        if project.findings:
            parts += ["", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
        for found in sorted(project.findings, key=lambda found: (found.path, found.line, found.code)):
            place = f"{found.path}:{found.line}"
            cells = (found.verdict, found.code, place, found.function, found.confidence, found.reason)
            parts.append(f"| {' | '.join(cells)} |")
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def compare(judged: Iterable[Finding], found: Iterable[Finding]) -> Comparison:
    """Pair what is the same finding: first at the same line, then within the same function."""
    left, new = list(judged), list(found)
    pairs: list[tuple[Finding, Finding]] = []
    for exactly in (True, False):
        for finding in list(new):
            partner = next((old for old in left if _same(old, finding, exactly)), None)
            if partner is not None:
                left.remove(partner)
                new.remove(finding)
                pairs.append((partner, replace(finding, verdict=partner.verdict, reason=partner.reason)))
    changed = [(old, now) for old, now in pairs if old != now]
    return Comparison(new, left, changed, [*(now for _, now in pairs), *new])


def _same(one: Finding, other: Finding, exactly: bool) -> bool:
    return one.where == other.where and (one.line == other.line or not exactly)


def lint(tree: Path) -> tuple[list[Finding], int]:
    """The findings below a directory, and the number of files that can't be parsed."""
    command = [
        sys.executable,
        "-I",
        "-m",
        "session_lint",
        "check",
        "--isolated",
        "--no-cache",
        "--output-format",
        "json",
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise CannotRunError(f"session-lint ends with {done.returncode}: {done.stderr.strip()}")
    findings = json.loads(done.stdout)["findings"]
    unread = sum(each["code"] == UNREAD for each in findings)
    return [_finding(each) for each in findings if each["code"] != UNREAD], unread


def _finding(each: dict[str, object]) -> Finding:
    function = str(each["function"] or "-")
    return Finding(str(each["code"]), str(each["path"]), int(str(each["line"])), function, str(each["confidence"]))


def checked_out(project: Project, directory: Path, tree: Path) -> None:
    """Lay out in `tree` what the linter reads of the project's commit."""
    repository = _repository(project, directory)
    files = _git(repository, "ls-tree", "-r", "--name-only", "-z", project.commit, index=tree).split("\0")
    wanted = [name for name in files if any(Path(name).match(pattern) for pattern in _FILES)]
    work = ("--work-tree", str(tree))
    _git(
        repository,
        *work,
        "checkout",
        "-q",
        project.commit,
        "--pathspec-from-file=-",
        "--pathspec-file-nul",
        index=tree,
        given="\0".join(wanted),
    )


def _repository(project: Project, directory: Path) -> Path:
    owner, _, name = project.repository.partition("/")
    for place in (directory / owner / name, directory / f"{owner}+{name}", directory / owner / f"{name}.git"):
        if place.is_dir():
            return place
    place.mkdir(parents=True)
    _git(place, "init", "-q", "--bare")
    url = f"https://github.com/{project.repository}"
    _git(place, "fetch", "-q", "--depth", "1", url, project.commit)
    return place


def _git(repository: Path, *arguments: str, index: Path | None = None, given: str = "") -> str:
    command = ["git", "--literal-pathspecs", "-C", str(repository), *arguments]
    environment = None if index is None else {**os.environ, "GIT_INDEX_FILE": f"{index}.index"}
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRunError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def run(project: Project, directory: Path) -> tuple[Comparison, int]:
    """Lint the project as it is at its commit: the comparison, and the number of files that can't be parsed."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, "tree")
        tree.mkdir()
        checked_out(project, directory, tree)
        found, unread = lint(tree)
    return compare(project.findings, found), unread


def differences(project: Project, comparison: Comparison, unread: int) -> Iterator[str]:
    """What is other than written down, a line each."""
    for finding in comparison.added:
        yield f"  + {finding}"
    for finding in comparison.removed:
        yield f"  - {finding}: {finding.verdict}, {finding.reason}"
    for old, now in comparison.changed:
        yield f"  ~ {old} is now line {now.line}, {now.confidence}: {now.verdict}, {now.reason}"
    if unread != project.unread:
        yield f"  ! {unread} files can't be read instead of {project.unread}"


def shares(name: str, findings: Iterable[Finding]) -> str:
    """How many findings have which verdict, and the share of false alarms among the judged."""
    counts = Counter(finding.verdict for finding in findings)
    judged = counts.total() - counts[UNJUDGED]
    share = f"{counts['false alarm'] / judged:.1%}" if judged else "-"
    cells = [f"{counts[verdict]:>11}" for verdict in (*VERDICTS, UNJUDGED)]
    return f"{name:44}{''.join(cells)}{share:>14}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="holds the repositories, or will hold them")
    parser.add_argument("--only", default="", metavar="TEXT", help="the projects whose name holds this")
    parser.add_argument("--judged", type=Path, default=JUDGED, metavar="FILE", help="instead of findings.md")
    parser.add_argument("--write", action="store_true", help="write what was found; what is new gets the verdict ?")
    options = parser.parse_args()
    try:
        introduction, projects = read(options.judged)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    failed = False
    rows: list[str] = []
    everything: list[Finding] = []
    for project in projects:
        if options.only not in project.repository:
            continue
        try:
            comparison, unread = run(project, options.directory)
        except CannotRunError as error:
            failed = True
            print(f"{project.repository}\n  ! {error}")
            continue
        lines = list(differences(project, comparison, unread))
        if lines:
            print(project.repository, *lines, sep="\n", flush=True)
        failed = failed or bool(comparison.added) or unread > project.unread
        rows.append(shares(project.repository, comparison.found))
        everything += comparison.found
        project.findings, project.unread = comparison.found, unread
    head = "".join(f"{verdict:>11}" for verdict in (*VERDICTS, "unjudged"))
    print(f"\n{'':44}{head}  false alarms", *rows, shares("all", everything), sep="\n")
    if options.write:
        write(options.judged, introduction, projects)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
