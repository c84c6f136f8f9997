"""The abstract state of a function's sessions at one point of its execution.

A session's state is a small typestate. Two states that agree in everything that can decide something are the
same state; the places that led there (the witness) come along for the trail, first one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import Path, Value

# The transaction of a session, as far as this function knows.
ENTRY = "entry"  # as the function found it: not touched yet
INACTIVE = "inactive"  # as the function found it, which is after a failed flush: `is_active` has said so
GONE = "gone"  # as the function found it, which is closed: `closed` has said so
NONE = "none"  # no transaction: fresh, or after commit, rollback or close of what was open
OPEN = "open"  # a connection is checked out and in a transaction
FAILED = "failed"  # a flush, commit or statement failed and nobody rolled back
SUSPECT = "suspect"  # something failed that may have left it failed: a read, or a callee that can't be seen
CUT = "cut off"  # cancelled inside its own statement: the connection is gone, and only a rollback helps
CLOSED = "closed"

BROKEN = (FAILED, SUSPECT)
RELEASED = 3


class Mark(NamedTuple):
    """A place and what happened there, in words that fit into a trail."""

    place: ir.Place
    text: str


class Cause(NamedTuple):
    """What has failed inside of a callee. path: the callee's file. function: its qualified name.

    chosen: the callee is one of several that the call may mean.
    """

    path: str
    function: str
    place: ir.Place
    text: str
    chosen: bool = False


class Witness(NamedTuple):
    """How a session came into its state. causes: what failed inside of callees, the outermost first.

    wrote: the first write that is not committed. again: a later turn of a loop writes on top of it. lost: the
    rollback that threw writes away. split: a callee that has committed writes of this function.
    """

    opened: Mark | None = None
    wrote: Mark | None = None
    used: Mark | None = None
    failed: Mark | None = None
    swallowed: Mark | None = None
    ended: Mark | None = None
    again: Mark | None = None
    lost: Mark | None = None
    split: Mark | None = None
    causes: tuple[Cause, ...] = ()


class SessionState(NamedTuple):
    """transaction: see above. dirty: writes that are not committed. pending: add()ed and not flushed yet.

    reset: a commit or rollback has happened in this function. commits: how many, two standing for more.
    owned: this function must close it. begun: 1 inside a begin() block, 2 if the block's transaction has been
    ended by hand, RELEASED if that of a begin_nested() block has. savepoints: how many begin_nested() blocks are
    around. touched: this function used it. found: whether it was in a transaction when this function got it, if it
    has asked.
    """

    transaction: str = ENTRY
    dirty: bool = False
    pending: bool = False
    reset: bool = False
    commits: int = 0
    owned: bool = False
    begun: int = 0
    savepoints: int = 0
    touched: bool = False
    handed: bool = False
    found: bool | None = None
    witness: Witness = Witness()

    @property
    def key(self) -> tuple[object, ...]:
        # Of the witness nothing decides but that a rollback threw writes away.
        return (*self[:11], self.witness.lost is not None)

    @property
    def certainty(self) -> Confidence:
        """How sure it is that it has failed, if it has."""
        return Confidence.LIKELY if any([cause.chosen for cause in self.witness.causes]) else Confidence.CERTAIN

    def mark(self, **marks: Mark | None) -> SessionState:
        changes: dict[str, Any] = dict(marks)
        return SessionState(*self[:11], self.witness._replace(**changes))

    def failing(self, place: ir.Place, text: str, causes: tuple[Cause, ...] = ()) -> SessionState:
        """The session after something has failed, which nobody has caught yet."""
        opened, wrote, used, _, _, ended, again, lost, split, _ = self.witness
        witness = Witness(opened, wrote, used, Mark(place, text), None, ended, again, lost, split, causes)
        return SessionState(*self[:11], witness)


class State:
    """Variables and sessions. Never changed in place: every operation gives a new one."""

    __slots__ = ("_key", "_variables_key", "sessions", "thrown", "variables")

    def __init__(
        self,
        variables: dict[Path, Value],
        sessions: dict[Path, SessionState],
        thrown: bool = False,
        variables_key: frozenset[tuple[Path, Value]] | None = None,
    ) -> None:
        self.variables = variables
        self.sessions = sessions
        self.thrown = thrown
        """Whether an exception was thrown into the generator at its yield and swallowed."""
        self._variables_key = variables_key
        """Handed on by whatever leaves the variables as they are: values are deep, and slow to hash."""
        self._key: object = None

    @property
    def key(self) -> object:
        if self._key is None:
            variables = self._known_variables()
            sessions = frozenset([(identity, session.key) for identity, session in self.sessions.items()])
            self._key = (variables, sessions, self.thrown)
        return self._key

    @property
    def shape(self) -> object:
        """What it is by its variables and transactions alone."""
        transactions = frozenset([(identity, session.transaction) for identity, session in self.sessions.items()])
        return self._known_variables(), transactions, self.thrown

    def _known_variables(self) -> frozenset[tuple[Path, Value]]:
        if self._variables_key is None:
            self._variables_key = frozenset(self.variables.items())
        return self._variables_key

    def bind(self, path: Path, value: Value) -> State:
        """Give a variable a value; what hung below its old value is forgotten."""
        length = len(path)
        below = [known for known in self.variables if known[:length] == path]
        if value is None and not below:
            return self
        variables = self.variables.copy()
        for known in below:
            del variables[known]
        if value is not None:
            variables[path] = value
        return State(variables, self.sessions, self.thrown)

    def set(self, identity: Path, session: SessionState) -> State:
        return State(self.variables, {**self.sessions, identity: session}, self.thrown, self._variables_key)

    def throw(self) -> State:
        return State(self.variables, self.sessions, True, self._variables_key)

    def forget(self, paths: Iterable[Path]) -> State:
        """Without what these variables hold."""
        variables = self.variables.copy()
        for path in paths:
            del variables[path]
        return State(variables, self.sessions, self.thrown)

    def without_variables(self) -> State:
        """For the way out of a function, on which they mean nothing any more."""
        return State({}, self.sessions, self.thrown) if self.variables else self


class States:
    """A bounded set of states."""

    __slots__ = ("_shapes", "_states")
    LIMIT = 40
    MOST = 80
    """So many there may be if those beyond the limit differ in more than in what their sessions have gone through."""

    def __init__(self, states: Iterable[State] = ()) -> None:
        self._states: dict[object, State] = {}
        self._shapes: set[object] = set()
        """Those of the states, once the limit is reached."""
        for state in states:
            self.add(state)

    def add(self, state: State) -> bool:
        """Whether the state is a new one."""
        # Too many ways may lead here to tell them all apart; then the first ones stand for the rest.
        key = state.key
        if key in self._states or (len(self._states) >= self.LIMIT and not self._is_different(state)):
            return False
        self._states[key] = state
        return True

    def _is_different(self, state: State) -> bool:
        """Whether none of the states has the same variables and transactions: what a handler leaves behind, perhaps."""
        if len(self._states) >= self.MOST:
            return False
        if not self._shapes:
            self._shapes.update([known.shape for known in self._states.values()])
        before = len(self._shapes)
        self._shapes.add(state.shape)
        return len(self._shapes) > before

    def update(self, states: Iterable[State]) -> None:
        for state in states:
            self.add(state)

    def __iter__(self) -> Iterator[State]:
        return iter(list(self._states.values()))

    def __len__(self) -> int:
        return len(self._states)

    def __bool__(self) -> bool:
        return bool(self._states)


Pairs = list[tuple[State, Value]]
"""What evaluating something gives: the states after it, and its value in each."""


def distinct(pairs: Pairs) -> Pairs:
    """Each pair of state and value once, and not more than can be followed."""
    if len(pairs) < 2:
        return pairs
    return list({(state.key, value): (state, value) for state, value in pairs}.values())[: States.LIMIT]


def failed_method(session: SessionState) -> tuple[str, str]:
    """The innermost operation that has failed, here or in a callee: what it was called on, and the method."""
    failed, causes = session.witness.failed, session.witness.causes
    text = causes[-1].text if causes else failed.text if failed is not None else ""
    owner, _, method = text.partition("()")[0].rpartition(".")
    return owner, method
