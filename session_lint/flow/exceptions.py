"""Exceptions: where they are raised and caught, and what `finally` does on every way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import errors
from session_lint.flow.errors import Error
from session_lint.flow.evaluation import Evaluation
from session_lint.flow.outcome import Outcome, Raises
from session_lint.flow.state import BROKEN, FAILED, SUSPECT, Mark, State, States
from session_lint.flow.values import Path, Truth
from session_lint.ir_queries import path_of
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project


class Exceptions(Evaluation):
    """Runs the statements of one function that raise and catch."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int = 0) -> None:
        super().__init__(project, reference, depth)
        self._current_errors: list[Error] = []
        self._error_names: list[str] = []

    def run_raise(self, node: ir.Raise, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            if node.exception is None:
                for error in self._current_errors[-1:] or [Error(errors.ANY, node.place, "raise")]:
                    outcome.raises.add(state, error)
                continue
            for after, _ in self.evaluate(node.exception, state, outcome, "raised", calm=True):
                outcome.raises.add(after, self._raised(node))
        return outcome

    def _raised(self, node: ir.Raise) -> Error:
        exception = node.exception
        while isinstance(exception, ir.Call):
            exception = exception.function
        if isinstance(exception, ir.Name):
            if self._current_errors and self._error_names[-1:] == [exception.path[-1]]:
                return self._current_errors[-1]
            name = self.dotted(exception.path)
            if name.rpartition(".")[2][:1].isupper():
                return Error(name, node.place, f"raise {exception.path[-1]}")
        return Error(errors.ANY, node.place, "raise")

    def raises_again(self, node: ir.With) -> bool:
        """`with excutils.save_and_reraise_exception():` in a handler: the end of the block raises (oslo.utils)."""
        if not self._current_errors or len(node.items) != 1 or node.items[0].target is not None:
            return False
        call = node.items[0].value
        if not isinstance(call, ir.Call) or call.arguments:
            return False
        return path_of(call.function)[-1:] == ("save_and_reraise_exception",)

    def run_try(self, node: ir.Try, states: States) -> Outcome:
        result = Outcome()
        body = Outcome()
        with self.inside("try", node):
            self.run_block(node.body, states, body)
        result.breaks.update(body.breaks)
        result.continues.update(body.continues)
        result.returns.update(body.returns)
        with self.inside("else", node):
            self.run_block(node.orelse, body.normal, result)
        self._handle(node, body.raises, result)
        return self._finally(node, result) if node.final else result

    def _handle(self, node: ir.Try, raises: Raises, result: Outcome) -> None:
        """Send what the body raised to the handlers that may catch it."""
        waiting: dict[tuple[str, bool], list[tuple[State, Error]]] = {}
        for state, error in raises:
            waiting.setdefault((error.kind, error.by_yield), []).append((state, error))
        for pairs in waiting.values():
            error = pairs[0][1]
            for handler in node.handlers:
                types = self.exception_types(handler.type)
                verdict = errors.caught(error.kind, types, self.project.lineage)
                if verdict == "never":
                    continue
                expected = any([errors.is_conflict_type(name) for name in types])
                taken = pairs
                if (
                    verdict == "maybe"
                    and error.kind == errors.ANY
                    and not any([errors.is_database_type(n) or self.project.means_failure(n) for n in types])
                ):
                    # `except ValueError`: what broke the session was no ValueError.
                    taken = [pair for pair in pairs if not _is_broken(pair[0])]
                self._run_handler(node, handler, taken, error, expected, result)
                if verdict == "always":
                    break
            else:
                rare = error.kind in (errors.DATABASE, errors.REFUSED) and self._handles_conflicts(node)
                for state, uncaught in pairs:
                    result.raises.add(_less_likely(state) if rare else state, uncaught)

    def _handles_conflicts(self, node: ir.Try) -> bool:
        """Whether what writes usually fail with is caught: a lost connection is all that is left."""
        types = [self.exception_types(handler.type) for handler in node.handlers]
        return any([errors.caught(errors.INTEGRITY, names, self.project.lineage) == "always" for names in types])

    def _run_handler(
        self,
        node: ir.Try,
        handler: ir.Handler,
        pairs: list[tuple[State, Error]],
        error: Error,
        expected: bool,
        result: Outcome,
    ) -> None:
        states = States()
        named: Path = (handler.name,) if handler.name and self._is_kept(handler) else ()
        for state, caught in pairs:
            after = self._swallow(state, caught, node, handler, expected)
            states.add(after.bind(named, Truth(True, caught.kind)) if named else after)
        inner = Outcome()
        self._current_errors.append(error)
        self._error_names.append(handler.name or "")
        with self.inside("except", handler):
            self.run_block(handler.body, states, inner)
        self._error_names.pop()
        self._current_errors.pop()
        if named:
            inner.forget(named)  # Python does so, too
        result.update(inner)

    def _is_kept(self, handler: ir.Handler) -> bool:
        """Whether a handler gives its error another name: `failed = error`, which somebody may ask for later."""
        wanted = ir.Name((handler.name or "",))
        statements = self.project.table.bodies.statements(handler.body)
        return any([isinstance(item, ir.Assign) and item.value == wanted for item in statements])

    def _swallow(self, state: State, error: Error, node: ir.Try, handler: ir.Handler, expected: bool) -> State:
        """Remember who caught a session's failure; an author who expects database errors proves they happen."""
        for identity, session in state.sessions.items():
            if session.transaction in BROKEN:
                earlier = session.witness.swallowed
                if earlier is not None and not ir.within(earlier.place, node.place):
                    continue  # Somebody else has swallowed it before; this error is another one.
                if expected and session.transaction == "suspect" and session.witness.failed is not None:
                    session = session._replace(transaction="failed")
                self.has_failed |= session.transaction == FAILED
                label = "the error is caught here" if handler.place != ir.NOWHERE else "the error is caught"
                state = state.set(identity, session.mark(swallowed=Mark(handler.place, label)))
        if error.by_yield:
            state = state.throw()
        return state

    def _finally(self, node: ir.Try, result: Outcome) -> Outcome:
        """Run the finally block on every way out; it may replace the way out by its own."""
        final = Outcome()

        def run(states: Iterable[State]) -> States:
            block = Outcome()
            self.run_block(node.final, States(states), block)
            final.jumps(block)
            return block.normal

        final.normal.update(run(result.normal))
        final.breaks.update(run(result.breaks))
        final.continues.update(run(result.continues))
        for value, place, group in result.returns.groups():
            for state in run(group):
                final.returns.add(state, value, place)
        for error, group in result.raises.groups():
            self._current_errors.append(error)
            failing, self.failing = self.failing, True
            for state in run(group):
                final.raises.add(state, error)
            self.failing = failing
            self._current_errors.pop()
        return final


def _less_likely(state: State) -> State:
    for identity, session in state.sessions.items():
        if session.transaction == FAILED:
            state = state.set(identity, session._replace(transaction=SUSPECT))
    return state


def _is_broken(state: State) -> bool:
    return any([session.transaction in BROKEN for session in state.sessions.values()])
