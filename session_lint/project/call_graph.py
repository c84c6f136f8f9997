"""Who calls whom with which session, and what follows from that for the one who is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.result import COMMITTED, INJECTED, PARAMETER, Exit, FunctionFlow
from session_lint.flow.state import BROKEN, CUT, OPEN
from session_lint.flow.values import Path
from session_lint.ir_queries import last_name, me_of
from session_lint.project.mentions import Mentions
from session_lint.project.modules import ClassRef, FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project
    from session_lint.project.summaries import Constants

_MAX_DEPTH = 6
"""How many calls deep the place where something fails is looked for: enough for a trail that can be followed."""

_MAX_CHAIN = 300
"""How many callers up is looked whether a function is a part of their work: Python's own stack ends after that."""


class Caller(NamedTuple):
    """A call that hands a session on. identity: the session under the caller's name for it. place: the call."""

    reference: FunctionRef
    identity: Path
    place: ir.Place


class Exposure(NamedTuple):
    """What may leave a session in a transaction. reference: the function in which it stands. path: from there up."""

    reference: FunctionRef
    place: ir.Place
    text: str
    through: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """In words that fit into a list of affected functions."""
        return f"{self.text} may fail" + (f" (in {' → '.join(self.through)})" if self.through else "")


class CallGraph:
    """The calls of the project that pass sessions on. Worked out when it is first asked for, and kept.

    Where only some files are judged, the flows of those functions are asked for that may call them, not all: the
    answers are the same.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._mentions = Mentions(project.table)
        self._all_callers: dict[int, list[tuple[Path, Caller]]] | None = None
        self._callers: dict[int, list[tuple[Path, Caller]]] = {}
        self._users: dict[int, list[tuple[FunctionRef, Exposure]]] | None = None
        self._all_begun: dict[int, list[Constants]] | None = None
        self._parts: dict[int, bool] = {}
        self._depth = 0

    # --------------------------------------------------------------------------------------------- callers

    def callers(self, reference: FunctionRef, root: Path | None = None) -> list[Caller]:
        """The calls of a function that pass it a session. root: only the session that it knows by this path.

        A method that overrides one is called by whoever calls that one.
        """
        found = self._calls_of(reference)
        for overridden in self._overridden(reference):
            found = found + self._calls_of(overridden)
        return [caller for given, caller in found if root is None or given == root]

    def _calls_of(self, reference: FunctionRef) -> list[tuple[Path, Caller]]:
        """The calls of exactly this function, each with its path of the session that it is handed."""
        key = id(reference.function)
        if self._all_callers is not None:
            return self._all_callers.get(key, [])
        if key not in self._callers:
            nearby = None if self._project.is_whole else self._mentions.callers(reference)
            if nearby is None:
                self._all_callers = _calls_in(self._project.all_flows())
                return self._calls_of(reference)
            self._callers[key] = _calls_in(self._project.flows(nearby)).get(key, [])
        return self._callers[key]

    def is_called(self, reference: FunctionRef) -> bool:
        """Whether some function seems to call it, with a session that is seen or without."""
        return bool(self.callers(reference) or self._mentions.callers(reference))

    def is_left_out(self, reference: FunctionRef, identity: Path) -> bool:
        """Whether a session is one that callers need not give, and that none of those who are seen does give."""
        function = reference.function
        positions = {parameter.name: at for at, parameter in enumerate(function.parameters)}
        at = positions.get(identity[0])
        if at is None or function.parameters[at].default != ir.Constant(None):
            return False
        callers = self._mentions.callers(reference)
        at -= bool(me_of(function))
        bodies = self._project.table.bodies
        calls = [call for caller in callers or () for call in bodies.calls(caller.function.body)]
        own = [call for call in calls if last_name(call.function) == function.name]
        return bool(own) and not any([_gives(call, identity[0], at) for call in own])

    def _overridden(self, reference: FunctionRef) -> Iterator[FunctionRef]:
        module, function = reference
        definition = module.classes.get(function.owner or "")
        if definition is None or function.name == "__init__":
            return
        for symbol in self._project.table.ancestors(ClassRef(module, definition)):
            if isinstance(symbol, ClassRef) and symbol.definition is not definition:
                method = symbol.module.functions.get(f"{symbol.definition.qualname}.{function.name}")
                if method is not None:
                    yield FunctionRef(symbol.module, method)

    def above(self, references: Iterable[FunctionRef], depth: int) -> Iterator[FunctionFlow]:
        """The flows of the functions that hand sessions to some others, through so many calls.

        In the order of the source. What asks for all flows of a project that is judged whole needs those above some
        functions where only some files are judged.
        """
        found: dict[FunctionRef, None] = {}
        level = list(references)
        for _ in range(depth):
            callers = [caller.reference for each in level for _, caller in self._calls_of(each)]
            level = [each for each in dict.fromkeys(callers) if each not in found]
            found.update(dict.fromkeys(level))
        return self._project.flows(found)

    # ------------------------------------------------------------------------------------ units of work

    def callees(self, flow: FunctionFlow, place: ir.Place, identity: Path) -> list[tuple[FunctionFlow, Path]]:
        """The functions behind a call that hands them a session, each with its own path of it.

        There are several where an abstract method is called: any of its overrides may be meant.
        """
        return [
            (callee, root)
            for handing in flow.calls
            if handing.place == place
            for root, given in handing.given
            if given == identity and (callee := self._project.flow(handing.callee)) is not None
        ]

    def works_with(self, caller: Caller) -> bool:
        """Whether a caller does more with its session than passing it on once."""
        flow = self._project.flow(caller.reference)
        if flow is None or flow.sessions[caller.identity].origin not in (PARAMETER, INJECTED):
            return True
        places = {handing.place for handing in flow.calls if caller.identity in handing.identities}
        return caller.identity in flow.direct or len(places) > 1

    def takes_part(self, reference: FunctionRef) -> bool:
        """Whether the function is only a part of its callers' unit of work: they all do more with the session."""
        key = id(reference.function)
        if key not in self._parts:
            if self._depth >= _MAX_CHAIN:
                return True
            self._parts[key] = True  # a cycle alone makes nobody responsible
            self._depth += 1
            callers = self.callers(reference)
            self._parts[key] = bool(callers) and all(
                [self.works_with(caller) or self.takes_part(caller.reference) for caller in callers]
            )
            self._depth -= 1
        return self._parts[key]

    # ------------------------------------------------------------------------------------------- providers

    def users_of(self, provider: FunctionRef) -> list[tuple[FunctionRef, Exposure]]:
        """The functions that work with a provider's session, and what may fail in each."""
        if self._users is None:
            self._users = {}
            for flow in self._project.all_flows():
                for info in flow.sessions.values():
                    if info.provider is not None:
                        exposure = self._exposure(flow, info.identity, _MAX_DEPTH)
                        if exposure is not None:
                            users = self._users.setdefault(id(info.provider.function), [])
                            users.append((flow.reference, exposure))
        found = self._users.get(id(provider.function), [])
        return sorted(found, key=lambda pair: (pair[0].module.path, pair[0].function.place))

    def _exposure(self, flow: FunctionFlow, identity: Path, depth: int) -> Exposure | None:
        """What in a function may leave its session in a transaction, down to the operation itself."""
        # Cancelled inside the session's own statement, the connection is gone: nothing stays behind.
        ways = [way for way in open_ways(flow, identity) if way.state.sessions[identity].transaction != CUT]
        if not ways:
            return None
        commits = {event.place for event in flow.events if event.kind == COMMITTED and event.identity == identity}
        telling = [way for way in ways if way.error is not None and way.error.place in commits] or ways
        error = min([way.error for way in telling if way.error is not None], key=lambda error: error.place)
        for callee, root in self.callees(flow, error.place, identity) if depth > 0 else ():
            deeper = self._exposure(callee, root, depth - 1) if root in callee.sessions else None
            if deeper is not None:
                return deeper._replace(through=(callee.reference.function.qualname, *deeper.through))
        return Exposure(flow.reference, error.place, error.text)

    # ---------------------------------------------------------------------------------------------- begin()

    def begun_by_callers(self, reference: FunctionRef) -> list[Constants]:
        """With which constants somebody calls the function and hands it a session in a begin() block."""
        key = id(reference.function)
        if self._project.is_whole:
            if self._all_begun is None:
                self._all_begun = self._find_begun(list(self._project.all_flows()))
            return self._all_begun.get(key, [])
        return self._find_begun(list(self.above([reference], _MAX_CHAIN))).get(key, [])

    def _find_begun(self, flows: list[FunctionFlow]) -> dict[int, list[Constants]]:
        """Follow the sessions that begin() blocks hand out down the calls of some functions."""
        begun: dict[int, list[Constants]] = {}
        known = {id(flow.reference.function): flow for flow in flows}
        waiting = flows
        while waiting:
            reached: list[FunctionFlow] = []
            for flow in waiting:
                is_begun = id(flow.reference.function) in begun
                for call in flow.invocations:
                    callee = id(call.callee.function)
                    found = begun.get(callee, [])
                    if call.constants in found or not (call.in_block or (is_begun and call.is_parameter)):
                        continue
                    begun[callee] = [*found, call.constants]
                    reached += [known[callee]] if callee in known else []
            waiting = reached
        return begun


