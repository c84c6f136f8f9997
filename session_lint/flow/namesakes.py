"""Sessions that may be one, although two names lead to them: `self.session`, and that of an object handed in.

Whoever makes `Service(session, Store(session))` is seldom seen from inside of the service.
"""

from __future__ import annotations

from session_lint.flow import result
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import BROKEN, NONE, OPEN, State
from session_lint.flow.values import Path
from session_lint.flow.variables import Variables


class Namesakes(Variables):
    """Gives a session that others may call differently the benefit of the doubt."""

    def rolled_back_too(self, identity: Path, state: State, left: str = NONE) -> State:
        """The state after a rollback: what else has failed may have been this very session.

        left: what it is in then; after a savepoint its transaction goes on.
        """
        for other, session in state.sessions.items():
            if session.transaction in BROKEN and other != identity and self._may_be_one(identity, other):
                after = session._replace(transaction=left, pending=False)
                state = state.set(other, after if left == OPEN else after._replace(dirty=False, reset=True))
        return state

    def _may_be_one(self, identity: Path, other: Path) -> bool:
        """Whether two names may mean one session: of each object it has one, and who has made the object isn't seen."""
        one, another = self.flow.sessions[identity], self.flow.sessions[other]
        if one.origin in result.OPENED_HERE or another.origin in result.OPENED_HERE or identity[:-1] == other[:-1]:
            return False
        if one.type.role != another.type.role or one.type.is_async != another.type.is_async:
            return False
        return self._is_of_another(one) or self._is_of_another(another)

    def _is_of_another(self, info: SessionInfo) -> bool:
        """Whether an object keeps the session that this one, or this function, was given."""
        if info.origin != result.ATTRIBUTE:
            return False
        owner = self.own_class(info.identity[0])
        if owner is None:
            return len(info.identity) > 1
        return len(info.identity) > 2 and not self.project.aliases.is_made(owner, info.identity[1])
