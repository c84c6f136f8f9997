"""Who calls whom with which session, and what follows from that for the one who is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.result import COMMITTED, INJECTED, PARAMETER, Exit, FunctionFlow
from session_lint.flow.state import BROKEN, CUT, OPEN
from session_lint.flow.values import Path
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
    """The calls of the project that pass sessions on. Worked out when it is first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._callers: dict[int, list[tuple[Path, Caller]]] | None = None
        self._users: dict[int, list[tuple[FunctionRef, Exposure]]] | None = None
        self._begun: dict[int, list[Constants]] | None = None
        self._parts: dict[int, bool] = {}
        self._depth = 0

    # --------------------------------------------------------------------------------------------- callers

    def callers(self, reference: FunctionRef, root: Path | None = None) -> list[Caller]:
        """The calls of a function that pass it a session. root: only the session that it knows by this path.

        A method that overrides one is called by whoever calls that one.
        """
        if self._callers is None:
            self._callers = self._find_callers()
        found = self._callers.get(id(reference.function), [])
        for overridden in self._overridden(reference):
            found = found + self._callers.get(id(overridden.function), [])
        return [caller for given, caller in found if root is None or given == root]

    def _find_callers(self) -> dict[int, list[tuple[Path, Caller]]]:
        callers: dict[int, list[tuple[Path, Caller]]] = {}
        for flow in self._project.all_flows():
            for handing in flow.calls:
                known = callers.setdefault(id(handing.callee.function), [])
                known += [(root, Caller(flow.reference, identity, handing.place)) for root, identity in handing.given]
        return callers

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

    # ------------------------------------------------------------------------------------ units of work

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
        # One call, several functions: an abstract method is any of its overrides.
        for handing in flow.calls if depth > 0 else ():
            roots = [root for root, given in handing.given if given == identity]
            if handing.place != error.place or not roots:
                continue
            inner = roots[0]
            callee = self._project.flow(handing.callee)
            deeper = (
                self._exposure(callee, inner, depth - 1) if callee is not None and inner in callee.sessions else None
            )
            if deeper is not None:
                return deeper._replace(through=(handing.callee.function.qualname, *deeper.through))
        return Exposure(flow.reference, error.place, error.text)

    # ---------------------------------------------------------------------------------------------- begin()

    def begun_by_callers(self, reference: FunctionRef) -> list[Constants]:
        """With which constants somebody calls the function and hands it a session in a begin() block."""
        if self._begun is None:
            self._begun = self._find_begun()
        return self._begun.get(id(reference.function), [])

    def _find_begun(self) -> dict[int, list[Constants]]:
        """Follow the sessions that begin() blocks hand out down the calls."""
        begun: dict[int, list[Constants]] = {}
        waiting = list(self._project.all_flows())
        while waiting:
            reached: list[FunctionFlow] = []
            for flow in waiting:
                is_begun = id(flow.reference.function) in begun
                for call in flow.invocations:
                    known = begun.get(id(call.callee.function), [])
                    if call.constants in known or not (call.in_block or (is_begun and call.is_parameter)):
                        continue
                    begun[id(call.callee.function)] = [*known, call.constants]
                    found = self._project.flow(call.callee)
                    reached += [found] if found is not None else []
            waiting = reached
        return begun


def open_ways(flow: FunctionFlow, identity: Path) -> list[Exit]:
    """The failing ways out on which a function leaves a session in a transaction that it has touched."""
    if identity not in flow.open_ways:
        flow.open_ways[identity] = [way for way in flow.exits if way.error is not None and leaves_open(way, identity)]
    return flow.open_ways[identity]


def leaves_open(way: Exit, identity: Path) -> bool:
    """Whether a session is in a transaction, intact or not, on a way out."""
    session = way.state.sessions.get(identity)
    return session is not None and session.touched and session.transaction in (OPEN, CUT, *BROKEN)
