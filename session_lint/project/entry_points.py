"""Where work begins more than once in a process: requests, jobs, threads, tasks, and loops that never end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow import tasks
from session_lint.flow.values import ClassValue, Closure, Function, Value
from session_lint.ir_queries import bound_names, is_endless, last_name, own_expressions, path_of, uncalled
from session_lint.project.modules import FunctionRef, Module
from session_lint.source import entry_words

if TYPE_CHECKING:
    from session_lint.project.link import Project

REQUEST = "request"
MESSAGE = "job"  # of a queue, a scheduler or a bot
LOOP = "turn of its loop"
_STARTED = {
    tasks.THREAD: tasks.THREAD,
    tasks.JOB: tasks.JOB,
    tasks.TASK: tasks.TASK,
    tasks.BACKGROUND: tasks.BACKGROUND,
}
OWN_THREAD = (tasks.THREAD, tasks.JOB)

_REGISTERING = {**dict.fromkeys(entry_words.ADDING_ROUTES, REQUEST), **dict.fromkeys(entry_words.ADDING_JOBS, MESSAGE)}
_BASES = {
    **dict.fromkeys(entry_words.VIEWS, REQUEST),
    **dict.fromkeys(entry_words.SERVERS, MESSAGE),
    "Thread": tasks.THREAD,
    "Task": MESSAGE,
}


class Entry(NamedTuple):
    """A function that is entered again and again. kind: what it is entered for. place: where it is started."""

    reference: FunctionRef
    kind: str
    module: Module
    place: ir.Place


class EntryPoints:
    """The entry points of a project, and what they reach. Worked out when first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._entries: dict[int, Entry] | None = None
        self._callers: dict[int, list[FunctionRef]] = {}
        self._programs: dict[int, list[Module]] = {}
        """Which files call a function when they are run as programs."""
        self._repeated: set[int] = set()
        """Functions that such a file calls in a loop."""
        self._listed: set[int] = set()
        """Functions in such a file's table of commands, of which it runs one: `COMMANDS = {"add": add}`."""
        self._listings: set[int] = set()
        """The names in those tables."""

    def all(self) -> list[Entry]:
        return list(self._all().values())

    def of(self, reference: FunctionRef) -> Entry | None:
        """The function as an entry point, if it is one."""
        return self._all().get(id(reference.function))

    def reaching(self, functions: Iterable[FunctionRef]) -> list[Entry]:
        """The entry points that call one of the functions, or are one, in the order of the source."""
        entries = self._all()
        found = [entries[id(each.function)] for each in self._above(functions) if id(each.function) in entries]
        return sorted(found, key=lambda entry: (entry.reference.module.path, entry.reference.function.place))

    def above(self, function: FunctionRef) -> set[int]:
        """The identities of a function and of all that call it, directly or not."""
        self._all()
        return {id(each.function) for each in self._above([function])}

    def ends_process(self, reference: FunctionRef) -> bool:
        """Whether an exception that leaves a function ends the program: it is a part of nothing but programs.

        Of a `main()`, or of what a file does when it is run: `if __name__ == "__main__": load()`.
        """
        self._all()
        for called in self._above([reference]):
            function = called.function
            if called.module.is_trial:
                continue
            callers = [caller for caller in self._callers.get(id(function), []) if not caller.module.is_trial]
            is_main = function.name == "main" and function.owner is None
            is_begun = id(function) in self._programs or id(function) in self._listed
            if self.of(called) is not None or not (callers or is_begun or is_main):
                return False
            if any([_handles(caller.function.body, function.name) for caller in callers]):
                return False
            if not self._are_all(called, callers):
                return False
        return True

    def is_main(self, reference: FunctionRef) -> bool:
        """Whether a function is a part of what a file does when it is run, which comes to it once.

        Nobody else calls it. It may be one of the commands that such a file has in a table.
        """
        self._all()
        for called in self._above([reference]):
            if not called.module.is_trial and not self._is_done_once(called):
                return False
        return True

    def _is_done_once(self, reference: FunctionRef) -> bool:
        key, name = id(reference.function), reference.function.name
        callers = [caller for caller in self._callers.get(key, []) if not caller.module.is_trial]
        is_begun = key in self._programs or key in self._listed
        if key in self._repeated or self.of(reference) is not None or not (callers or is_begun):
            return False
        if any([caller == reference or _repeats(caller.function.body, name) for caller in callers]):
            return False
        return self._are_all(reference, callers)

    def _are_all(self, reference: FunctionRef, callers: list[FunctionRef]) -> bool:
        """Whether nobody but these, and programs, seems to call a function.

        Who hands it on lets others call it; who imports it and is not seen to call it may do so all the same.
        """
        programs = self._programs.get(id(reference.function), [])
        calling = [reference.module, *[caller.module for caller in callers], *programs]
        return all(
            [module in calling and not self._hands_on(module, name) for module, name in self._knowing(reference)]
        )

    def _knowing(self, reference: FunctionRef) -> Iterator[tuple[Module, str]]:
        """The modules that have a function, with its name there; packages only pass it on, and tests don't count."""
        module, function = reference
        yield module, function.name
        for other in self._project.table.modules:
            if other is not module and not (other.is_package or other.is_trial):
                for local, dotted in other.imports.items():
                    is_named = dotted.endswith(f".{function.name}")
                    if is_named and self._project.table.resolve(other, (local,)) == reference:
                        yield other, local

    def _hands_on(self, module: Module, name: str) -> bool:
        """Whether a module mentions a name and does not call it."""
        functions = [each for each in module.functions.values() if not _means_another(each, name)]
        for body in (module.tree.body, *[function.body for function in functions]):
            called = {id(call.function) for call in self._project.table.bodies.calls(body)}
            for part in self._project.table.bodies.expressions(body):
                if part == ir.Name((name,)) and id(part) not in called and id(part) not in self._listings:
                    return True
        return False

    def _above(self, functions: Iterable[FunctionRef]) -> Iterator[FunctionRef]:
        waiting = list(functions)
        seen = {id(reference.function) for reference in waiting}
        while waiting:
            reference = waiting.pop()
            yield reference
            for caller in self._callers.get(id(reference.function), []):
                if id(caller.function) not in seen:
                    seen.add(id(caller.function))
                    waiting.append(caller)

    def reached(self, entries: Iterable[Entry]) -> dict[int, Entry]:
        """The functions that are called from some of the entry points, by identity; each with one of those."""
        callees: dict[int, list[int]] = {}
        for callee, callers in self._callers.items():
            for caller in callers:
                callees.setdefault(id(caller.function), []).append(callee)
        found: dict[int, Entry] = {}
        for entry in entries:
            waiting = [id(entry.reference.function)]
            while waiting:
                function = waiting.pop()
                if function not in found:
                    found[function] = entry
                    waiting += callees.get(function, [])
        return found

    def _all(self) -> dict[int, Entry]:
        if self._entries is None:
            self._entries = {}
            for module in self._project.table.modules:
                for started in self._started_in(module, module.tree.body, None):
                    self._entries.setdefault(id(started.reference.function), started)
                for statement in module.tree.body:
                    if isinstance(statement, ir.If) and _is_program(statement.test):
                        self._read_program(module, statement.body)
                        self._read_tables(module)
                for reference in self._project.functions(module):
                    self._read(reference)
        return self._entries

    def _read(self, reference: FunctionRef) -> None:
        assert self._entries is not None
        module, function = reference
        kind = self._kind(reference)
        if kind:
            self._entries[id(function)] = Entry(reference, kind, module, function.place)
        for started in self._started_in(module, function.body, reference):
            self._entries.setdefault(id(started.reference.function), started)

    def _read_program(self, module: Module, body: tuple[ir.Stmt, ...]) -> None:
        """Note what a file calls when it is run, but for what may fail without ending it."""
        loops = [each for each in ir.statements(body) if isinstance(each, (ir.For, ir.While))]
        for call in self._project.table.bodies.calls(body):
            called = self._function(module, call.function, None, None)
            if called is not None and not _handles(body, called.function.name):
                self._programs.setdefault(id(called.function), []).append(module)
                if any([ir.within(call.place, loop.place) for loop in loops]):
                    self._repeated.add(id(called.function))

    def _read_tables(self, module: Module) -> None:
        """Note the commands of a file that is run, unless it goes on to another one, or catches what one raises."""
        bodies = [module.tree.body, *[function.body for function in module.functions.values()]]
        for statement in module.tree.body:
            if not isinstance(statement, ir.Assign):
                continue
            target, value = statement.targets[0], statement.value
            is_entry = isinstance(target, ir.Subscript)  # `COMMANDS["add"] = add`
            table = target.base if isinstance(target, ir.Subscript) else target
            items = value.items if isinstance(value, ir.Collection) and value.kind == "dict" else ()
            listed = [item for item in ((value,) if is_entry else items) if isinstance(item, ir.Name)]
            if listed and not any([_keeps_on(body, table) for body in bodies]):
                for item in listed:
                    command = self._function(module, item, None, None)
                    if command is not None and command.module is module:
                        self._listed.add(id(command.function))
                        self._listings.add(id(item))

    # ------------------------------------------------------------------------------------- by what it is

    def is_served(self, reference: FunctionRef) -> bool:
        """Whether it is a method of a handler of the standard library's servers."""
        definition = reference.module.classes.get(reference.function.owner or "")
        bases = definition.bases if definition is not None else ()
        return any([last_name(base) in entry_words.SERVERS for base in bases])

    def _kind(self, reference: FunctionRef) -> str:
        """What a function is entered for, by its decorators, its class and its loops."""
        module, function = reference
        if is_route(function):
            return REQUEST
        for decorator in function.decorators:
            if entry_words.is_job(path_of(uncalled(decorator))):
                return MESSAGE
        definition = module.classes.get(function.owner or "")
        if definition is not None and function.name in entry_words.METHODS:
            for base in definition.bases:
                kind = _BASES.get(last_name(base))
                if kind:
                    return kind
        statements = self._project.table.bodies.statements(function.body)
        if any([isinstance(each, ir.While) and is_endless(each) for each in statements]):
            return LOOP
        return ""

    # ------------------------------------------------------------------------------ by who starts or calls it

    def _started_in(self, module: Module, body: tuple[ir.Stmt, ...], around: FunctionRef | None) -> Iterator[Entry]:
        """The functions that are started below `body`; who calls whom is noted on the way."""
        local = self._project.statics.results.locals(around) if around is not None else None
        for node in self._project.table.bodies.calls(body):
            path = path_of(node.function)
            start = tasks.started_by(node)
            if start is not None and start.kind in _STARTED:
                work = uncalled(start.function)
                if isinstance(start.function, ir.Call) and path_of(work)[-1:] == ("partial",):
                    work = start.function.arguments[0].value if start.function.arguments else work
                started = self._function(module, work, local, around)
                if started is not None:
                    yield Entry(started, _STARTED[start.kind], module, node.place)
            elif path[-1:] == ("map",) and tasks.is_executor(path) and node.arguments:
                started = self._function(module, node.arguments[0].value, local, around)
                if started is not None:
                    yield Entry(started, tasks.JOB, module, node.place)
            elif path and path[-1] in _REGISTERING:
                for given in _registered(node):
                    started = self._function(module, given, local, around)
                    if started is not None:
                        yield Entry(started, _REGISTERING[path[-1]], module, node.place)
            elif around is not None:
                called = self._function(module, node.function, local, around)
                if called is not None:
                    self._callers.setdefault(id(called.function), []).append(around)

    def _function(
        self, module: Module, node: ir.Expr, local: dict[str, Value] | None, around: FunctionRef | None
    ) -> FunctionRef | None:
        """The function of the project that an expression stands for."""
        if isinstance(node, ir.Lambda):
            calls = [part for each in node.function.body for part in own_expressions(each) if isinstance(part, ir.Call)]
            return self._function(module, calls[0].function, local, around) if calls else None
        if around is not None and isinstance(node, ir.Name) and len(node.path) == 1:
            nested = module.functions.get(f"{around.function.qualname}.{node.path[0]}")
            if nested is not None:
                return FunctionRef(module, nested)
        value = self._project.statics.expression(module, node, local)
        if isinstance(value, Function):
            return value.reference
        if isinstance(value, Closure):
            return FunctionRef(module, value.function)
        if isinstance(value, ClassValue):
            return self._project.table.method(value.reference, "__init__")
        return None


