"""Gifts: `return session, True`, a session together with what its caller must know of it."""

from __future__ import annotations

from session_lint.findings import Confidence
from session_lint.flow import result
from session_lint.flow.answers import answer_in
from session_lint.flow.result import FunctionFlow
from session_lint.flow.values import Answer, Borrowed, Items, Opened, Session, SessionType, Value


def gifts_of(flow: FunctionFlow) -> dict[Value, Items]:
    """The tuples that a function returns, in words that its caller understands, if one says something of its session.

    A session from outside stays as it is, under the function's own name for it.
    """
    tuples = {out.value: _parts(out.value) for out in flow.exits if out.error is None}
    held = {(len(parts), at) for parts in tuples.values() for at, item in enumerate(parts) if isinstance(item, Session)}
    if len(held) != 1:
        return {}
    [(length, at)] = held
    alike = {value: parts for value, parts in tuples.items() if len(parts) == length}
    if not any([answer_in(item) is not None for parts in alike.values() for item in parts]):
        return {}
    sessions = [parts[at] for parts in alike.values()]
    kind = next(flow.sessions[session.identity].type for session in sessions if isinstance(session, Session))
    return {
        value: Items((*map(answer_in, parts[:at]), _given(parts[at], kind, flow), *map(answer_in, parts[at + 1 :])))
        for value, parts in alike.items()
    }


def _parts(value: Value) -> tuple[Value, ...]:
    if isinstance(value, Answer):
        return tuple([part for key, part in value.parts if isinstance(key, int)])
    return value.items if isinstance(value, Items) else ()


def _given(value: Value, kind: SessionType, flow: FunctionFlow) -> Value:
    """kind: the session's where there is one; what can't be seen is probably one of the same kind."""
    if not isinstance(value, Session):
        return answer_in(value) or Borrowed(kind._replace(certainty=kind.certainty.at_most(Confidence.LIKELY)))
    info = flow.sessions[value.identity]
    if info.origin == result.LOCAL:
        return Opened(info.type)
    return Borrowed(info.type) if value.identity[0].startswith("@") else value
