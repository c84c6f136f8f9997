"""The ways out of a piece of code, each with its states."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.flow.errors import Error
from session_lint.flow.state import State, States
from session_lint.flow.values import Path, Value


class Raises:
    """Exceptions in flight: one per state and kind, the first witness stays."""

    __slots__ = ("_pairs",)
    LIMIT = 160

    def __init__(self) -> None:
        self._pairs: dict[object, tuple[State, Error]] = {}

    def add(self, state: State, error: Error) -> None:
        if len(self._pairs) < self.LIMIT:
            self._pairs.setdefault((state.key, error.kind, error.by_yield), (state, error))

    def update(self, other: Raises) -> None:
        # Every statement hands its exceptions up through all blocks around it, so this works on the ready keys.
        known = self._pairs
        for key, pair in other._pairs.items():
            if len(known) >= self.LIMIT:
                return
            known.setdefault(key, pair)

    def groups(self) -> list[tuple[Error, list[State]]]:
        """By kind of error; the first error stands for its kind."""
        groups: dict[object, tuple[Error, list[State]]] = {}
        for state, error in self:
            groups.setdefault((error.kind, error.by_yield, error.place), (error, []))[1].append(state)
        return list(groups.values())

    def __iter__(self) -> Iterator[tuple[State, Error]]:
        return iter(list(self._pairs.values()))


class Returns:
    """Returns with their values."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[object, tuple[State, Value, ir.Place]] = {}

    def add(self, state: State, value: Value, place: ir.Place) -> None:
        self._entries.setdefault((state.key, value, place), (state, value, place))

    def update(self, other: Returns) -> None:
        for key, entry in other._entries.items():
            self._entries.setdefault(key, entry)

    def groups(self) -> list[tuple[Value, ir.Place, list[State]]]:
        groups: dict[object, tuple[Value, ir.Place, list[State]]] = {}
        for state, value, place in self:
            groups.setdefault((value, place), (value, place, []))[2].append(state)
        return list(groups.values())

    def __iter__(self) -> Iterator[tuple[State, Value, ir.Place]]:
        return iter(list(self._entries.values()))


class Outcome:
    """normal: control falls through to the next statement."""

    __slots__ = ("breaks", "continues", "normal", "raises", "returns")

    def __init__(self) -> None:
        self.normal = States()
        self.breaks = States()
        self.continues = States()
        self.returns = Returns()
        self.raises = Raises()

    def jumps(self, other: Outcome) -> None:
        """Take over all ways out of `other` but the normal one."""
        if other.breaks:
            self.breaks.update(other.breaks)
        if other.continues:
            self.continues.update(other.continues)
        self.returns.update(other.returns)
        self.raises.update(other.raises)

    def exits(self, other: Outcome) -> None:
        """Take over the ways out of `other` that leave the function: there its variables mean nothing any more."""
        for state, value, place in other.returns:
            self.returns.add(state.without_variables(), value, place)
        for state, error in other.raises:
            self.raises.add(state.without_variables(), error)

    def forget(self, path: Path) -> None:
        """Forget a variable on all ways that stay in the function."""
        self.normal, self.breaks, self.continues = [
            States([state.bind(path, None) for state in group]) for group in (self.normal, self.breaks, self.continues)
        ]

    def update(self, other: Outcome) -> None:
        self.jumps(other)
        self.normal.update(other.normal)