def is_route(function: ir.Function) -> bool:
    """Whether a decorator sends requests to the function."""
    calls = [decorator for decorator in function.decorators if isinstance(decorator, ir.Call)]
    return any([entry_words.is_route(path_of(call.function), _first(call)) for call in calls])


def _first(call: ir.Call) -> object:
    """The first argument, if it is written out."""
    first = call.arguments[0].value if call.arguments else None
    return first.value if isinstance(first, ir.Constant) else None


def _registered(call: ir.Call) -> Iterator[ir.Expr]:
    """What a call may register: `add_handler(start)`, `add_handler(CommandHandler("start", start))`."""
    for argument in call.arguments:
        yield argument.value
        for part in ir.expressions(argument.value):
            if isinstance(part, ir.Call) and last_name(part.function).endswith(entry_words.HOLDER):
                yield from [given.value for given in part.arguments]


def _is_program(test: ir.Expr) -> bool:
    """`__name__ == "__main__"`"""
    return isinstance(test, ir.Compare) and ir.Name(("__name__",)) in (test.left, test.right)


def _handles(body: tuple[ir.Stmt, ...], name: str) -> bool:
    """Whether a `try` with handlers stands around a call of a function."""
    attempts = [node for node in ir.statements(body) if isinstance(node, ir.Try) and node.handlers]
    return any([name in _called(attempt.body) for attempt in attempts])


