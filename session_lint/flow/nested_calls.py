"""Calls of nested functions, which run in place: they see the variables of the function around them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.outcome import Outcome
from session_lint.flow.project_calls import ProjectCalls
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import Pairs, State, States, distinct
from session_lint.flow.values import Arguments, Closure, Value
from session_lint.ir_queries import call_text
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAX_DEPTH = 3
"""How deep calls of nested functions are run in place."""

_MAX_RUNS = 400
"""How often the nested functions of one function are run; most functions need fewer than ten runs."""


class _Run(NamedTuple):
    """What a nested function has done in one state."""

    flow: FunctionFlow
    has_failed: bool
    outcome: Outcome


class NestedCalls(ProjectCalls):
    """Applies calls of nested functions."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self._runs: dict[object, _Run] = {}
        """Shared with the nested functions of nested ones."""

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
        run = self._run(function, self._bind_plain(function, arguments), state)
        if run is None:
            return self.unknown_call(node, arguments, state, outcome, call_text(node), False)
        return self._go_on(run, state, outcome)

    def _go_on(self, run: _Run, state: State, outcome: Outcome) -> Pairs:
        """What has happened in a nested function has happened here."""
        flow = run.flow
        self.flow.events.extend([event for event in flow.events if event not in self.flow.events])
        self.flow.calls.extend([handing for handing in flow.calls if handing not in self.flow.calls])
        self.flow.direct |= flow.direct
        self.flow.invocations.update(flow.invocations)
        self.has_failed |= run.has_failed
        self.flow.first_uses |= flow.first_uses
        self.flow.begins = {**flow.begins, **self.flow.begins}

        def back(after: State) -> State:
            return State(state.variables, after.sessions, after.thrown)

        for after, error in run.outcome.raises:
            outcome.raises.add(back(after), error)
        pairs: Pairs = [(back(after), None) for after in run.outcome.normal]
        pairs += [(back(after), value) for after, value, _ in run.outcome.returns]
        return distinct(pairs)

    def _run(self, function: ir.Function, bindings: dict[str, Value], state: State) -> _Run | None:
        """What a nested function does in a state; the same state comes again with every turn of a loop.

        None if there are too many states.
        """
        nested = type(self)(self.project, FunctionRef(self.module, function), self.depth + 1)
        names = self._mentioned(function, state) - nested.local_names
        kept = {
            path: value for path, value in state.variables.items() if path[0] in names or path[0].startswith(("@", "~"))
        }
        inner = State(kept, state.sessions, state.thrown)
        for name, value in bindings.items():
            inner = inner.bind((name,), value)
        frames = tuple([(frame.kind, id(frame.node)) for frame in self.frames])
        key = (id(function), inner.key, frozenset(state.sessions.items()), self.has_failed, frames)
        if key in self._runs or len(self._runs) >= _MAX_RUNS:
            return self._runs.get(key)
        nested.flow.sessions = self.flow.sessions
        nested.frames = self.frames
        nested.has_failed = self.has_failed
        nested._runs = self._runs
        result = Outcome()
        nested.run_block(function.body, States([inner]), result)
        self._runs[key] = _Run(nested.flow, nested.has_failed, result)
        return self._runs[key]

    def _mentioned(self, function: ir.Function, state: State) -> set[str]:
        """The names that a nested function mentions, and those that it calls."""
        names: set[str] = set()
        waiting = [function]
        while waiting:
            new = self.project.table.bodies.names(waiting.pop()) - names
            names |= new
            called = [state.variables.get((name,)) for name in sorted(new)]
            waiting += [value.function for value in called if isinstance(value, Closure)]
        return names

    def _bind_plain(self, function: ir.Function, arguments: Arguments) -> dict[str, Value]:
        """Which parameter of a nested function gets which value."""
        positional = [parameter.name for parameter in function.parameters if parameter.kind == "positional"]
        bound = dict(zip(positional, [value for name, value, _ in arguments if name is None], strict=False))
        bound.update({name: value for name, value, _ in arguments if name is not None and name not in ("*", "**")})
        return bound
