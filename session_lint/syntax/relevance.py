"""Which parts of a file may matter to a session; the rest never reaches LibCST.

All judgements here are by words and err on the side of reading too much: what is left out can hold no session,
hand none on, and change no contract.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

_WORDS = re.compile(
    r"session|sess\b|\bdb\b|_db\b|\bdb_|\bDB|engine|conn|commit|rollback|transaction|\btx\b|sqlalchemy|sqlmodel"
    r"|Depends|\bquery\b|\.execute|flush|savepoint|IntegrityError|DBAPIError|OperationalError|Unique|\.save\(|\.create\("
    r"|contextmanager|ExitStack|dependenc|\buow\b|unit_of_work",
    re.IGNORECASE,
)
_HOLDS_SESSION = re.compile(r"session|\bdb\b|_db\b|\bconn|transaction|engine|\brepo|\bdao\b|\buow\b", re.IGNORECASE)
_SESSION_MODULE = re.compile(r"(^|[._])(db|database|sessions?|engine|connection)$")
_SHORT = 12


def reduce(tree: ast.Module, lines: Sequence[str]) -> tuple[str, list[ast.stmt]]:
    """The source of the statements that may matter, and those statements in the same order.

    lines: the file's lines with their line ends.
    """
    text: list[str] = []
    kept: list[ast.stmt] = []
    words = _words_of(tree, lines)
    for group in _groups(tree.body):
        if any([_statement_matters(statement, lines, words) for statement in group]):
            statement = group[0]
            if len(group) == 1 and isinstance(statement, ast.ClassDef):
                reduced = _reduce_class(statement, lines, words)
                if reduced is not None:
                    text.append(reduced[0])
                    kept.append(reduced[1])
                    continue
            text.extend(lines[_first_line(statement) - 1 : _last_line(group[-1])])
            kept.extend(group)
    return "".join(text), kept


def _words_of(tree: ast.Module, lines: Sequence[str]) -> re.Pattern[str]:
    """The words that matter in this file: those that matter everywhere, and the names that this file gives to them.

    `Local = sessionmaker(engine)` makes `Local` such a word, `def current(): ... yield` over it makes `current` one.
    """
    names: set[str] = set()
    for statement in tree.body:
        if (
            isinstance(statement, ast.Assign)
            and _length(statement) <= _SHORT
            and _WORDS.search(_source(statement, lines))
        ):
            names.update([target.id for target in statement.targets if isinstance(target, ast.Name)])
        elif isinstance(statement, ast.ImportFrom) and _SESSION_MODULE.search(statement.module or ""):
            names.update([alias.asname or alias.name for alias in statement.names])
    names -= {"*"}
    for _ in range(2):
        words = re.compile(
            "|".join([_WORDS.pattern, *[rf"\b{re.escape(name)}\b" for name in sorted(names)]]), re.IGNORECASE
        )
        for statement in tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name not in names:
                source = _source(statement, lines)
                if "yield" in source and words.search(source):
                    names.add(statement.name)
    return words


def _groups(body: Sequence[ast.stmt]) -> list[list[ast.stmt]]:
    """Statements that share a line belong together."""
    groups: list[list[ast.stmt]] = []
    end = 0
    for statement in body:
        if groups and _first_line(statement) <= end:
            groups[-1].append(statement)
        else:
            groups.append([statement])
        end = _last_line(statement)
    return groups


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *[decorator.lineno for decorator in decorators]])


def _last_line(statement: ast.stmt) -> int:
    return statement.lineno if statement.end_lineno is None else statement.end_lineno


def _source(statement: ast.stmt, lines: Sequence[str]) -> str:
    return "".join(lines[_first_line(statement) - 1 : _last_line(statement)])


def _statement_matters(statement: ast.stmt, lines: Sequence[str], words: re.Pattern[str] = _WORDS) -> bool:
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.ClassDef)):
        return True
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _ends_by_raising(statement) or words.search(_source(statement, lines)) is not None
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        if (
            isinstance(statement.value, (ast.Call, ast.Name, ast.Attribute, ast.Subscript))
            and _length(statement) <= _SHORT
        ):
            return True
        return _length(statement) <= _SHORT * 5 and words.search(_source(statement, lines)) is not None
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return False
    return words.search(_source(statement, lines)) is not None


def _length(statement: ast.stmt) -> int:
    return _last_line(statement) - statement.lineno + 1


def _ends_by_raising(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """`def not_found(): raise HTTPException(404)`: callers never come back from it."""
    return isinstance(function.body[-1], ast.Raise) or (
        _length(function) <= _SHORT and any([isinstance(statement, ast.Raise) for statement in function.body])
    )


def _reduce_class(
    statement: ast.ClassDef, lines: Sequence[str], words: re.Pattern[str]
) -> tuple[str, ast.ClassDef] | None:
    """A class with only the members that may matter; None where it can't be cut (it stands on one line)."""
    first = statement.body[0]
    if _first_line(first) <= statement.lineno or any([len(group) > 1 for group in _groups(statement.body)]):
        return None
    source = _source(statement, lines)
    touches = words.search(source) is not None or _HOLDS_SESSION.search(source) is not None
    holds = _has_init_session(statement, lines)
    members = [member for member in statement.body if _member_matters(member, lines, words, touches, holds)]
    header = "".join(lines[_first_line(statement) - 1 : _first_line(first) - 1])
    indentation = lines[_first_line(first) - 1][
        : len(lines[_first_line(first) - 1]) - len(lines[_first_line(first) - 1].lstrip())
    ]
    if not members:
        placeholder = ast.Pass(lineno=first.lineno, col_offset=0, end_lineno=first.lineno, end_col_offset=0)
        return f"{header}{indentation}pass\n", _with_body(statement, [placeholder])
    body = "".join([_with_newline(_source(member, lines)) for member in members])
    return header + body, _with_body(statement, members)


def _has_init_session(statement: ast.ClassDef, lines: Sequence[str]) -> bool:
    """Whether objects of the class hold something that may be a session: then all their methods may use it."""
    for member in statement.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _HOLDS_SESSION.search(_source(member, lines)) is not None
    return False


def _member_matters(member: ast.stmt, lines: Sequence[str], words: re.Pattern[str], touches: bool, holds: bool) -> bool:
    if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if holds:
            return True
        return touches and (_ends_by_raising(member) or words.search(_source(member, lines)) is not None)
    if isinstance(member, ast.ClassDef):
        return touches
    if isinstance(member, (ast.Assign, ast.AnnAssign)):
        return _statement_matters(member, lines, words) and words.search(_source(member, lines)) is not None
    return False


def _with_body(statement: ast.ClassDef, body: list[ast.stmt]) -> ast.ClassDef:
    fields = {name: getattr(statement, name) for name in statement._fields}
    copy = type(statement)(**{**fields, "body": body})
    return ast.copy_location(copy, statement)


def _with_newline(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"
