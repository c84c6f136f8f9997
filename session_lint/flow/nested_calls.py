"""Calls of nested functions, which run in place: they see the variables of the function around them."""

from __future__ import annotations

from collections.abc import Iterable

from session_lint import ir
from session_lint.flow.outcome import Outcome
from session_lint.flow.project_calls import ProjectCalls
from session_lint.flow.state import Pairs, State, States, distinct
from session_lint.flow.values import Arguments, Closure, Value
from session_lint.ir_queries import call_text
from session_lint.project.modules import FunctionRef

_MAX_DEPTH = 3
"""How deep calls of nested functions are run in place."""


class NestedCalls(ProjectCalls):
    """Applies calls of nested functions."""

    def run_block(self, body: Iterable[ir.Stmt], states: States, outcome: Outcome) -> None:
        """Run statements one after the other; what falls through is added to outcome.normal."""
        raise NotImplementedError

    def nested_function(
        self, callee: Closure, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        """A nested function is run in place: it sees our variables."""
        function = callee.function
        if function.is_generator or self.depth >= _MAX_DEPTH or (function.is_async and purpose == "dropped"):
            return self.unknown_call(node, arguments, state, outcome, call_text(node), False)
        return self._run_in_place(function, self._bind_plain(function, arguments), state, outcome)

    def _run_in_place(self, function: ir.Function, bindings: dict[str, Value], state: State, outcome: Outcome) -> Pairs:
        """Run a nested function in our state."""
        nested = type(self)(self.project, FunctionRef(self.module, function), self.depth + 1)
        nested.flow.sessions = self.flow.sessions
        nested.frames = self.frames
        nested.has_failed = self.has_failed
        kept = {path: value for path, value in state.variables.items() if path[0] not in nested.local_names}
        inner = State(kept, state.sessions, state.thrown)
        for name, value in bindings.items():
            inner = inner.bind((name,), value)
        inner_outcome = Outcome()
        nested.run_block(function.body, States([inner]), inner_outcome)
        self.flow.events.extend([event for event in nested.flow.events if event not in self.flow.events])
        self.flow.calls.extend([handing for handing in nested.flow.calls if handing not in self.flow.calls])
        self.flow.direct |= nested.flow.direct
        self.has_failed |= nested.has_failed
        self.flow.first_uses |= nested.flow.first_uses
        self.flow.begins = {**nested.flow.begins, **self.flow.begins}

        def back(after: State) -> State:
            return State(state.variables, after.sessions, after.thrown)

        for after, error in inner_outcome.raises:
            outcome.raises.add(back(after), error)
        pairs: Pairs = [(back(after), None) for after in inner_outcome.normal]
        pairs += [(back(after), value) for after, value, _ in inner_outcome.returns]
        return distinct(pairs)

    def _bind_plain(self, function: ir.Function, arguments: Arguments) -> dict[str, Value]:
        """Which parameter of a nested function gets which value."""
        positional = [parameter.name for parameter in function.parameters if parameter.kind == "positional"]
        bound = dict(zip(positional, [value for name, value, _ in arguments if name is None], strict=False))
        bound.update({name: value for name, value, _ in arguments if name is not None and name not in ("*", "**")})
        return bound
