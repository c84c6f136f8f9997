"""Contracts: what a function guarantees about the sessions that it did not open, on every way out."""

from __future__ import annotations

from typing import NamedTuple

from session_lint import ir
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.state import BROKEN, CLOSED, ENTRY, Cause, Mark, SessionState
from session_lint.flow.values import Path, Query, Session
from session_lint.project.modules import FunctionRef

_WAYS = 24


class Way(NamedTuple):
    """One way out. error: the kind of exception, None if the function returns."""

    error: str | None
    sessions: tuple[tuple[Path, SessionState], ...]


class Contract(NamedTuple):
    """roots: the sessions from outside that the function touches, by the path it knows them by.

    known: all that it knows of, touched or not; of what else it is given it may make any use.
    first_uses: those it uses before it rolls them back. begins: those of which it begins a transaction, so
    that they must not be in one. me: the name of its instance parameter, if any.
    returned: a query or session from outside that the function gives back, under the function's own name for it.
    A function that never returns normally has no way without an error.
    """

    reference: FunctionRef
    ways: tuple[Way, ...]
    roots: tuple[Path, ...]
    known: frozenset[Path]
    first_uses: frozenset[Path]
    infos: dict[Path, SessionInfo]
    begins: frozenset[Path]
    me: str
    returned: Query | Session | None = None

    @property
    def committed(self) -> frozenset[Path]:
        """The sessions that it commits of its own accord: whenever it returns and has written anything."""
        returning = [dict(way.sessions) for way in self.ways if way.error is None]
        ends = {root: [way[root] for way in returning if root in way] for root in self.roots}
        return frozenset(
            root
            for root, sessions in ends.items()
            if any(session.commits for session in sessions)
            and not any(session.dirty and not session.commits for session in sessions)
        )


def contract_of(flow: FunctionFlow) -> Contract:
    """Read the contract off a function's exits."""
    function = flow.reference.function
    foreign = {identity for identity in flow.sessions if not identity[0].startswith("@")}
    ways: dict[object, Way] = {}
    touched: set[Path] = set()
    for out in flow.exits:
        sessions = []
        for identity, session in out.state.sessions.items():
            if identity in foreign and session.touched:
                sessions.append((identity, session))
                touched.add(identity)
        kind = out.error.kind if out.error is not None else None
        way = Way(kind, tuple(sorted(sessions, key=lambda pair: pair[0])))
        key = (kind, tuple([(identity, session.key) for identity, session in way.sessions]))
        if len(ways) < _WAYS or kind is None:
            ways.setdefault(key, way)
    me = function.parameters[0].name if function.owner and function.parameters else ""
    roots = tuple(sorted(touched))
    infos = {root: flow.sessions[root] for root in roots if root in flow.sessions}
    return Contract(
        flow.reference,
        tuple(ways.values()),
        roots,
        frozenset(foreign),
        frozenset(flow.first_uses),
        infos,
        frozenset(flow.begins),
        me,
        _returned(flow, foreign),
    )


def _returned(flow: FunctionFlow, foreign: set[Path]) -> Query | Session | None:
    values = {out.value for out in flow.exits if out.error is None and isinstance(out.value, (Query, Session))}
    value = values.pop() if len(values) == 1 else None
    return value if isinstance(value, (Query, Session)) and value.identity in foreign else None


def compose(
    before: SessionState, effect: SessionState, place: ir.Place, label: str, callee: FunctionRef
) -> SessionState:
    """The caller's session after a callee that was entered with it in the state `before`."""
    if not effect.touched:
        return before
    transaction = before.transaction if effect.transaction == ENTRY else effect.transaction
    begun = before.begun
    if begun == 1 and effect.reset:
        begun = 2
    after = before._replace(
        transaction=transaction,
        dirty=effect.dirty or (before.dirty and not effect.reset),
        pending=effect.pending or (before.pending and not effect.reset and effect.transaction == ENTRY),
        reset=before.reset or effect.reset,
        commits=min(before.commits + effect.commits, 2),
        owned=before.owned and transaction != CLOSED,
        begun=begun,
        touched=True,
        handed=before.handed or effect.handed,
    )
    if effect.transaction in BROKEN:
        failed = effect.witness.failed
        after = after.failing(place, f"{label} may fail here", effect.witness.causes)
        if failed is not None:
            cause = Cause(callee.module.path, callee.function.qualname, failed.place, failed.text)
            after = after._replace(witness=after.witness._replace(causes=(cause, *effect.witness.causes)))
        if effect.witness.swallowed:
            after = after.mark(swallowed=Mark(place, f"{label} swallows the error"))
    marks: dict[str, Mark | None] = {}
    if after.witness.used is None:
        marks["used"] = Mark(place, f"{label} uses it here")
    if effect.dirty and after.witness.wrote is None:
        marks["wrote"] = Mark(place, f"{label} writes here")
    if effect.reset:
        marks["ended"] = Mark(place, f"{label} ends the transaction here")
        if effect.witness.lost is not None and (before.dirty or before.transaction == ENTRY) and not effect.commits:
            marks["lost"] = Mark(place, f"{label} rolls back here")
    return after.mark(**marks)