def _gives(call: ir.Call, name: str, position: int) -> bool:
    """Whether a call may give something for a parameter."""
    if any([argument.name in (name, "*", "**") and argument.value != ir.Constant(None) for argument in call.arguments]):
        return True
    return len([argument for argument in call.arguments if argument.name is None]) > position


def _calls_in(flows: Iterable[FunctionFlow]) -> dict[int, list[tuple[Path, Caller]]]:
    """The calls that functions make, by who is called."""
    calls: dict[int, list[tuple[Path, Caller]]] = {}
    for flow in flows:
        for handing in flow.calls:
            known = calls.setdefault(id(handing.callee.function), [])
            known += [(root, Caller(flow.reference, identity, handing.place)) for root, identity in handing.given]
    return calls


def open_ways(flow: FunctionFlow, identity: Path) -> list[Exit]:
    """The failing ways out on which a function leaves a session in a transaction that it has touched."""
    if identity not in flow.open_ways:
        flow.open_ways[identity] = [way for way in flow.exits if way.error is not None and leaves_open(way, identity)]
    return flow.open_ways[identity]


def leaves_open(way: Exit, identity: Path) -> bool:
    """Whether a session is in a transaction, intact or not, on a way out."""
    session = way.state.sessions.get(identity)
    return session is not None and session.touched and session.transaction in (OPEN, CUT, *BROKEN)
