"""Sessions that go into tasks, threads and jobs: who starts one is noted with the sessions that it will find there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.flow import result, tasks
from session_lint.flow.calls import Calls
from session_lint.flow.outcome import Outcome
from session_lint.flow.state import Pairs, State
from session_lint.flow.values import (
    Borrowed,
    Closure,
    Coroutine,
    Function,
    Instance,
    Items,
    Method,
    Path,
    Session,
    Transaction,
    Value,
    direct_sessions,
)
from session_lint.ir_queries import bound_names, call_place, call_text, me_of, path_of, paths_in, uncalled, words
from session_lint.project.modules import FunctionRef

_WAITED = ("awaited", "returned", "yielded")


class Started(NamedTuple):
    """What an event of the kind STARTED tells. kind: see `tasks`. runs, given: in the words of the code."""

    kind: str
    runs: str
    given: str


class Starts(Calls):
    """Watches the calls that start something which goes on when the function has gone on, too."""

    def call(self, node: ir.Call, state: State, outcome: Outcome, purpose: str, calm: bool) -> Pairs:
        inner = tasks.in_a_thread(node) if purpose == "awaited" else None
        if inner is not None:
            return self.call(inner, state, outcome, "called", calm)
        pairs = super().call(node, state, outcome, purpose, calm)
        start = tasks.started_by(node)
        if start is not None and self._is_start(start, node, state) and not self._is_waited_for(start, node, purpose):
            self._note(start, node, pairs[0][0] if pairs else state)
        return pairs

    def _is_start(self, start: tasks.Start, node: ir.Call, state: State) -> bool:
        """Whether the callee is what its name says."""
        path = path_of(node.function)
        if path[-1] == "submit" and not tasks.is_executor(path):
            # `client.submit(request, session)`: what an executor is given first is a function.
            function = start.function
            if isinstance(function, ir.Name) and not isinstance(self.lookup(function.path, state), (Function, Closure)):
                return False
        if path[-1] == "create_task" and isinstance(node.function, ir.Name):
            callee = self.lookup(path, state)
            if isinstance(callee, (Function, Closure)) and not _takes_coroutine(callee):
                return False
        return True

    def _is_waited_for(self, start: tasks.Start, node: ir.Call, purpose: str) -> bool:
        """Whether the function waits for the end of what it starts. Nobody can wait for what follows the response."""
        if start.kind in (tasks.BACKGROUND, tasks.QUEUED, tasks.SCHEDULED):
            return False
        return purpose in _WAITED or tasks.is_waited_for(self.function, self.statement, node)

    def _note(self, start: tasks.Start, node: ir.Call, state: State) -> None:
        group = tasks.group_of(path_of(node.function), self.frames)
        runs = uncalled(start.function)
        names = "a lambda" if isinstance(runs, ir.Lambda) else words(runs)
        for identity, given in dict(self._inputs(start, node, state)).items():
            info = self.flow.sessions.get(identity)
            if group is not None and not (info is not None and _opened_inside(info, *group)):
                continue
            detail = Started(start.kind, names, given)
            self.event(result.STARTED, node.place, identity, call_text(node), state.sessions.get(identity), detail)

    # ----------------------------------------------------------------------------------- what is given to it

    def _inputs(self, start: tasks.Start, node: ir.Call, state: State) -> Iterator[tuple[Path, str]]:
        """The sessions that what is started will work with, and the objects that hold one."""
        if start.kind != tasks.QUEUED:
            yield from self._work(start.function, state)
        values = [argument.value for argument in node.arguments if argument.name is None]
        first = values.index(start.function) + 1 if start.function in values else 0  # add_task(function, db)
        for position, argument in enumerate(node.arguments):
            if argument.value is not start.function:
                index = position - first if argument.name is None else None
                if not self._drops(start.function, argument, index, state):
                    yield from self._given(argument.value, state)

    def _drops(self, node: ir.Expr, argument: ir.Argument, index: int | None, state: State) -> bool:
        """Whether a function of the project gives a parameter another value before it looks at it."""
        callee = self.lookup(node.path, state) if isinstance(node, ir.Name) else None
        if not isinstance(callee, Function):
            return False
        taken = [parameter.name for parameter in callee.reference.function.parameters]
        taken = taken[callee.receiver is not None :]
        name = argument.name if index is None else taken[index] if 0 <= index < len(taken) else None
        return name is not None and name in taken and replaces(callee.reference.function.body, name)

    def _work(self, node: ir.Expr, state: State) -> Iterator[tuple[Path, str]]:
        """What runs: a function, a method, a lambda, or the call that makes the coroutine."""
        if isinstance(node, ir.Call):
            partial = path_of(node.function)[-1:] == ("partial",)
            if not partial:
                yield from self._work(node.function, state)
            for index, argument in enumerate(node.arguments):
                if partial or not self._drops(node.function, argument, None if argument.name else index, state):
                    yield from (self._work if partial and not index else self._given)(argument.value, state)
        elif isinstance(node, ir.Lambda):
            yield from self._captured_by(node.function, state)
        elif isinstance(node, ir.Attribute):
            yield from self._given(node.base, state)
        elif isinstance(node, ir.Name):
            value = self.lookup(node.path, state)
            if isinstance(value, Closure):
                yield from self._captured_by(value.function, state)
            elif isinstance(value, Method) and isinstance(value.owner, (Session, Transaction)):
                yield value.owner.identity, ".".join(node.path[:-1])
            elif isinstance(value, Function) and isinstance(value.receiver, Instance):
                yield from self._used_by(value, node.path[:-1])

    def _used_by(self, method: Function, owner: Path) -> Iterator[tuple[Path, str]]:
        """The sessions that a method uses through its object."""
        receiver = method.receiver
        assert isinstance(receiver, Instance)
        if receiver.fields and self._reaches(method.reference, receiver, set()):
            yield from [(session.identity, ".".join(owner)) for session in direct_sessions(receiver)]
        contract = self.project.contract(method.reference) if receiver.path else None
        for root in contract.roots if contract is not None else ():
            if contract is not None and root[0] == contract.me and len(root) > 1:
                yield (*receiver.path, *root[1:]), ".".join((*owner, *root[1:]))

    def _reaches(self, method: FunctionRef, receiver: Instance, seen: set[int]) -> bool:
        """Whether a method may get at what its object was given, by itself or by another method."""
        seen.add(id(method.function))
        me = me_of(method.function)
        if not me:
            return False
        for path in paths_in(method.function):
            if path[0] != me:
                continue
            if len(path) == 1:
                return True  # Somebody else gets the object.
            called = self.project.table.method(receiver.reference, path[1])
            if called is None:
                held = self.project.statics.attribute(receiver, path[1])
                if held is None or direct_sessions(held):
                    return True
            elif id(called.function) not in seen and self._reaches(called, receiver, seen):
                return True
        return False

    def _captured_by(self, function: ir.Function, state: State) -> Iterator[tuple[Path, str]]:
        own = {name for statement in ir.statements(function.body) for name in bound_names(statement)}
        for name in sorted(self.project.table.bodies.names(function) - own):
            yield from self._held(self.lookup((name,), state), (name,))

    def _given(self, node: ir.Expr, state: State) -> Iterator[tuple[Path, str]]:
        """An argument, which is evaluated before anything starts."""
        if isinstance(node, ir.Name):
            value = self.lookup(node.path, state)
            if isinstance(value, Closure):
                yield from self._captured_by(value.function, state)
            else:
                yield from self._held(value, node.path)
        elif isinstance(node, ir.Lambda):
            yield from self._captured_by(node.function, state)
        elif isinstance(node, ir.Collection):
            for item in node.items:
                yield from self._given(item, state)
        elif isinstance(node, ir.Call) and tasks.started_by(node) is None:
            for _, value in self.evaluate(node, state, Outcome())[:1]:
                yield from self._held(value, path_of(node.function))

    def _held(self, value: Value, path: Path) -> Iterator[tuple[Path, str]]:
        name = ".".join(path)
        if isinstance(value, (Session, Items)) or (isinstance(value, Instance) and value.fields):
            yield from [(session.identity, name) for session in direct_sessions(value)]
        elif isinstance(value, Borrowed):
            yield path, name
        elif isinstance(value, Coroutine) and value.touches:
            yield value.touches, name
        elif (
            isinstance(value, Instance)
            and value.path not in ((), ("self",))
            and self.project.holds_session(value.reference)
        ):
            yield value.path, name


def replaces(body: tuple[ir.Stmt, ...], name: str) -> bool:
    """Whether the first thing that a body does with a variable is to give it a new value."""
    for statement in body:
        mentions = [part for part in ir.expressions(statement) if isinstance(part, ir.Name) and part.path[0] == name]
        if isinstance(statement, ir.Assign) and statement.targets == (ir.Name((name,)),) and statement.operator == "=":
            return len(mentions) <= 1
        if mentions or ir.blocks(statement) or isinstance(statement, ir.Define):
            return False
    return False


def _opened_inside(info: result.SessionInfo, block: ir.With, item: ir.WithItem) -> bool:
    """Whether a session is opened, and so closed, inside of the block that waits."""
    if info.origin not in result.OPENED_HERE or not ir.within(info.place, block.place):
        return False
    return info.place[:2] > call_place(item.value, block.place)[:2]


def _takes_coroutine(callee: Function | Closure) -> bool:
    """Whether a function of the project is declared to take a coroutine, as wrappers of create_task() are."""
    function = callee.function if isinstance(callee, Closure) else callee.reference.function
    annotations = [
        annotation.base if isinstance(annotation, ir.Subscript) else annotation
        for annotation in [parameter.annotation for parameter in function.parameters]
    ]
    return any([path_of(each)[-1:] in (("Coroutine",), ("Awaitable",)) for each in annotations if each is not None])
