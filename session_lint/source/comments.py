"""Finding the silencing comments of a file, and reading what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from session_lint.source.suppressions import Code, Directive

# Strings and comments, nothing else of Python. Regular expressions do in a millisecond what `tokenize` does
# in fifty, work on broken code too, and read the same file alike under every Python version. An escaped quote
# does not end a string, in raw strings neither, so prefixes don't matter.
TOKEN = re.compile(
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


def directives(text: str) -> list[Directive]:
    """The silencing comments of a file. Never fails: text that is no Python has the comments it seems to have."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = max((match.end() for match in _MENTIONS.finditer(text)), default=0)
    if not end:
        return []
    found: list[Directive] = []
    line = 1
    counted = 0
    for token in TOKEN.finditer(text):
        start = token.start()
        if start >= end:
            break
        if token.lastgroup != "comment" or _MENTIONS.search(text, start, token.end()) is None:
            continue
        line += text.count("\n", counted, start)
        counted = start
        begin = text.rfind("\n", 0, start) + 1
        alone = not text[begin:start].strip()
        found.extend(_directives(token.group(), line, start - begin + 1, alone))
    return found


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
        Code(_code(code.group()), first + code.start(), first + code.end()) for code in _CODE.finditer(match[group])
    )


def _code(text: str) -> str:
    """A code in capitals, and the name of a rule as it stands there."""
    return text if "-" in text else text.upper()


def _fault(match: re.Match[str]) -> str:
    """What is wrong with a comment that begins with "session-lint:"."""
    rest = match["rest"]
    if match["verb"] not in _VERBS:
        from session_lint.codes import nearest

        meant = nearest(match["verb"], _VERBS) or "ignore"
        return f'"{match["verb"] or rest.strip()}" means nothing; did you mean "session-lint: {meant}[CODE] why"?'
    if match["list"] is not None:
        return "" if _CODE.search(match["codes"]) else "the brackets hold no code"
    if rest.startswith("["):
        return "the bracket is not closed"
    if rest[:1] in (":", "=", "(") or re.match(r"\s*SES\d", rest, re.IGNORECASE):
        return f'codes stand in brackets: "session-lint: {match["verb"]}[SES101] why"'
    return ""
