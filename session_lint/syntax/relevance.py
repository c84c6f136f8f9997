"""Which parts of a file may matter to a session; the rest never reaches LibCST.

All judgements here are by words and err on the side of reading too much: what is left out can hold no session,
hand none on, and change no contract.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from session_lint import ir
from session_lint.source import entry_words
from session_lint.syntax.entries import Entries, tables
from session_lint.syntax.names import is_program, last_name
from session_lint.syntax.text import Text

# In lower case; "|" is a word's boundary. Not one regular expression: finding each word takes a tenth of the time.
_WORDS = tuple(
    "session sess| |db _db| engine conn commit rollback transaction |tx| sqlalchemy sqlmodel depends |query| .execute"
    " flush savepoint integrityerror dbapierror operationalerror unique .save( .create( contextmanager exitstack"
    " dependenc |uow| unit_of_work add_task backgroundtask create_task ensure_future .submit( run_in_executor thread("
    " timer( threadpool start_soon service() repository() dao() repo() repository. _repo. _dao. app_context(".split()
)
_WORDS += entry_words.ADDING + entry_words.ENDING
_HOLDS_SESSION = tuple("session |db| _db| |conn transaction engine |repo _repo| repositor |dao| _dao| |uow|".split())
_SESSION_MODULE = re.compile(r"(^|[._])(db|database|sessions?|engine|connection)$")
_SHORT = 12

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
_TRY = (ast.Try, getattr(ast, "TryStar", ast.Try))  # `except*` is new in Python 3.11


class Part(NamedTuple):
    """Statements that can be left out together: one of them, or those that share its line."""

    text: str
    statements: list[ast.stmt]

    @property
    def first_line(self) -> int:
        return _first_line(self.statements[0])


class Unit(NamedTuple):
    """A stretch of source that LibCST reads by itself.

    owner: the class whose members the parts are, with `header` as the source of its own line; None at module level.
    """

    parts: tuple[Part, ...]
    owner: ast.ClassDef | None = None
    header: str = ""

    @property
    def text(self) -> str:
        return self.header + "".join([part.text for part in self.parts])

    @property
    def statements(self) -> list[ast.stmt]:
        """What the text holds, as `ast` sees it."""
        own = [statement for part in self.parts for statement in part.statements]
        return own if self.owner is None else [_with_body(self.owner, own)]

    @property
    def line_numbers(self) -> list[int]:
        """Where the text's lines stand in the file."""
        numbers: list[int] = []
        if self.owner is not None:
            first = _first_line(self.owner)
            numbers += range(first, first + self.header.count("\n"))
        for part in self.parts:
            numbers += range(part.first_line, part.first_line + part.text.count("\n"))
        return numbers

    def only(self, parts: Iterable[Part]) -> Unit:
        """The same with some of the parts."""
        kept = tuple(parts)
        return self._replace(parts=kept or ((_nothing(self.parts[0]),) if self.owner is not None else ()))


def may_matter(lines: Sequence[str]) -> bool:
    """Whether a stretch of source that can't be looked at more closely may matter."""
    return Text(lines).has(_WORDS + _HOLDS_SESSION, 1, len(lines))


def units(tree: ast.Module, lines: Sequence[str], words: Sequence[str] = ()) -> list[Unit]:
    """The source of the statements that may matter, in the order of the file.

    lines: the file's lines with their line ends. words: names that mean a session in this project.
    """
    return _Reader(Text(lines), words).units(tree.body)