def _means_another(function: ir.Function, name: str) -> bool:
    """Whether a name is one of the function's own variables."""
    own = [parameter.name for parameter in function.parameters]
    return name in own or any([name in bound_names(each) for each in ir.statements(function.body)])


def _repeats(body: tuple[ir.Stmt, ...], name: str) -> bool:
    """Whether a loop calls a function of that name."""
    loops = [node for node in ir.statements(body) if isinstance(node, (ir.For, ir.While))]
    turns = [part for part in ir.expressions(body) if isinstance(part, ir.Comprehension)]
    called = [*ir.expressions(tuple(loops)), *[part for turn in turns for part in ir.expressions(turn)]]
    return any([isinstance(part, ir.Call) and last_name(part.function) == name for part in called])


def _keeps_on(body: tuple[ir.Stmt, ...], table: ir.Expr) -> bool:
    """Whether a table is looked into by a loop, or where errors are caught."""
    around = [
        node
        for node in ir.statements(body)
        if isinstance(node, (ir.For, ir.While)) or (isinstance(node, ir.Try) and node.handlers)
    ]
    return table in ir.expressions(tuple(around))


def _called(body: tuple[ir.Stmt, ...]) -> set[str]:
    return {last_name(part.function) for part in ir.expressions(body) if isinstance(part, ir.Call)}
