"""From a file's text to its IR.

`ast` reads the file first, because it is six times faster: it says which statements may matter, and where
everything stands. Those statements go to LibCST, whose nodes the visitors turn into IR. What is too much for LibCST
is left out, and the rest is judged without it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import libcst as cst

from session_lint import ir
from session_lint.source.reading import Problem, problem_of

# Imported for the visitors that they register.
from session_lint.syntax import definitions as _definitions  # noqa: F401
from session_lint.syntax import expressions as _expressions  # noqa: F401
from session_lint.syntax import positions, relevance
from session_lint.syntax import statements as _statements  # noqa: F401
from session_lint.syntax.depth import MAX_LEVELS, TOO_DEEP, too_deep
from session_lint.syntax.lowering import Lowering
from session_lint.syntax.mapped import mapped
from session_lint.syntax.pieces import pieces


class Lowered(NamedTuple):
    """left_out: what could not be judged although the rest of the file is."""

    module: ir.Module
    left_out: tuple[Problem, ...]


def lower(text: str, package: str, is_package: bool = False, words: Sequence[str] = ()) -> Lowered:
    """The IR of a module's source.

    package: the module's dotted name, from which relative imports are resolved. words: names that mean a session in
    this project.

    Raises:
        Problem: neither this Python nor LibCST can parse it, or it is nested too deeply.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    lines = [f"{line}\n" for line in text.split("\n")]
    reader = _Reader(package, is_package, words)
    try:
        reader.read(text, lines)
    except RecursionError as error:
        raise problem_of(error) from None
    return Lowered(ir.Module(tuple(reader.body), len(lines), reader.functions), tuple(reader.left_out))


def check_syntax(text: str) -> None:
    """Raises Problem if neither this Python nor LibCST can parse it."""
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lower(text, "")


# `except A, B:` is new in Python 3.14. `except A| B:` means something else, but it has the same places.
_EXCEPT = re.compile(r"^([ \t]*except\*?[ \t]+[\w.]+)((?:[ \t]*,[ \t]*[\w.]+)+)(?=[ \t]*:)", re.MULTILINE)


def parse(text: str) -> ast.Module:
    """`ast.parse` without warnings, which also reads `except A, B:` under older Pythons.

    Raises what `ast.parse` does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except SyntaxError as error:
            changed = _EXCEPT.sub(lambda match: match[1] + match[2].replace(",", "|"), text)
            if changed == text:
                raise
            try:
                return ast.parse(changed)
            except SyntaxError:
                raise error from None


# What follows that looks nested to those who count brackets.
_BRACKETS = re.compile(r"'.' was never closed|closing parenthesis '.' does not match|unmatched '.'")


class _Refused(Exception):  # noqa: N818 - it is reported, not handled
    """LibCST can't be given a unit, or can't read it."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