class _Reader:
    def __init__(self, text: Text, words: Sequence[str]) -> None:
        self.text = text
        self._known = frozenset(words)
        self._names: tuple[str, ...] = ()
        self._imported: frozenset[str] = frozenset()
        self._coroutines: frozenset[str] = frozenset()
        self._thrown_away: frozenset[str] = frozenset()
        self._entries = Entries((), False)

    def units(self, body: Sequence[ast.stmt]) -> list[Unit]:
        self._entries = Entries(body, self.text.has(entry_words.ADDING + entry_words.STARTS, 1, len(self.text.lines)))
        self._learn_names(body)
        result: list[Unit] = []
        simple: list[Part] = []  # statements that are short are read together
        kept = {id(statement) for statement in body if self._matters(statement)}
        functions = [statement for statement in body if isinstance(statement, _Function)]
        working = [item for item in functions if id(item) in kept and self._has_word(item)]
        kept |= self._callers(functions, working, _BY_NAME)
        kept |= self._looking_up(body, functions, kept)
        called = self._imported.union([item.name for item in functions if id(item) in kept])
        programs = [item for item in body if is_program(item) and self._calls(item, called)]
        kept |= {id(item) for item in programs} | self._handing_on(body, programs, called)
        for group in _groups(body):
            if not any([id(statement) in kept for statement in group]):
                continue
            statement = group[0]
            if len(group) == 1 and isinstance(statement, (*_Function, ast.ClassDef)):
                if simple:
                    result.append(Unit(tuple(simple)))
                    simple.clear()
                unit = self._class(statement) if isinstance(statement, ast.ClassDef) else None
                result.append(unit or Unit((self._part(group),)))
            else:
                simple.append(self._part(group))
        if simple:
            result.append(Unit(tuple(simple)))
        return result

    def _part(self, group: list[ast.stmt]) -> Part:
        return Part(_ended(self.text.between(_first_line(group[0]), _last_line(group[-1]))), group)

    def _learn_names(self, body: Sequence[ast.stmt]) -> None:
        """The words that matter in this file: those that matter everywhere, and the names that it gives to them.

        `Local = sessionmaker(engine)` makes `Local` such a word, `def current(): ... yield` over it makes
        `current` one.
        """
        names: set[str] = set(self._known)
        for statement in body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                if _length(statement) <= _SHORT and self._has_word(statement):
                    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                    names.update([target.id for target in targets if isinstance(target, ast.Name)])
            elif isinstance(statement, ast.ClassDef) and self._has_init_session(statement):
                names.add(statement.name)
            elif isinstance(statement, ast.ImportFrom) and _SESSION_MODULE.search(statement.module or ""):
                names.update([alias.asname or alias.name for alias in statement.names])
        names.discard("*")
        for _ in range(2):
            self._name(names)
            for statement in body:
                if (
                    isinstance(statement, _Function)
                    and statement.name not in names
                    and self.text.has(_YIELD, statement.lineno, _last_line(statement))
                    and self._has_word(statement)
                ):
                    names.add(statement.name)
        self._name(names)
        self._imported = frozenset(
            [
                alias.asname or alias.name
                for item in body
                if isinstance(item, ast.ImportFrom)
                for alias in item.names
                if alias.name[0].islower()
            ]
        )
        functions = [*body, *[item for owner in body if isinstance(owner, ast.ClassDef) for item in owner.body]]
        coroutines = [item for item in functions if isinstance(item, ast.AsyncFunctionDef)]
        self._coroutines = frozenset([item.name for item in coroutines if self._has_word(item)])
        if coroutines:
            self._thrown_away = self.text.called_alone().intersection([item.name for item in coroutines])

    def _name(self, names: set[str]) -> None:
        self._names = tuple([f"|{name.lower()}|" for name in sorted(names)])

    def _has_word(self, statement: ast.stmt) -> bool:
        first, last = _first_line(statement), _last_line(statement)
        return self.text.has(_WORDS, first, last) or self.text.has(self._names, first, last)

    def _may_swallow(self, function: _AnyFunction) -> bool:
        """Whether it goes on where something has failed, and that may be a helper that knows its session by itself.

        So does a handler that calls another helper before it lets the error out.
        """
        first, last = function.lineno, _last_line(function)
        if self.text.has(_SUPPRESS, first, last):
            return True
        return self.text.has(_EXCEPT, first, last) and any(
            [
                not isinstance(handler.body[-1], ast.Raise) or _acts(handler)
                for node in ast.walk(function)
                if isinstance(node, _TRY)
                for handler in node.handlers
            ]
        )

    def _may_forget(self, function: _AnyFunction) -> bool:
        """Whether it calls a coroutine function without awaiting it."""
        if self._thrown_away and isinstance(function, ast.AsyncFunctionDef):
            return True  # What works with a session may stand some calls below the one that is thrown away.
        if not isinstance(function, ast.AsyncFunctionDef) and not self._thrown_away:
            return False
        nodes = list(ast.walk(function))
        awaited = {id(node.value) for node in nodes if isinstance(node, ast.Await)}
        alone = {id(node.value) for node in nodes if isinstance(node, (ast.Expr, ast.Assign))}
        for node in nodes:
            if isinstance(node, ast.Call) and id(node) not in awaited:
                name = last_name(node.func)
                if name in self._coroutines or (id(node) in alone and name in self._imported | self._thrown_away):
                    return True
        return False

    def _changes(self, function: _AnyFunction, me: str | None = None) -> bool:
        """Whether it changes an object that it is given, other than `me`: a session may know it."""
        arguments = function.args
        names = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {me}
        if not names:
            return False
        text = self.text.between(function.lineno, _last_line(function))
        found = _CHANGE.finditer(text)
        return any([match[1] in names or match[2] in names for match in found]) or (
            me is None and _OF_ITSELF.search(text) is not None
        )

    def _asks_class(self, function: _AnyFunction) -> bool:
        """Whether a class method calls another one, which may work with a session: `cls.matching(id=id).first()`.

        Or makes an object of its class, with what that is to work with: `cls(tokens=Tokens())`.
        """
        return self.text.has(_OF_CLASS, function.lineno, _last_line(function)) and any(
            [last_name(decorator) == "classmethod" for decorator in function.decorator_list]
        )

    def _wraps(self, function: _AnyFunction) -> bool:
        """Whether it is a decorator that makes coroutine functions of what may work with sessions."""
        return self.text.has(_WRAPS, function.lineno, _last_line(function)) and any(
            [isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(function)]
        )

    def _matters(self, statement: ast.stmt) -> bool:
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.ClassDef)):
            return True
        if isinstance(statement, _Function):
            return (
                _ends_by_raising(statement)
                or self._has_word(statement)
                or self._may_swallow(statement)
                or self._may_forget(statement)
                or self._wraps(statement)
                or self._entries.have(statement)
                or self._changes(statement)
                or self.text.has(_GLOBAL, statement.lineno, _last_line(statement))
            )
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            value, length = statement.value, _length(statement)
            if isinstance(value, (ast.Call, ast.Name, ast.Attribute, ast.Subscript)) and length <= _SHORT:
                return True
            return length <= _SHORT * 5 and self._has_word(statement)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return False
        return self._has_word(statement)

    def _class(self, statement: ast.ClassDef) -> Unit | None:
        """A class with only the members that may matter; None where it can't be cut (it stands on one line)."""
        first = statement.body[0]
        begin = _first_line(first)
        # Of a head on several lines the last one may hold the body, too: `class Users(\n    Base,\n): pass`.
        behind = self.text.between(begin, begin).encode()[: first.col_offset].strip()
        if begin <= statement.lineno or behind or any([len(group) > 1 for group in _groups(statement.body)]):
            return None
        touches = self._has_word(statement) or self._may_hold(statement)
        holds = self._has_init_session(statement)
        is_mapped = self.text.has(_MAPPED, statement.lineno, _last_line(statement))
        members = [
            member
            for member in statement.body
            if self._member_matters(member, touches, holds)
            or (
                isinstance(member, _Function)
                and (self._entries.have(member, statement) or self._changes(member, None if is_mapped else "self"))
            )
        ]
        unit = Unit((self._part([first]),), statement, self.text.between(_first_line(statement), begin - 1))
        functions = [member for member in statement.body if isinstance(member, _Function)]
        kept = {id(member) for member in members}
        kept |= self._callers(functions, [item for item in functions if id(item) in kept], _OWN)
        return unit.only([self._part([member]) for member in statement.body if id(member) in kept])

    def _callers(self, functions: list[_AnyFunction], called: list[_AnyFunction], calls: re.Pattern[str]) -> set[int]:
        """Those of the functions that call others of them, some calls below: they work with the same session."""
        names = {function.name for function in called}
        if not names:
            return set()
        waiting = {
            id(function): (function.name, set(calls.findall(self.text.between(function.lineno, _last_line(function)))))
            for function in functions
            if function.name not in names
        }
        kept: set[int] = set()
        while found := [key for key, (_, others) in waiting.items() if not others.isdisjoint(names)]:
            names.update([waiting.pop(key)[0] for key in found])
            kept.update(found)
        return kept

    def _calls(self, statement: ast.stmt, names: frozenset[str]) -> bool:
        """Whether it calls one of the functions of that name."""
        return not names.isdisjoint(_BY_NAME.findall(self.text.between(statement.lineno, _last_line(statement))))

    def _looking_up(self, body: Sequence[ast.stmt], functions: list[_AnyFunction], kept: set[int]) -> set[int]:
        """A program's tables of commands that matter, and the functions that may look them up there."""
        commands = [item.name for item in functions if id(item) in kept]
        found = tables(body, commands) if commands and any([is_program(item) for item in body]) else {}
        if not found:
            return set()
        mention = re.compile(rf"\b(?:{'|'.join(sorted(set(found.values())))})\b")
        looking = [item for item in functions if mention.search(self.text.between(item.lineno, _last_line(item)))]
        return {*found, *map(id, looking)}

    def _handing_on(self, body: Sequence[ast.stmt], programs: list[ast.stmt], names: frozenset[str]) -> set[int]:
        """What mentions a function that a program calls, and does not call it: others may, for as long as they run."""
        begun = [self.text.between(item.lineno, _last_line(item)) for item in programs]
        own = sorted(names.intersection([name for text in begun for name in _BY_NAME.findall(text)]))
        if not own:
            return set()
        mention = re.compile(rf"(?<!def )\b(?:{'|'.join(own)})\b(?!\()")
        return {
            id(item)
            for item in body
            if not isinstance(item, (ast.ClassDef, ast.Import, ast.ImportFrom))
            and mention.search(self.text.between(_first_line(item), _last_line(item)))
        }

    def _has_init_session(self, statement: ast.ClassDef) -> bool:
        """Whether objects of the class hold something that may be a session: then all their methods may use it."""
        for member in statement.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                return self._may_hold(member)
        return False

    def _may_hold(self, statement: ast.stmt) -> bool:
        return self.text.has(_HOLDS_SESSION, _first_line(statement), _last_line(statement))

    def _member_matters(self, member: ast.stmt, touches: bool, holds: bool) -> bool:
        if isinstance(member, _Function):
            # What its objects are made of, a method that works with a session may call.
            is_making = member.name == "__init__" and _length(member) <= _SHORT
            touching = touches and (
                is_making or _ends_by_raising(member) or self._has_word(member) or self._asks_class(member)
            )
            is_given = _is_hook(member) or member.name in _AROUND
            return holds or touching or is_given or self._may_swallow(member) or self._may_forget(member)
        if isinstance(member, ast.ClassDef):
            return touches
        if isinstance(member, (ast.Assign, ast.AnnAssign)):
            return self._matters(member) and self._has_word(member)
        return False


