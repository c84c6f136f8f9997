"""Contracts: what a function guarantees about the sessions that it did not open, on every way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from session_lint import ir
from session_lint.flow.answers import answer_in
from session_lint.flow.gifts import gifts_of
from session_lint.flow.result import Change, FunctionFlow, SessionInfo
from session_lint.flow.state import BROKEN, CLOSED, ENTRY, FAILED, GONE, INACTIVE, Cause, Mark, SessionState, Witness
from session_lint.flow.values import Const, Loaded, Path, Query, Session, Value, direct_sessions, loaded_in
from session_lint.ir_queries import last_name, me_of
from session_lint.project.modules import FunctionRef

_WAYS = 24
"""So many ways out of a function are told apart, or as many as return and these:"""
_FAILURES = 12


class Way(NamedTuple):
    """One way out. error: the kind of exception, None if the function returns.

    answer: what it returns there, if that tells the caller that something went wrong, or what to do with the session
    that comes along.
    """

    error: str | None
    sessions: tuple[tuple[Path, SessionState], ...]
    answer: Value = None


class Contract(NamedTuple):
    """roots: the sessions from outside that the function touches or asks, by the path it knows them by.

    known: all that it knows of, touched or not; of what else it is given it may make any use.
    first_uses: those it uses before it rolls them back. begins: those of which it begins a transaction, so
    that they must not be in one. me: the name of its instance parameter, if any.
    returned: a query or session from outside that the function gives back, under the function's own name for it.
    loaded: objects of a session from outside that it gives back, or None; of their `since` only the sign counts.
    commits_always: the sessions that it commits whenever it returns. committed: those that it commits of its own
    accord: whenever it returns and has written anything. changes: of the objects that it is given.
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
    returned: Query | Session | None
    loaded: Loaded | None
    commits_always: frozenset[Path]
    committed: frozenset[Path]
    changes: frozenset[Change]


def contract_of(flow: FunctionFlow) -> Contract:
    """Read the contract off a function's exits."""
    function = flow.reference.function
    # A scoped_session that the function makes is another one with every call, too.
    foreign = {
        identity
        for identity in flow.sessions
        if not identity[0].startswith("@") and not (identity[0] == "~" and identity[-1].startswith("@"))
    }
    ways: dict[object, Way] = {}
    met: set[Path] = set()
    telling = _tells(flow, foreign)
    gifts = gifts_of(flow)
    never_returns = function.returns is not None and last_name(function.returns) in ir.NEVER
    for out in flow.exits:
        if never_returns and out.error is None:
            continue  # What it calls to get away may not be seen.
        sessions = []
        for identity, session in out.state.sessions.items():
            if identity in foreign and (session.touched or session.transaction in (INACTIVE, GONE)):
                sessions.append((identity, session))
                met.add(identity)
        kind = out.error.kind if out.error is not None else None
        answer: Value = gifts.get(out.value) if kind is None else None
        if answer is None and telling and kind is None:
            answer = answer_in(out.value)
        way = Way(kind, tuple(sorted(sessions, key=lambda pair: pair[0])), answer)
        key = (kind, tuple([(identity, session.key) for identity, session in way.sessions]), answer)
        ways.setdefault(key, way)
    me = me_of(function)
    roots = tuple(sorted(met))
    returned, loaded = _returned(flow, foreign), _loaded(flow, foreign)
    given = [session for gift in gifts.values() for session in direct_sessions(gift)]
    named = [*roots, *[value.identity for value in (returned, loaded, *given) if value is not None]]
    infos = {root: flow.sessions[root] for root in named if root in flow.sessions}
    # The surest failures stand for those that are too many.
    told = sorted(ways.values(), key=_importance)
    returning = sum([way.error is None for way in told])
    return Contract(
        flow.reference,
        tuple(told[: max(_WAYS, returning + _FAILURES)]),
        roots,
        frozenset(foreign),
        frozenset(flow.first_uses),
        infos,
        frozenset(flow.begins),
        me,
        returned,
        loaded,
        *_commits(roots, ways.values()),
        frozenset(flow.changes),
    )


def _importance(way: Way) -> int:
    """0 for the ways that return, then the failures by how sure it is that they break a session."""
    if way.error is None:
        return 0
    broken = [session.transaction for _, session in way.sessions if session.transaction in BROKEN]
    return (1 if FAILED in broken else 2) if broken else 3


def _tells(flow: FunctionFlow, foreign: set[Path]) -> bool:
    """`except IntegrityError: return None, "exists"`: whether what is returned says that a session was left failed."""
    failed: set[Value] = set()
    intact: set[Value] = set()
    for out in flow.exits:
        if out.error is None:
            sessions = [session for identity, session in out.state.sessions.items() if identity in foreign]
            is_failed = any([session.transaction in (*BROKEN, INACTIVE) for session in sessions])
            (failed if is_failed else intact).add(answer_in(out.value))
    return bool(intact) and failed != {None} and failed != intact


