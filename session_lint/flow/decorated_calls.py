"""Calls of the decorated function inside a decorator's wrapper.

A wrapper stands around a function as a generator stands around the user of what it yields: anything may happen to
the sessions that it hands in, and what it does afterwards is what it guarantees. Where it is known which function
is decorated, that function's contract is applied in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import errors, result
from session_lint.flow.errors import Error
from session_lint.flow.nested_calls import NestedCalls
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import ENTRY, NONE, OPEN, Mark, Pairs, SessionState, State
from session_lint.flow.values import Arguments, Decorated, Function, Path, Session, Value
from session_lint.ir_queries import call_text
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.flow.contracts import Contract
    from session_lint.project.link import Project
    from session_lint.project.summaries import Constants


class DecoratedCalls(NestedCalls):
    """Applies calls of what a decorator decorates."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self.decorated: FunctionRef | None = None
        """The function that is decorated, if this run is about one."""
        self.decorated_with: Constants = ()
        """What its caller is known to give it."""

    def contract_of(
        self, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]
    ) -> tuple[Constants, Contract | None]:
        if self.decorated is None or reference.function is not self.decorated.function:
            return super().contract_of(reference, bindings)
        # The wrapper calls it without its decorators. What it hands on unseen is what the caller has given.
        own = {parameter.name for parameter in reference.function.parameters}
        given = {name for name, _ in bindings}
        constants = {name: value for name, value in self.decorated_with if name in own and name not in given}
        seen = dict(self.project.summaries.constants(reference, bindings))
        constants.update({name: value for name, value in seen.items() if name in own & given})
        known = tuple(constants.items())
        return known, self.project.summaries.bare_contract(reference, known)

    def decorated_call(
        self, callee: Decorated, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        if self.decorated is not None:
            return self._apply_decorated(self.decorated, node, arguments, state, outcome, purpose)
        text = "the decorated function"
        handed = self._handed_in(node, arguments, state)
        for session, name in handed:
            known = state.sessions[session.identity]
            self.event(result.LENT, node.place, session.identity, call_text(node), known, name)
            used = known._replace(
                transaction=OPEN if known.transaction in (NONE, ENTRY) else known.transaction,
                dirty=True,
                touched=True,
                handed=True,
            ).mark(used=Mark(node.place, f"{text} uses it here"))
            state = state.set(session.identity, used)
        outcome.raises.add(state, Error(errors.ANY, node.place, text, by_yield=True))
        if self.function.is_async:
            outcome.raises.add(state, Error(errors.CANCELLED, node.place, text, by_yield=True))
        return [(state, None)]

    def _apply_decorated(
        self,
        reference: FunctionRef,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
    ) -> Pairs:
        """What the function does with the sessions of its own callers shows through the wrapper."""
        contract = self.project.summaries.bare_contract(reference)
        named: dict[str, Session] = {}
        handed = self._handed_in(node, arguments, state)
        injected = {
            name for name, wrapper in self.project.decorators.injected(reference).items() if wrapper is not None
        }
        for session, name in handed:
            if name in injected or not name:
                named[name or next(iter(injected), "")] = session
        if contract is not None:
            state = self._see_through(contract, named, state)
        given = tuple([(name, value, item) for name, value, item in arguments if name not in ("*", "**", None)])
        rest = {root[0]: Session(root) for root in (contract.roots if contract else ()) if root in state.sessions}
        plain = tuple([(name, value, ir.UNKNOWN) for name, value in {**rest, **named}.items() if name])
        known = {name for name, _, _ in plain}
        given = tuple([item for item in given if item[0] not in known])
        return self.project_function(Function(reference, None), node, (*given, *plain), state, outcome, purpose)

    def _see_through(self, contract: Contract, named: dict[str, Session], state: State) -> State:
        """Sessions that the caller of the decorated function gives it, under the name that it has for them."""
        for root in contract.roots:
            if len(root) == 1 and root[0] not in named and root not in state.sessions and not root[0].startswith("~"):
                info: SessionInfo = contract.infos[root]
                state = self.track(info, SessionState(), state)
        return state

    def _handed_in(self, node: ir.Call, arguments: Arguments, state: State) -> list[tuple[Session, str]]:
        """The sessions that a call hands in, each with the keyword that it is handed in by."""
        found: dict[Path, tuple[Session, str]] = {}
        for name, value, item in arguments:
            if isinstance(value, Session):
                found[value.identity] = (value, name or "")
            elif name == "**":
                parts = [part for part in ir.expressions(item) if isinstance(part, ir.Name)]
                parts += [ir.Name((kept,)) for part in parts for kept in self._kept_in(part.path)]
                for part in parts:
                    held = state.variables.get(part.path)
                    if isinstance(held, Session):
                        found[held.identity] = (held, part.path[-1])
        return [pair for pair in found.values() if pair[0].identity in state.sessions]

    def _kept_in(self, container: Path) -> list[str]:
        """`kwargs["session"] = session`: the plain names that are stored in a container."""
        return [
            statement.value.path[0]
            for statement in ir.statements(self.function.body)
            if isinstance(statement, ir.Assign)
            and isinstance(statement.value, ir.Name)
            and len(statement.value.path) == 1
            for target in statement.targets
            if isinstance(target, ir.Subscript) and target.base == ir.Name(container)
        ]
