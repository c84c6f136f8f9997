"""Who calls whom with which session, and what follows from that for the one who is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint.flow.result import COMMITTED, INJECTED, PARAMETER, FunctionFlow, SessionInfo
from session_lint.flow.state import BROKEN, OPEN
from session_lint.flow.values import (
    Path,
)
from session_lint.project.modules import (
    FunctionRef,
)

if TYPE_CHECKING:
    from session_lint.project.link import Project


class CallGraph:
    """The calls of the project that pass sessions on. Worked out when it is first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._callers: dict[int, list[tuple[FunctionRef, Path]]] | None = None
        self._users: dict[int, list[tuple[FunctionRef, str]]] | None = None
        self._begun: set[int] | None = None
        self._parts: dict[int, bool] = {}

    def callers(self, reference: FunctionRef) -> list[tuple[FunctionRef, Path]]:
        """The functions that call this one and pass it a session, and how they know that session."""
        if self._callers is None:
            self._callers = {}
            for flow in self._project.all_flows():
                for handing in flow.calls:
                    for identity in handing.identities:
                        self._callers.setdefault(id(handing.callee.function), []).append((flow.reference, identity))
        return self._callers.get(id(reference.function), [])

    def works_with(self, caller: FunctionRef, identity: Path) -> bool:
        """Whether a caller does more with its session than passing it on once."""
        flow = self._project.flow(caller)
        if flow is None or flow.sessions[identity].origin not in (PARAMETER, INJECTED):
            return True
        return identity in flow.direct or sum([identity in handing.identities for handing in flow.calls]) > 1

    def takes_part(self, reference: FunctionRef) -> bool:
        """Whether the function is only a part of its callers' unit of work: they all do more with the session."""
        key = id(reference.function)
        if key not in self._parts:
            self._parts[key] = True  # a cycle alone makes nobody responsible
            callers = self.callers(reference)
            self._parts[key] = bool(callers) and all(
                [self.works_with(caller, identity) or self.takes_part(caller) for caller, identity in callers]
            )
        return self._parts[key]

    def users_of(self, provider: FunctionRef) -> list[tuple[FunctionRef, str]]:
        """The functions that work with a provider's session, and what may fail in each."""
        if self._users is None:
            self._users = {}
            for flow in self._project.all_flows():
                for info in flow.sessions.values():
                    if info.provider is not None:
                        reason = _exposure(flow, info.identity)
                        if reason:
                            self._users.setdefault(id(info.provider.function), []).append((flow.reference, reason))
        found = self._users.get(id(provider.function), [])
        return sorted(found, key=lambda pair: (pair[0].module.path, pair[0].function.place))

    def is_begun_by_callers(self, reference: FunctionRef) -> bool:
        """Whether somebody calls the function with a session that was handed out inside a begin() block."""
        if self._begun is None:
            self._begun = self._find_begun()
        return id(reference.function) in self._begun

    def _find_begun(self) -> set[int]:
        """Follow the sessions that begin() blocks hand out down the calls."""
        begun: set[int] = set()
        waiting = list(self._project.all_flows())
        while waiting:
            reached: list[FunctionFlow] = []
            for flow in waiting:
                for handing in flow.calls:
                    if id(handing.callee.function) in begun:
                        continue
                    infos = [flow.sessions[identity] for identity in handing.identities if identity in flow.sessions]
                    if any([self._is_begun(flow, info, begun) for info in infos]):
                        begun.add(id(handing.callee.function))
                        found = self._project.flow(handing.callee)
                        reached += [found] if found is not None else []
            waiting = reached
        return begun

    def _is_begun(self, flow: FunctionFlow, info: SessionInfo, begun: set[int]) -> bool:
        if info.provider is not None:
            return self._project.provider(info.provider).begun > 0
        return info.origin == PARAMETER and id(flow.reference.function) in begun


def _exposure(flow: FunctionFlow, identity: Path) -> str:
    """What in a function may leave its session in a transaction; empty if nothing does."""
    ways = [
        way
        for way in flow.exits
        if way.error is not None
        and identity in way.state.sessions
        and way.state.sessions[identity].transaction in (OPEN, *BROKEN)
        and way.state.sessions[identity].touched
    ]
    if not ways:
        return ""
    commits = {event.place for event in flow.events if event.kind == COMMITTED and event.identity == identity}
    telling = [way for way in ways if way.error is not None and way.error.place in commits] or ways
    error = min([way.error for way in telling if way.error is not None], key=lambda error: error.place)
    return f"{error.text} may fail"
