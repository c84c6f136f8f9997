"""The comments that silence findings, read by every front end in the same way.

    # session-lint: ignore[SES101, SES201] why        these rules, on the lines of the statement
    # session-lint: ignore                            every rule
    # session-lint: ignore-file[SES101] why           in the whole file
    # noqa: SES101,E501        # noqa                 as flake8 reads them
    # flake8: noqa                                    on a line of its own: the whole file

`# flake8: noqa: E501` silences the named codes only. (flake8 itself passes over such a file altogether.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from session_lint.findings import Confidence, Finding, Severity, Span

UNUSED = "SES901"
UNUSED_NAME = "unused-suppression"


class Code(NamedTuple):
    """A code as written in a comment, in capitals, with its columns."""

    text: str
    column: int
    end_column: int


class Directive(NamedTuple):
    """One silencing comment. codes: empty means all. fault: why the comment means nothing, then it does nothing."""

    line: int
    column: int
    end_column: int
    own: bool
    whole_file: bool
    codes: tuple[Code, ...]
    fault: str

    def covers(self, code: str) -> bool:
        """Whether the comment silences a rule. `# noqa` takes prefixes too, as flake8 does."""
        if self.fault:
            return False
        if not self.codes:
            return True
        return any(code == named.text or (not self.own and code.startswith(named.text)) for named in self.codes)


class Suppressions:
    """All silencing comments of one file."""

    __slots__ = ("directives",)

    def __init__(self, directives: Iterable[Directive] = ()) -> None:
        self.directives = tuple(directives)

    def __bool__(self) -> bool:
        return bool(self.directives)

    @property
    def noqa_codes(self) -> int:
        """How many `# noqa` comments name a rule of ours (Ruff would take those for unknown codes)."""
        return sum(
            not directive.own and any(code.text.startswith("SES") for code in directive.codes)
            for directive in self.directives
        )

    def ours(self) -> Suppressions:
        """Those of which something may be said in a file without findings."""
        return Suppressions(
            directive
            for directive in self.directives
            if directive.own or any(code.text.startswith("SES") for code in directive.codes)
        )

    def to_plain(self) -> tuple[object, ...]:
        """As plain tuples, for the cache."""
        return tuple(
            (*directive[:5], tuple(tuple(code) for code in directive.codes), directive.fault)
            for directive in self.directives
        )

    @classmethod
    def from_plain(cls, plain: Iterable[Any]) -> Suppressions:
        """What `to_plain` gave."""
        result = []
        for line, column, end_column, own, whole_file, codes, fault in plain:
            named = tuple([Code(*code) for code in codes])
            result.append(Directive(line, column, end_column, own, whole_file, named, fault))
        return cls(result)


class Unused(NamedTuple):
    """A comment, or one code in it, that silences nothing. code: None if it names none."""

    line: int
    column: int
    end_column: int
    code: str | None
    message: str

    def finding(self, path: str) -> Finding:
        """As the finding SES901."""
        return Finding(
            code=UNUSED,
            name=UNUSED_NAME,
            message=self.message,
            path=path,
            span=Span(self.line, self.column, self.line, self.end_column),
            function="",
            severity=Severity.WARNING,
            confidence=Confidence.CERTAIN,
            statement=(self.line, self.line),
        )


class Applied(NamedTuple):
    """kept: findings to show. suppressed: how many were silenced. unused: what should be deleted."""

    kept: list[Finding]
    suppressed: int
    unused: list[Unused]


NONE = Suppressions()


def may_hold(data: bytes) -> bool:
    """Whether a file may hold such comments at all. Cheap; the usual spellings only."""
    return b"noqa" in data or b"session-lint" in data or b"NOQA" in data or b"NoQA" in data or b"Noqa" in data


def parse(text: str) -> Suppressions:
    """The silencing comments of a file. Never fails: text that is no Python has the comments it seems to have."""
    # Its regular expressions take two milliseconds, and most runs have nothing to parse.
    from session_lint.source.comments import directives

    found = directives(text)
    return Suppressions(found) if found else NONE


def apply(
    findings: Iterable[Finding],
    suppressions: Suppressions,
    *,
    enabled: Callable[[str], bool] = bool,
    known: Collection[str] | None = None,
) -> Applied:
    """Take away what one file's comments silence.

    findings: of this file, also those that are not shown for want of confidence: a comment that silences one
    of them is not unused. enabled: whether a rule runs; the comment for a rule that doesn't is not unused.
    known: every rule's code, asked from the registry if it isn't given.
    """
    findings = list(findings)
    if not suppressions:
        return Applied(findings, 0, [])
    if known is None:
        from session_lint.codes import known_codes

        known = known_codes()
    by_line: dict[int, list[Directive]] = {}
    whole_file = []
    for directive in suppressions.directives:
        if directive.whole_file:
            whole_file.append(directive)
        else:
            by_line.setdefault(directive.line, []).append(directive)
    used: dict[Directive, set[str]] = {}
    kept = []
    for finding in findings:
        silenced = False
        for directive in (*whole_file, *_on_lines_of(finding, by_line)):
            if directive.covers(finding.code):
                used.setdefault(directive, set()).add(finding.code)
                silenced = True
        if not silenced:
            kept.append(finding)
    unused = [
        entry
        for directive in suppressions.directives
        for entry in _unused(directive, used.get(directive, set()), enabled, known)
        if not any(
            other.covers(UNUSED) and (other != directive or other.codes)
            for other in (*whole_file, *by_line.get(directive.line, ()))
        )
    ]
    return Applied(kept, len(findings) - len(kept), unused)


def _on_lines_of(finding: Finding, by_line: dict[int, list[Directive]]) -> Iterable[Directive]:
    first, last = finding.span.line, finding.span.end_line
    if finding.statement != (0, 0):
        first, last = min(first, finding.statement[0]), max(last, finding.statement[1])
    if last - first > len(by_line):
        return [directive for line, on in by_line.items() if first <= line <= last for directive in on]
    return [directive for line in range(first, last + 1) for directive in by_line.get(line, ())]


def _unused(
    directive: Directive, used: set[str], enabled: Callable[[str], bool], known: Collection[str]
) -> Iterable[Unused]:
    place = (directive.line, directive.column, directive.end_column)
    where = "in this file" if directive.whole_file else "here"
    if directive.fault:
        yield Unused(*place, None, f"this comment silences nothing: {directive.fault}")
        return
    if not directive.codes:
        if directive.own and not used and all(enabled(code) for code in known):
            yield Unused(*place, None, f"unused suppression: nothing is reported {where}")
        return
    for code in directive.codes:
        if not directive.own and not code.text.startswith("SES"):
            continue
        meant = [candidate for candidate in known if candidate.startswith(code.text)]
        if not meant or (directive.own and code.text not in known):
            yield Unused(directive.line, code.column, code.end_column, code.text, _unknown(code.text, meant, known))
        elif (
            code.text != UNUSED
            and not any(candidate.startswith(code.text) for candidate in used)
            and all(enabled(candidate) for candidate in meant)
        ):
            message = f"unused suppression: {code.text} is not reported {where}"
            yield Unused(directive.line, code.column, code.end_column, code.text, message)


def _unknown(code: str, meant: list[str], known: Collection[str]) -> str:
    if meant:
        return f'"{code}" is not a whole code, so it silences nothing; name the rules, such as {meant[0]}'
    from session_lint.codes import meant_code

    close = meant_code(code, known)
    return f'unknown rule "{code}" in this suppression' + (f'; did you mean "{close}"?' if close else "")
