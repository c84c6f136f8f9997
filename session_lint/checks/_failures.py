"""Shared by SES101, SES111 and SES116: how a function leaves a session that it was handed."""

from __future__ import annotations

from typing import NamedTuple

from session_lint import ir
from session_lint.checks.context import Context
from session_lint.findings import Confidence
from session_lint.flow import errors, result
from session_lint.flow.result import Event, Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import OPEN
from session_lint.flow.values import Path
from session_lint.project import ownership
from session_lint.project.call_graph import open_ways

_HANDED = (result.PARAMETER, result.INJECTED)


class Failure(NamedTuple):
    """A session that is left in a transaction when the function fails.

    way: the exit. only_cancelled: every other exit is clean. commit: the function's first commit, if it has one.
    """

    info: SessionInfo
    way: Exit
    only_cancelled: bool
    commit: Event | None
    owner: ownership.Owner


def failures(context: Context, flow: FunctionFlow) -> list[Failure]:
    """One per session that somebody else must finish."""
    if flow.reference.function.is_generator:
        return []
    found = []
    for info in flow.sessions.values():
        if info.origin in result.OPENED_HERE:
            continue
        ways = open_ways(flow, info.identity)
        if not ways:
            continue
        ordinary = [way for way in ways if way.error is not None and way.error.kind != errors.CANCELLED]
        commit = _first_commit(flow, info)
        waiting = [way for way in ways if way.state.sessions[info.identity].transaction == OPEN]
        way = _telling(ordinary or waiting or ways, commit)
        owner = context.project.ownership.of(flow, info)
        found.append(Failure(info, way, not ordinary, commit, owner))
    return found


def _first_commit(flow: FunctionFlow, info: SessionInfo) -> Event | None:
    commits = [event for event in flow.events if event.kind == result.COMMITTED and event.identity == info.identity]
    return min(commits, key=lambda event: event.place) if commits else None


def _telling(ways: list[Exit], commit: Event | None) -> Exit:
    """The exit that shows the bug best: the failing commit, else the first failure in the source."""
    for way in ways:
        if commit is not None and way.error is not None and way.error.place == commit.place:
            return way
    return min(ways, key=lambda way: way.error.place if way.error is not None else ir.NOWHERE)


def is_handed(failure: Failure) -> bool:
    """Whether the function got the session from its caller."""
    return failure.info.origin in _HANDED


def is_judged_elsewhere(context: Context, flow: FunctionFlow, failure: Failure) -> bool:
    """Under local ownership: whether another function is the one to judge, so that one cause gives one finding.

    A function that only passes its session on is as good as what it calls. A function that is only a part of its
    callers' unit of work, because they all do more with the session, is judged with them.
    """
    return is_delegating(flow, failure.info.identity) or context.project.call_graph.takes_part(flow.reference)


def is_delegating(flow: FunctionFlow, identity: Path) -> bool:
    """Whether all that a function does with a session is to pass it to one other function of the project."""
    handings = [handing for handing in flow.calls if identity in handing.identities]
    if identity in flow.direct or len(handings) != 1:
        return False
    places = {way.error.place for way in open_ways(flow, identity) if way.error is not None}
    return places <= {handings[0].place}


def confidence_of(failure: Failure) -> Confidence:
    return failure.info.certainty.at_most(failure.owner.confidence)
