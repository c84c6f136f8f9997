"""Expressions: what they do to the state, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from session_lint import ir
from session_lint.flow import errors, result
from session_lint.flow import operations as ops
from session_lint.flow.conditions import Conditions
from session_lint.flow.errors import Error
from session_lint.flow.objects import element_of
from session_lint.flow.outcome import Outcome
from session_lint.flow.state import (
    ENTRY,
    NONE,
    OPEN,
    Mark,
    Pairs,
    State,
    States,
    distinct,
)
from session_lint.flow.values import (
    Answer,
    Borrowed,
    Closure,
    Const,
    Coroutine,
    Items,
    Manager,
    ModelQuery,
    Opened,
    Query,
    Registry,
    Session,
    Transaction,
    Truth,
    Value,
    loaded_in,
    sessions_in,
)
from session_lint.ir_queries import (
    bound_paths,
    call_place,
    place_of,
    words,
)
from session_lint.project.profiles import Profile


class Evaluation(Conditions):
    """Evaluates the expressions of one function."""

    def evaluate(
        self, node: ir.Expr | None, state: State, outcome: Outcome, purpose: str = "", calm: bool = False
    ) -> Pairs:
        """Evaluate an expression: the states after it and its value in each.

        purpose: what becomes of the value ("dropped", "assigned", "returned", "awaited", "with", ...).
        calm: a failure of its calls is not worth a way out, as in `raise HTTPException(...)`.
        """
        # The most frequent kinds first.
        if isinstance(node, ir.Name):
            return [self._name(node, state)]
        if isinstance(node, ir.Call):
            return self.call(node, state, outcome, purpose, calm)
        if node is None or isinstance(node, ir.Constant):
            value = node.value if node is not None else None
            return [(state, Const(value) if value is None or value is True or value is False else None)]
        if isinstance(node, ir.Opaque):
            for path in node.reads if self.has_failed else ():
                self.note_read(path, state)
            return [(after, None) for after, _ in self._sequence(node.parts, state, outcome)]
        if isinstance(node, ir.Await):
            return self._await(node, state, outcome)
        if isinstance(node, ir.Attribute):
            return self._attribute(node, state, outcome, purpose)
        if isinstance(node, (ir.Boolean, ir.Not, ir.Compare)):
            return self.condition(node, state, outcome, purpose)
        if isinstance(node, ir.Conditional):
            pairs: Pairs = []
            for after, verdict in self.test(node.test, state, outcome):
                if verdict is not False:
                    pairs += self.evaluate(node.then, after, outcome, purpose)
                if verdict is not True:
                    pairs += self.evaluate(node.other, after, outcome, purpose)
            return distinct(pairs)
        if isinstance(node, ir.Walrus):
            return [
                (self.rebind(node.target.path, value, after, self.statement), value)
                for after, value in self.evaluate(node.value, state, outcome, "assigned")
            ]
        if isinstance(node, ir.Yield):
            return self._yield(node, state, outcome)
        if isinstance(node, ir.Lambda):
            return [(self.define(node.function, state), Closure(node.function))]
        if isinstance(node, ir.Comprehension):
            return self._comprehension(node, state, outcome)
        if isinstance(node, ir.Collection):
            pairs = self._sequence(node.items, state, outcome, keep=True)
            if node.kind in ("tuple", "list"):
                return pairs
            return [(self._put_away(held, after), None) for after, held in pairs]
        return self._subscript(node, state, outcome)

    def _subscript(self, node: ir.Subscript, state: State, outcome: Outcome) -> Pairs:
        pairs: Pairs = []
        for after, base in self.evaluate(node.base, state, outcome, "item"):
            if isinstance(base, Query):  # `query[:10]` sends it
                text = f"{words(node.base)}[...]"
                after = self.operate(after, base.identity, ops.READ, place_of(self.statement), text, outcome)
            if isinstance(base, Answer):
                key = node.items[0] if len(node.items) == 1 else None
                pairs.append((after, base.part(key.value) if isinstance(key, ir.Constant) else None))
                continue
            pairs += [(ready, None) for ready, _ in self._sequence(node.items, after, outcome)]
        return pairs

    def _name(self, node: ir.Name, state: State) -> tuple[State, Value]:
        if len(node.path) > 1:
            held = state.variables.get(node.path[:1])
            if isinstance(held, Coroutine) and node.path[1] not in ops.OF_COROUTINES:
                self.not_awaited(held, state)
            elif self.has_failed and loaded_in(held) is not None:
                self.note_read(node.path, state)
        value = self.lookup(node.path, state)
        if value is not None and isinstance(value, (Borrowed, Opened, ModelQuery)):
            origin = self.origin_of(node.path)
            place = place_of(self.statement)
            return self.materialise(value, state, node.path, place, origin)
        return state, value

    def _sequence(self, nodes: tuple[ir.Expr, ...], state: State, outcome: Outcome, keep: bool = False) -> Pairs:
        pairs: list[tuple[State, tuple[Value, ...]]] = [(state, ())]
        for node in nodes:
            pairs = [
                (after, (*values, value))
                for before, values in pairs
                for after, value in self.evaluate(node, before, outcome, "item")
            ]
            if len(pairs) > 1:
                pairs = list({(after.key, values): (after, values) for after, values in pairs}.values())[: States.LIMIT]
        return [
            (after, Items(values) if keep and any([v is not None for v in values]) else None) for after, values in pairs
        ]

    def _put_away(self, value: Value, state: State) -> State:
        """Into a dict or set: who takes a session out of it is not followed, and has to close it."""
        for item in sessions_in(value):
            if item.identity in state.sessions and state.sessions[item.identity].owned:
                state = self.hand_over(item, state)
        return state

    def _attribute(self, node: ir.Attribute, state: State, outcome: Outcome, purpose: str) -> Pairs:
        pairs: Pairs = []
        for after, base in self.evaluate(node.base, state, outcome, "attribute"):
            if isinstance(base, Coroutine) and node.name not in ops.OF_COROUTINES:
                self.not_awaited(base, after)
                base = None
            if isinstance(base, Session) and node.name == "no_autoflush":
                pairs.append((after, Manager("null", base, place=call_place(node))))
                continue
            pairs.append((after, self.attribute(base, node.name, ())))
        return pairs

    def _await(self, node: ir.Await, state: State, outcome: Outcome) -> Pairs:
        pairs: Pairs = []
        self.cancellation_known = False
        evaluated = self.evaluate(node.value, state, outcome, "awaited")
        known, self.cancellation_known = self.cancellation_known, False
        for after, value in evaluated:
            if not known and not isinstance(value, (Session, Transaction)):
                outcome.raises.add(after, Error(errors.CANCELLED, node.place, f"await {words(node.value)}"))
            pairs.append((after, value.value if isinstance(value, Coroutine) else value))
        return pairs

    @cached_property
    def _finisher(self) -> Profile | None:
        """The framework that runs what follows a yield also when its user has failed, and raises nothing there."""
        return self.project.profiles.of_generator(self.flow.reference)

    def _yield(self, node: ir.Yield, state: State, outcome: Outcome) -> Pairs:
        pairs: Pairs = []
        for after, value in self.evaluate(node.value, state, outcome, "yielded"):
            if isinstance(value, Registry):
                after, value = self.materialise(value, after, (), node.place, result.AMBIENT)
            identities = [item.identity for item in sessions_in(value)]
            for identity in identities:
                session = after.sessions[identity]
                self.event(result.YIELDED, node.place, identity, "yield", session, after.thrown)
                used = Mark(node.place, "whoever gets it uses it here")
                lent = session._replace(
                    transaction=OPEN if session.transaction in (NONE, OPEN, ENTRY) else session.transaction,
                    dirty=True,
                    touched=True,
                    handed=True,
                ).mark(used=used)
                after = after.set(identity, lent)
            if not identities:
                nested = next((session for session in after.sessions.values() if session.savepoints), None)
                self.event(result.YIELDED, node.place, (), "yield", nested, after.thrown)
            if self._finisher is not None:
                given = Truth(True, errors.ANY) if self._finisher.gives_error else Const(None)
                pairs += [(after, Const(None)), (after.throw(), given)]
                continue
            text = "the code that uses it" if identities else "the consumer"
            outcome.raises.add(after, Error(errors.ANY, node.place, text, by_yield=True))
            outcome.raises.add(after, Error(errors.ABANDONED, node.place, text, by_yield=True))
            if self.function.is_async:
                outcome.raises.add(after, Error(errors.CANCELLED, node.place, text, by_yield=True))
            pairs.append((after, None))
        return pairs

    def _comprehension(self, node: ir.Comprehension, state: State, outcome: Outcome) -> Pairs:
        states = [state]
        pairs: Pairs = []
        for generator in node.generators:
            following = []
            for before in states:
                for after, value in self.evaluate(generator.iterable, before, outcome, "iterated"):
                    if value == Truth(False):
                        pairs.append((after, None))
                    if value in (Truth(False), Const(None)):  # The one has no turns, the other raises a TypeError.
                        continue
                    element = element_of(value, after) if isinstance(generator.target, ir.Name) else None
                    for ready in self.iterate(value, after, self.statement, outcome):
                        for path in bound_paths(generator.target):
                            ready = ready.bind(path, element)
                        following.append(ready)
            states = following
            for condition in generator.conditions:
                states = [after for before in states for after, _ in self.evaluate(condition, before, outcome)]
        if node.kind == "generator":
            return [*pairs, *[(after, None) for after in states]]
        paths = [path for generator in node.generators for path in bound_paths(generator.target)]
        for before in states:
            for after, value in self._sequence(node.elements, before, outcome, keep=True):
                # The collection holds what its elements open; which of them is closed when can't be followed.
                after = self.hand_over(value, after)
                for path in paths:
                    after = after.bind(path, None)
                pairs.append((after, None))
        return pairs

    def iterate(self, value: Value, state: State, node: ir.Stmt | None, outcome: Outcome) -> Iterator[State]:
        """`for x in value`."""
        if isinstance(value, Query):
            yield self.operate(state, value.identity, ops.READ, place_of(node), "the query", outcome)
        else:
            if isinstance(value, Coroutine):
                self.not_awaited(value, state)
            yield state
