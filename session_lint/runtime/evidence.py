"""What the shim can prove: its oracles, which rule each one proves, and the evidence that an oracle gives.

Imports nothing of SQLAlchemy, so that reports can be read without it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from session_lint.runtime.places import Frames, Place, shown


class Oracle(str, enum.Enum):
    """A judgement that PostgreSQL, the pool and the order of operations allow without knowing the code."""

    LEAKED_CONNECTION = "leaked connection"
    OPEN_TRANSACTION = "open transaction left behind"
    DEAD_SESSION = "dead session"
    POISONED_SESSION = "poisoned session used again"
    ABORTED_COMMIT = "commit of an aborted transaction"
    PARTIAL_COMMIT = "partial commit"
    LOST_WRITE = "write never committed"
    CLOSED_TRANSACTION = "statement in a closed transaction"
    BEGUN_TWICE = "begin in a begun transaction"
    CONCURRENT_USE = "concurrent use of one session"
    HELD_ACROSS_AWAIT = "connection held across a slow await"
    POOL_EXHAUSTED = "pool exhausted"
    DUPLICATE_ROW = "duplicate row"
    LOST_UPDATE = "lost update"
    NEVER_AWAITED = "coroutine never awaited"
    FALSE_SUCCESS = "success without the row"
    GIVEN_UP = "earlier rows given up for a conflict"
    FALSE_FAILURE = "failure with the rows"
    BROKEN_GENERATOR = "generator did not stop"
    BROKEN_DEPENDENCY = "dependency without a session"


LIFETIME = frozenset({Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION, Oracle.DEAD_SESSION})
"""What is true only until somebody cleans up: it counts if it is still so when the owner is done."""

_LEFT_BEHIND = (Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION, Oracle.DEAD_SESSION)
_USED_AGAIN = (Oracle.DEAD_SESSION, Oracle.POISONED_SESSION)
_LEAK = (Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION, Oracle.POOL_EXHAUSTED)

PROVES: Mapping[str, tuple[Oracle, ...]] = {
    "SES101": _USED_AGAIN,
    "SES102": (*_USED_AGAIN, Oracle.ABORTED_COMMIT),
    "SES103": (Oracle.PARTIAL_COMMIT,),
    "SES104": (Oracle.PARTIAL_COMMIT,),
    "SES105": (Oracle.PARTIAL_COMMIT,),
    "SES106": (Oracle.CLOSED_TRANSACTION, Oracle.PARTIAL_COMMIT),
    "SES107": (Oracle.LOST_WRITE,),
    "SES108": (Oracle.BEGUN_TWICE,),
    "SES109": (Oracle.GIVEN_UP, Oracle.POISONED_SESSION),
    "SES111": (*_LEFT_BEHIND, Oracle.POISONED_SESSION),
    "SES112": (Oracle.FALSE_SUCCESS,),
    "SES113": (Oracle.POISONED_SESSION,),
    "SES114": (Oracle.FALSE_FAILURE,),
    "SES115": (Oracle.BROKEN_GENERATOR,),
    "SES116": _LEFT_BEHIND,
    "SES201": _LEAK,
    "SES202": (*_LEAK, Oracle.DEAD_SESSION),
    "SES203": (*_LEAK, Oracle.BROKEN_DEPENDENCY),
    "SES204": _LEAK,
    "SES205": _LEAK,
    "SES206": (*_LEAK, *_USED_AGAIN),
    "SES207": (*_LEAK, Oracle.LOST_WRITE),
    "SES208": (*_USED_AGAIN, Oracle.CONCURRENT_USE),
    "SES210": _LEAK,
    "SES212": (Oracle.BROKEN_DEPENDENCY,),
    "SES301": (Oracle.NEVER_AWAITED,),
    "SES302": (Oracle.CONCURRENT_USE,),
    "SES303": (*_LEAK, Oracle.DEAD_SESSION, Oracle.CONCURRENT_USE, Oracle.FALSE_SUCCESS),
    "SES306": (Oracle.DUPLICATE_ROW,),
    "SES307": (Oracle.LOST_UPDATE,),
    "SES308": (Oracle.HELD_ACROSS_AWAIT,),
    "SES309": (Oracle.POOL_EXHAUSTED,),
}
"""The oracles that prove a rule's finding, by the rule's code. A rule without any has no meaning at run time."""


@dataclass(frozen=True)
class Evidence:
    """One judgement. opened: where what it speaks of was opened. places: all of the user's places that took part.

    facts: what was seen, such as SQLSTATE, the server's state, the pool's count. fault: what was made to fail,
    empty if nothing was. test: who reached it.
    """

    oracle: Oracle
    message: str
    opened: Place | None = None
    places: frozenset[Place] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    test: str = ""
    subject: object = field(default=None, compare=False, repr=False)
    """The ConnectionUse or SessionRecord that it speaks of, while that is at hand."""

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        opened = f"; opened at {self.opened}" if self.opened else ""
        return f"{self.oracle.value}: {self.message}{f' ({facts})' if facts else ''}{opened}"

    @property
    def proof(self) -> str:
        """One line: what was seen, what had been made to fail, and the test that came there."""
        facts = "; ".join(f"{name}: {value}" for name, value in self.facts.items())
        how = self.fault or "nothing was made to fail"
        return f"{self.oracle.value}{f' ({facts})' if facts else ''} <- {how} [{self.test}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "oracle": self.oracle.value,
            "message": self.message,
            "opened": _place(self.opened) if self.opened else None,
            "places": [_place(place) for place in sorted(self.places, key=lambda p: (shown(p.path), p.line))],
            "facts": dict(self.facts),
            "fault": self.fault,
            "test": self.test,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evidence:
        return cls(
            Oracle(value["oracle"]),
            value["message"],
            Place(**value["opened"]) if value["opened"] else None,
            frozenset(Place(**place) for place in value["places"]),
            dict(value["facts"]),
            value["fault"],
            value["test"],
        )


def _place(place: Place) -> dict[str, object]:
    return {"path": shown(place.path), "line": place.line, "function": place.function}


def places(frames: Iterable[Frames]) -> frozenset[Place]:
    """All places of these moments."""
    return frozenset(place for each in frames for place in each.places)