class _Reader:
    """Reads one file. body, functions, left_out: what it has found so far."""

    def __init__(self, package: str, is_package: bool, words: Sequence[str]) -> None:
        self._package = package
        self._is_package = is_package
        self._words = words
        self._is_sqlmodel = False
        self.body: list[ir.Stmt] = []
        self.functions = 0
        self.left_out: list[Problem] = []

    def read(self, text: str, lines: Sequence[str]) -> None:
        self._is_sqlmodel = "sqlmodel" in text
        try:
            tree = parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self._read_in_pieces(text, lines, error)
        else:
            self._read_tree(tree, lines, 0)

    def _read_tree(self, tree: ast.Module, lines: Sequence[str], offset: int) -> None:
        self.functions += _count_functions(tree)
        for unit in relevance.units(tree, lines, self._words):
            self._read_unit(unit, lines, offset)

    # --------------------------------------------------------------------------------- what ast can't read

    def _read_in_pieces(self, text: str, lines: Sequence[str], error: Exception) -> None:
        """A file that this Python can't read may be written for a newer one, which LibCST knows.

        Most of its statements are written for any Python.
        """
        for offset, piece in pieces(lines):
            source = "".join(piece)
            try:
                tree = parse(source)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as refused:
                if isinstance(refused, SyntaxError) and _BRACKETS.match(refused.msg or "") is not None:
                    self._read_whole(text, error if isinstance(error, SyntaxError) else refused)
                    return
                line = too_deep(source)
                if line is not None or not isinstance(refused, SyntaxError):
                    self.left_out.append(_left_out("what begins here", offset + (line or 1)))
                    continue
                try:
                    module = cst.parse_module(source)
                except cst.ParserSyntaxError as problem:
                    self._read_whole(text, error if isinstance(error, SyntaxError) else problem)
                    return
                self.functions += source.count("def ")
                if relevance.may_matter(piece):
                    module, places = positions.generate(module, range(offset + 1, offset + len(piece) + 1))
                    self.body.extend(self._lowering(places).block(module.body))
            else:
                self._read_tree(tree, piece, offset)

    def _read_whole(self, text: str, error: Exception) -> None:
        """The file is broken, unless it only was divided in the wrong places."""
        if too_deep(text) is not None:
            raise problem_of(error) from None
        try:
            module = cst.parse_module(text)
        except cst.ParserSyntaxError:
            raise problem_of(error) from None
        module, places = positions.generate(module, range(1, text.count("\n") + 2))
        self.left_out.clear()
        self.functions = text.count("def ")
        self.body = list(self._lowering(places).block(module.body))

    # ---------------------------------------------------------------------------------- what ast has read

    def _read_unit(self, unit: relevance.Unit, lines: Sequence[str], offset: int) -> None:
        try:
            self.body.extend(self._lowered(unit, lines, offset))
        except _Refused as refused:
            self._read_parts(unit, lines, offset, refused)

    def _read_parts(self, unit: relevance.Unit, lines: Sequence[str], offset: int, refused: _Refused) -> None:
        """Leave out the parts that can't be read."""
        kept = []
        for part in unit.parts:
            try:
                self._lowered(unit.only([part]), lines, offset)
            except _Refused as why:
                name = getattr(part.statements[0], "name", None)
                prefix = f"{unit.owner.name}." if unit.owner is not None else ""
                what = f"{prefix}{name}" if name else "a statement"
                self.left_out.append(_left_out(what, why.line, why.what))
            else:
                kept.append(part)
        try:
            if kept or unit.owner is not None:
                self.body.extend(self._lowered(unit.only(kept), lines, offset))
        except _Refused:
            what = f"class {unit.owner.name}" if unit.owner is not None else "what begins here"
            self.left_out.append(_left_out(what, refused.line, refused.what))

    def _lowered(self, unit: relevance.Unit, lines: Sequence[str], offset: int) -> tuple[ir.Stmt, ...]:
        statements = unit.statements
        try:
            entries = positions.collect(statements, lines, offset, MAX_LEVELS)
        except positions.TooDeep as error:
            raise _Refused(_NESTED, error.line) from None
        try:
            module = cst.parse_module(unit.text)
        except cst.ParserSyntaxError:
            raise _Refused("cannot be parsed by LibCST", statements[0].lineno + offset) from None
        places = positions.pair(module, entries)
        if places is None:
            numbers = [number + offset for number in unit.line_numbers]
            module, places = positions.generate(module, numbers)
        classes = [unit.owner] if unit.owner is not None else statements
        found = {item.name: mapped(item, self._is_sqlmodel) for item in classes if isinstance(item, ast.ClassDef)}
        return tuple([_mapping(statement, found) for statement in self._lowering(places).block(module.body)])

    def _lowering(self, places: positions.Positions) -> Lowering:
        return Lowering(places, self._package, self._is_package)


_NESTED = f"is nested more than {MAX_LEVELS} levels deep"


def _mapping(statement: ir.Stmt, found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> ir.Stmt:
    """A class with what it maps, most of which is not lowered."""
    if not isinstance(statement, ir.Define) or not isinstance(statement.definition, ir.Class):
        return statement
    columns, relations = found.get(statement.definition.name, ((), ()))
    return statement._replace(definition=statement.definition._replace(columns=columns, relations=relations))


def _left_out(what: str, line: int, why: str = TOO_DEEP) -> Problem:
    return Problem(f"{what} {why}; it is left out, and the rest of the file is judged", line)


def _count_functions(tree: ast.Module) -> int:
    count = 0
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        count += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if type(block) is list:
                stack.extend(block)
    return count


_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