_YIELD = ("yield",)
_GLOBAL = ("global ",)  # what is kept there may make sessions for whoever imports it
_AROUND = ("__enter__", "__exit__", "__aenter__", "__aexit__")
"""What `with` calls without naming it, and may leave to others, who use a session."""
_WRAPS = ("wraps(",)
_BY_NAME = re.compile(r"(?<![\w.])(\w+)\(")
_OWN = re.compile(r"\b(?:self|cls)\.(\w+)\(")
_OF_CLASS = ("cls.", "cls(")
_EXCEPT = ("except",)
_MAPPED = ("column(", "mapped[", "__tablename__", "relationship(", "table=true")
_CHANGE = re.compile(
    r"^[ \t]+(\w+)\.\w+(?:[ \t]*(?:[-+*/|&]|//)?=(?!=)|\.(?:append|remove|extend|insert|add|discard|clear|pop)\()"
    r"|\b(?:setattr|flag_modified)\((\w+)",
    re.MULTILINE,
)
_OF_ITSELF = re.compile(r"^[ \t]+(?:await )?self\.\w+\(", re.MULTILINE)
_SUPPRESS = ("suppress(",)
_TELLING = frozenset(
    "debug info warning warn error exception critical fatal log print echo secho write format join str repr len get"
    " isinstance hasattr getattr type format_exc print_exc exc_info capture_exception record_exception set_status"
    " append update pop items sleep lower strip split startswith endswith exit abort add_note inc labels".split()
)
"""What handlers call that surely use no session."""
_EXITS = frozenset("exit _exit quit abort fail skip".split())
_HOOKS = ("NotImplementedError", "abstractmethod")


