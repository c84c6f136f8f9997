"""Bytes to text, and what is said when that is impossible."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import libcst
import pytest

from session_lint.source.reading import Problem, decode, lines_of, problem_of, read


def problem(data: bytes) -> tuple[str, int, int]:
    with pytest.raises(Problem) as caught:
        decode(data)
    return caught.value.message, caught.value.line, caught.value.column


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("é = 1\n".encode(), "é = 1\n"),
        (b"\xef\xbb\xbfx = 1\r\n", "x = 1\r\n"),
        (b"\xef\xbb\xbf# coding: utf-8\n", "# coding: utf-8\n"),
        (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", "# -*- coding: latin-1 -*-\nx = 'é'\n"),
        (b"#!python\n# vim: fileencoding=cp1252 :\n# \x80\n", "#!python\n# vim: fileencoding=cp1252 :\n# €\n"),
        (b"\r# coding=latin1\r'\xe9'", "\r# coding=latin1\r'é'"),
        (b"x = 1\n# coding: nonsense\n", "x = 1\n# coding: nonsense\n"),
        (b"\n\n# coding: nonsense\n", "\n\n# coding: nonsense\n"),
        (b"# coding: UTF_8\n'\xc3\xa9'", "# coding: UTF_8\n'é'"),
    ],
)  # fmt: skip
def test_text_is_read_as_python_reads_it(data: bytes, text: str) -> None:
    assert decode(data) == text
    ast.parse(data)


@pytest.mark.parametrize(
    ("data", "message", "line", "column"),
    [
        (b"x = 1\ny = '\xff'", "is not UTF-8 text: byte 0xff at offset 11", 2, 6),
        ("é = '".encode() + b"\xe9'", "is not UTF-8 text: byte 0xe9 at offset 6", 1, 6),
        (b"\xef\xbb\xbfx\xff", "is not UTF-8 text: byte 0xff at offset 4", 1, 2),
        (b"a\r\nb\rc\0", "is not Python source: null byte at offset 6", 3, 2),
        (b"\x7fELF\0\0", "is not Python source: null byte at offset 4", 1, 5),
        ("x = 1".encode("utf-16-le"), "is not Python source: null byte at offset 1", 1, 2),
        (b"\n# coding: klingon\n", 'declares an unknown encoding "klingon"', 2, 1),
        (b"# coding: ascii\n'\xe9'", "is not ascii text: byte 0xe9 at offset 17", 2, 2),
        (b"# coding: hex\n", 'declares an unknown encoding "hex"', 1, 1),
        (b"\xef\xbb\xbf# coding: l1\n", 'begins with a UTF-8 byte order mark but declares the encoding "l1"', 1, 1),
    ],
)  # fmt: skip
def test_what_is_said_of_bytes_that_are_no_text(data: bytes, message: str, line: int, column: int) -> None:
    assert problem(data) == (message, line, column)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")]:
        with pytest.raises(Problem) as caught:
            read(path)
        assert caught.value.message in (f"cannot be read: {reason}", "cannot be read: Permission denied")


def test_lines_are_counted_as_python_counts_them() -> None:
    assert lines_of("a\nb\n") == ["a", "b", ""]
    assert lines_of("a\r\nb\rc\fd\x1ce\u2028f") == ["a", "b", "c\fd\x1ce\u2028f"]
    assert lines_of("") == [""]


def test_the_words_for_what_parsers_raise() -> None:
    def said(error: BaseException) -> tuple[str, int, int]:
        found = problem_of(error)
        return found.message, found.line, found.column

    with pytest.raises(SyntaxError) as syntax:
        ast.parse("x = 1\ndef f(:\n")
    assert said(syntax.value) == ("is not valid Python: invalid syntax", 2, 7)
    with pytest.raises(libcst.ParserSyntaxError) as parser:
        libcst.parse_module("x = 1\ndef f(:\n")
    message, line, _ = said(parser.value)
    assert (message, line) == ("is not valid Python: expected one of ), *, **, NAME", 2)
    with pytest.raises(libcst.ParserSyntaxError) as parser:
        libcst.parse_module("x = é é\n")
    assert len(said(parser.value)[0]) <= 101
    assert said(RecursionError()) == ("is nested too deeply to be analysed", 1, 1)
    assert said(MemoryError()) == ("is nested too deeply or too large to be analysed", 1, 1)
    assert said(KeyError("x\ny")) == ("could not be analysed: KeyError: 'x\\ny'", 1, 1)
    same = Problem("m", 3, 4)
    assert problem_of(same) is same


@pytest.mark.skipif(sys.version_info < (3, 9), reason="older parsers nest less")
def test_code_that_is_nested_too_deeply_for_python_itself() -> None:
    with pytest.raises((SyntaxError, RecursionError, MemoryError)) as caught:
        ast.parse("(" * 5000 + ")" * 5000)
    assert "valid Python" in problem_of(caught.value).message or "nested" in problem_of(caught.value).message
