"""For SES103: which objects of one unit of work the next one is built on."""

from __future__ import annotations

import re

from session_lint import ir
from session_lint.flow import result
from session_lint.flow.result import Event
from session_lint.ir_queries import bound_paths, last_name, path_of, words

_CLOCK = re.compile(r"(^|[._])(now|utcnow|today|time)\(\)")
"""`datetime.now(UTC).replace(tzinfo=None)`"""


class Building:
    """What a function makes of what. It is read once, however many pairs of commits the function has."""

    def __init__(self, function: ir.Function) -> None:
        self._parameters = {parameter.name for parameter in function.parameters}
        self._made: dict[str, list[tuple[int, set[str]]]] = {}
        """What each name is made from, by the numbers of the statements."""
        self._times: set[str] = set()
        """The names of points in time: that two rows share one builds neither on the other."""
        self._objects: dict[str, int] = {}
        """The names that objects get, with the first statement that gives them one."""
        self._assigned: dict[ir.Place, ir.Assign] = {}
        self._calls: dict[ir.Place, list[tuple[int, ir.Stmt, ir.Call]]] = {}
        for number, statement in enumerate(ir.statements(function.body)):
            self._read(number, statement)

    def _read(self, number: int, statement: ir.Stmt) -> None:
        if isinstance(statement, ir.Assign) and statement.value is not None:
            self._assigned[statement.place] = statement
            for target in statement.targets:
                if isinstance(target, ir.Name) and len(target.path) == 1:
                    self._made.setdefault(target.path[0], []).append((number, roots(statement.value)))
                    if _CLOCK.search(words(statement.value)):
                        self._times.add(target.path[0])
                    if _makes_object(statement.value):
                        self._objects.setdefault(target.path[0], number)
        for part in ir.expressions(statement) if isinstance(statement, (ir.Expression, ir.Assign, ir.Return)) else ():
            if isinstance(part, ir.Call):
                self._calls.setdefault(part.place, []).append((number, statement, part))

    def on(self, earlier: list[Event], later: list[Event]) -> set[str]:
        """The objects of the first unit of work that something else in the second is made from."""
        # What was only changed was there before, and need not be undone for what follows.
        earlier = [write for write in earlier if write.detail != result.CHANGE]
        written = self._written(earlier)
        used = self._used(later, {write.place for write in earlier})
        depends = {name for name in written & used if name in self._made} - self._parameters - self._times
        return depends - self._renewed(earlier, later) if depends else depends

    def _written(self, earlier: list[Event]) -> set[str]:
        written: set[str] = set()
        # Plain values that another function is given, too, are not what it makes.
        direct = {write.place for write in earlier if write.detail is None}
        for place in {write.place for write in earlier}:
            for number, statement, call in self._calls.get(place, ()):
                given = {name for argument in call.arguments for name in roots(argument.value)}
                is_direct = place in direct
                written |= {name for name in given if is_direct or self._objects.get(name, number + 1) <= number}
                if isinstance(statement, ir.Assign):
                    written |= {target.path[0] for target in statement.targets if isinstance(target, ir.Name)}
        return written

    def _used(self, later: list[Event], earlier: set[ir.Place]) -> set[str]:
        used: set[str] = set()
        changes = {write.place for write in later if write.detail == result.CHANGE}
        adds = any([write.detail is None for write in later])
        for place in changes & self._assigned.keys():
            # `message.state = "sent"` writes down what has become of the message.
            assign = self._assigned[place]
            used |= roots(assign.value) - {path[0] for item in assign.targets for path in bound_paths(item)}
        for place in {write.place for write in later} - earlier:
            for number, _, call in self._calls.get(place, ()):
                if place in changes:
                    used |= roots(call) - _changed(call)
                    continue
                for argument in call.arguments:
                    if isinstance(argument.value, ir.Name) and adds:
                        made = self._made.get(argument.value.path[0], ())
                        used |= {name for before, names in made if before <= number for name in names}
                    else:
                        used |= roots(argument.value)
        return used

    def _renewed(self, earlier: list[Event], later: list[Event]) -> set[str]:
        """The names that stand for something else, made without them, in the second unit of work."""
        if not earlier or not later:
            return set()
        start, end = max([write.place for write in earlier]), max([write.place for write in later])
        return {
            target.path[0]
            for place, assign in self._assigned.items()
            if start < place < end
            for target in assign.targets
            if isinstance(target, ir.Name) and len(target.path) == 1 and target.path[0] not in roots(assign.value)
        }


def roots(node: ir.Expr | None) -> set[str]:
    """The names that an expression is made from, without those that it only calls."""
    parts = ir.expressions(node)
    names = {part.path[0] for part in parts if isinstance(part, ir.Name)}
    called = {
        part.function.path[0] for part in parts if isinstance(part, ir.Call) and isinstance(part.function, ir.Name)
    }
    return names - called


def _changed(call: ir.Call) -> set[str]:
    """The object that a call changes: `user.groups.append(group)`, `setattr(user, key, value)`."""
    path = path_of(call.function)
    return set(path[:1]) if len(path) > 1 else roots(call.arguments[0].value)


def _makes_object(node: ir.Expr) -> bool:
    return isinstance(node, ir.Call) and last_name(node.function)[:1].isupper()