def _nothing(part: Part) -> Part:
    """A statement that does nothing in the place of another one."""
    first = part.statements[0]
    indentation = part.text[: len(part.text) - len(part.text.lstrip())]
    statement = ast.Pass(lineno=first.lineno, col_offset=0, end_lineno=first.lineno, end_col_offset=0)
    return Part(f"{indentation}pass\n", [statement])


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
    return min([statement.lineno, *[decorator.lineno for decorator in decorators]]) if decorators else statement.lineno


def _last_line(statement: ast.stmt) -> int:
    return statement.lineno if statement.end_lineno is None else statement.end_lineno


def _length(statement: ast.stmt) -> int:
    return _last_line(statement) - statement.lineno + 1


def _ends_by_raising(function: _AnyFunction) -> bool:
    """`def not_found(): raise HTTPException(404)`: callers never come back from it."""
    last = function.body[-1]
    is_exit = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and last_name(last.value.func) in _EXITS
    return (
        (isinstance(last, ast.Raise) or is_exit)
        or last_name(function.returns) in ir.NEVER
        or (_length(function) <= _SHORT and any([isinstance(statement, ast.Raise) for statement in function.body]))
    )


def _acts(handler: ast.ExceptHandler) -> bool:
    """Whether the handler calls more than what tells somebody about the error."""
    return any(
        [
            isinstance(node, ast.Call) and last_name(node.func) not in _TELLING
            for statement in handler.body[:-1]
            if isinstance(statement, (ast.Expr, ast.If))
            for node in ast.walk(statement)
        ]
    )


def _is_hook(function: _AnyFunction) -> bool:
    """Whether the class only calls the method, and leaves it to others what it does: they may use a session."""
    last = function.body[-1]
    raised = last.exc.func if isinstance(last, ast.Raise) and isinstance(last.exc, ast.Call) else None
    if isinstance(last, ast.Raise) and raised is None:
        raised = last.exc
    names = [raised, *function.decorator_list]
    return any([last_name(name) in _HOOKS for name in names])


def _with_body(statement: ast.ClassDef, body: list[ast.stmt]) -> ast.ClassDef:
    fields = {name: getattr(statement, name) for name in statement._fields}
    copy = type(statement)(**{**fields, "body": body})
    return ast.copy_location(copy, statement)


def _ended(text: str) -> str:
    """Without a backslash at the end, which goes on with the empty line that follows in the file."""
    return text.rstrip("\r\n").removesuffix("\\") + "\n"
