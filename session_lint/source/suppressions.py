"""The comments that silence findings, read by every front end in the same way.

    # session-lint: ignore[SES101, SES201] why        these rules, on the lines of the statement
    # session-lint: ignore                            every rule
    # session-lint: ignore-file[SES101] why           in the whole file
    # noqa: SES101,E501        # noqa                 as flake8 reads them
    # flake8: noqa                                    on a line of its own: the whole file

`# flake8: noqa: E501` silences the named codes only. (flake8 itself passes over such a file altogether.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from session_lint.findings import Confidence, Finding, Severity, Span

UNUSED = "SES901"
UNUSED_NAME = "unused-suppression"

# Strings and comments, nothing else of Python. Regular expressions do in a millisecond what `tokenize` does
# in fifty, work on broken code too, and read the same file alike under every Python version. An escaped quote
# does not end a string, in raw strings neither, so prefixes don't matter.
_TOKEN = re.compile(
    r'''
      (?P<comment>\#[^\n]*)
    | """[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"""|\Z)
    | '{3}[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:'{3}|\Z)
    | "[^"\\\n]*(?:\\.[^"\\\n]*)*"?
    | '[^'\\\n]*(?:\\.[^'\\\n]*)*'?
    ''',
    re.VERBOSE | re.DOTALL,
)
_MENTIONS = re.compile(r"noqa|session-lint", re.IGNORECASE)
_OWN = re.compile(r"#\s*session-lint\s*:\s*(?P<verb>[\w-]*)\s*(?P<list>\[(?P<codes>[^\]]*)\])?(?P<rest>[^#]*)")
_VERBS = ("ignore", "ignore-file")
# flake8's own expression, but for the space after "#", which flake8 wants and people leave out.
_NOQA = re.compile(r"#\s*noqa(?::\s?(?P<codes>(?:[A-Z]+[0-9]+(?:[,\s]+)?)+))?", re.IGNORECASE)
_NOQA_FILE = re.compile(r"#\s*flake8[:=]\s*noqa(?::\s?(?P<codes>(?:[A-Z]+[0-9]+(?:[,\s]+)?)+))?", re.IGNORECASE)
_CODE = re.compile(r"[^\s,]+")


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
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = max((match.end() for match in _MENTIONS.finditer(text)), default=0)
    if not end:
        return NONE
    directives: list[Directive] = []
    line = 1
    counted = 0
    for token in _TOKEN.finditer(text):
        start = token.start()
        if start >= end:
            break
        if token.lastgroup != "comment" or _MENTIONS.search(text, start, token.end()) is None:
            continue
        line += text.count("\n", counted, start)
        counted = start
        begin = text.rfind("\n", 0, start) + 1
        alone = not text[begin:start].strip()
        directives.extend(_directives(token.group(), line, start - begin + 1, alone))
    return Suppressions(directives)


def _directives(comment: str, line: int, column: int, alone: bool) -> Iterable[Directive]:
    for match in _OWN.finditer(comment):
        fault = _fault(match)
        codes = () if fault else _codes(match, "codes", column)
        end = match.end("list") if match["list"] is not None else match.end("verb")
        whole_file = match["verb"] == "ignore-file"
        yield Directive(line, column + match.start(), column + end, True, whole_file, codes, fault)
    in_file = _NOQA_FILE.match(comment) if alone else None
    noqa = in_file or _NOQA.search(comment)
    if noqa is not None:
        codes = _codes(noqa, "codes", column)
        end = codes[-1].end_column if codes else column + noqa.end()
        yield Directive(line, column + noqa.start(), end, False, in_file is not None, codes, "")


def _codes(match: re.Match[str], group: str, column: int) -> tuple[Code, ...]:
    if match[group] is None:
        return ()
    first = column + match.start(group)
    return tuple(
        Code(code.group().upper(), first + code.start(), first + code.end()) for code in _CODE.finditer(match[group])
    )


def _fault(match: re.Match[str]) -> str:
    """What is wrong with a comment that begins with "session-lint:"."""
    rest = match["rest"]
    if match["verb"] not in _VERBS:
        from session_lint.settings import nearest

        meant = nearest(match["verb"], _VERBS) or "ignore"
        return f'"{match["verb"] or rest.strip()}" means nothing; did you mean "session-lint: {meant}[CODE] why"?'
    if match["list"] is not None:
        return "" if _CODE.search(match["codes"]) else "the brackets hold no code"
    if rest.startswith("["):
        return "the bracket is not closed"
    if rest[:1] in (":", "=", "(") or re.match(r"\s*SES\d", rest, re.IGNORECASE):
        return f'codes stand in brackets: "session-lint: {match["verb"]}[SES101] why"'
    return ""


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
        from session_lint.settings import known_codes

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
    from session_lint.settings import nearest

    close = nearest(code, known)
    return f'unknown rule "{code}" in this suppression' + (f'; did you mean "{close}"?' if close else "")