def _commits(roots: Iterable[Path], ways: Iterable[Way]) -> tuple[frozenset[Path], frozenset[Path]]:
    """Which sessions are committed on every way that returns, and on all of those on which something was written."""
    returning = [dict(way.sessions) for way in ways if way.error is None]
    always, committed = set(), set()
    for root in roots:
        ends = [way[root] for way in returning if root in way]
        if len(ends) == len(returning) and all([session.commits for session in ends]):
            always.add(root)
        if any([session.commits for session in ends]) and not any([end.dirty and not end.commits for end in ends]):
            committed.add(root)
    return frozenset(always), frozenset(committed)


def _returned(flow: FunctionFlow, foreign: set[Path]) -> Query | Session | None:
    values = {out.value for out in flow.exits if out.error is None and isinstance(out.value, (Query, Session))}
    if len({(type(value), value.identity) for value in values}) != 1:
        return None
    value = values.pop()
    if values and isinstance(value, Query):
        value = Query(value.identity)
    return value if value.identity in foreign else None


def _loaded(flow: FunctionFlow, foreign: set[Path]) -> Loaded | None:
    """What a function gives back, if that is objects of one session, or None."""
    found: set[Loaded] = set()
    for out in flow.exits:
        if out.error is not None or out.value == Const(None):
            continue
        loaded = loaded_in(out.value)
        if loaded is None or loaded.identity not in foreign:
            return None
        session = out.state.sessions.get(loaded.identity)
        is_new = loaded.since >= 0 and (session is None or session.commits <= loaded.since)
        found.add(Loaded(loaded.identity, loaded.kind, 0 if is_new else -1, model=loaded.model))
    if len({(loaded.identity, loaded.kind) for loaded in found}) != 1:
        return None
    # Of several the newest: what is said of it is true of the others.
    newest = max(found, key=lambda loaded: loaded.since)
    return newest if len({loaded.model for loaded in found}) == 1 else newest._replace(model=None)


class Marks(NamedTuple):
    """What a call may leave in a session's witness, made once for all ways out of the callee."""

    fails: Mark
    swallows: Mark
    uses: Mark
    writes: Mark
    ends: Mark
    rolls_back: Mark


def marks_of(place: ir.Place, label: str) -> Marks:
    """Those of a call at a place. label: the call in the words of the code."""
    return Marks(
        Mark(place, f"{label} may fail here"),
        Mark(place, f"{label} swallows the error"),
        Mark(place, f"{label} uses it here"),
        Mark(place, f"{label} writes here"),
        Mark(place, f"{label} ends the transaction here"),
        Mark(place, f"{label} rolls back here"),
    )


def compose(before: SessionState, effect: SessionState, marks: Marks, callee: FunctionRef) -> SessionState:
    """The caller's session after a callee that was entered with it in the state `before`."""
    # This is asked for every way out of every call, and takes a tenth of all time: so it unpacks, and builds once.
    transaction, dirty, pending, reset, commits, touched, handed = (
        effect.transaction, effect.dirty, effect.pending, effect.reset, effect.commits, effect.touched, effect.handed,
    )  # fmt: skip
    if not touched:
        return before
    if not reset:
        dirty = dirty or before.dirty
        pending = pending or (before.pending and transaction == ENTRY)
    if transaction in (ENTRY, INACTIVE, GONE):
        transaction = before.transaction
    return SessionState(
        transaction,
        dirty,
        pending,
        before.reset or reset,
        min(before.commits + commits, 2),
        before.owned and transaction != CLOSED,
        2 if before.begun == 1 and reset else before.begun,
        before.savepoints,
        True,
        before.handed or handed,
        effect.found if before.found is None and before.transaction == ENTRY else before.found,
        _witness(before, effect, marks, callee),
    )


def _witness(before: SessionState, effect: SessionState, marks: Marks, callee: FunctionRef) -> Witness:
    """How the caller's session came into its state."""
    opened, wrote, used, failed, swallowed, ended, again, lost, split, causes = before.witness
    if effect.transaction in BROKEN:
        failed, swallowed, causes = marks.fails, None, effect.witness.causes
        inner = effect.witness.failed
        if inner is not None:
            causes = (Cause(callee.module.path, callee.function.qualname, inner.place, inner.text), *causes)
        if effect.witness.swallowed:
            swallowed = marks.swallows
    if effect.reset:
        wrote = None
    if effect.dirty and wrote is None:
        wrote = marks.writes
    if effect.reset:
        ended = marks.ends
        if effect.witness.lost is not None and (before.dirty or before.transaction == ENTRY) and not effect.commits:
            lost = marks.rolls_back
    return Witness(opened, wrote, used or marks.uses, failed, swallowed, ended, again, lost, split, causes)
