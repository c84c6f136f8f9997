"""Providers: what a generator that hands out a session does once its user is done, or has failed."""

from __future__ import annotations

from typing import NamedTuple

from session_lint.flow import errors, result
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import CLOSED, NONE, SessionState
from session_lint.flow.values import Path


class Provider(NamedTuple):
    """begun: 1 if the session is handed out inside a begin() block. commits: when the user is done.

    closes: when the user is done. closes_on_error, ends_on_error: when the user has raised or was cancelled
    (ending is a rollback, which gives the connection back too). swallows: the user's exception ends here.
    parameters: paths of the sessions that it was given and hands on. nested: they are in a savepoint meanwhile, which
    ends with the user's exception. may_commit: something that can't be seen has had
    the session before it is handed out, a context manager of somebody else perhaps, and may commit it.
    """

    begun: int = 0
    commits: bool = False
    closes: bool = True
    closes_on_error: bool = True
    ends_on_error: bool = True
    swallows: bool = False
    parameters: tuple[Path, ...] = ()
    nested: bool = False
    seen: bool = False
    may_commit: bool = False


UNSEEN = Provider()


class _Left(NamedTuple):
    """How a session is left: closed for good, without a connection, or at least without the work that has failed."""

    closed: bool
    released: bool
    ended: bool


def provider_of(flow: FunctionFlow) -> Provider:
    """Read the provider's contract off its exits."""
    every = [event for event in flow.events if event.kind in (result.YIELDED, result.LENT)]
    yields = [event for event in every if event.identity]
    identities = _handed_out(flow, {event.identity for event in yields})
    given = not identities
    if given:
        identities = _used(flow)
    if not identities:
        # What it hands out is nothing that can be seen: the session of another manager, perhaps, which commits.
        return UNSEEN._replace(may_commit=bool(every))
    begun = max([event.session.begun for event in yields if event.session is not None], default=0)
    own_marks = ("@",) if given else ("@", "~")
    foreign = tuple([identity for identity in sorted(identities) if not identity[0].startswith(own_marks)])
    commits, closes, closes_on_error, ends_on_error, swallows = False, True, True, True, False
    for out in flow.exits:
        if given and out.error is not None and out.error.kind == errors.ABANDONED:
            continue  # what a block raises is an Exception
        for identity in identities if given else identities & set(out.state.sessions):
            session = out.state.sessions.get(identity, SessionState())
            if not session.handed and not given:
                continue
            left = _left(session, shared=flow.sessions[identity].origin in _SHARED, given=given)
            if out.error is None and not out.state.thrown:
                commits = commits or session.commits > 0
                closes = closes and left.released
            elif out.error is None:
                swallows = True
            elif out.error.by_yield:
                closes_on_error = closes_on_error and left.closed
                ends_on_error = ends_on_error and left.ended
    may_commit = any([event.session.handed for event in yields if event.session is not None])
    lent = [event.session for event in every] if foreign else []
    nested = bool(lent) and all([session is not None and session.savepoints > 0 for session in lent])
    return Provider(begun, commits, closes, closes_on_error, ends_on_error, swallows, foreign, nested, True, may_commit)


_SHARED = (result.AMBIENT, result.CURRENT, result.SHARED)


def _handed_out(flow: FunctionFlow, identities: set[Path]) -> set[Path]:
    own = {identity for identity in identities if identity[0].startswith(("@", "~"))}
    # A wrapper that opens a session where its caller gives none: the caller's own is the caller's to end.
    return own if own and not flow.reference.function.is_generator else identities


def _used(flow: FunctionFlow) -> set[Path]:
    """The sessions that a manager which hands nothing out finishes: those that it was given, or else everybody's."""
    used = {known for out in flow.exits for known, session in out.state.sessions.items() if session.touched}
    given = {known for known in used if not known[0].startswith(("@", "~"))}
    return given or {known for known in used if known[0] == "~"}


def _left(session: SessionState, *, shared: bool, given: bool) -> _Left:
    """shared: it is everybody's. given: the manager is there to finish what others use, and hands nothing out."""
    closed, idle = session.transaction == CLOSED, session.transaction == NONE
    if shared and given:
        # A commit ends nothing that has failed: it fails itself.
        return _Left(closed, closed, closed or (idle and not session.commits))
    if shared:
        return _Left(closed=True, released=True, ended=True)  # those who share it finish it
    return _Left(closed or (idle and not session.owned), closed or idle, closed or idle)
