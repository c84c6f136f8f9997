"""Calls: what is called, with what, and which layer knows what that does."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.decorated_calls import DecoratedCalls
from session_lint.flow.objects import fetched
from session_lint.flow.outcome import Outcome
from session_lint.flow.state import (
    Pairs,
    State,
    States,
    distinct,
)
from session_lint.flow.values import (
    JOINED,
    OBJECT,
    Answer,
    Arguments,
    Borrowed,
    ClassValue,
    Closure,
    ConnectionOf,
    Const,
    Coroutine,
    Decorated,
    Engine,
    ExternalValue,
    Factory,
    Function,
    Generator,
    Instance,
    Lender,
    Loaded,
    Manager,
    Method,
    ModelQuery,
    Opened,
    Query,
    Registry,
    Session,
    SessionClass,
    Transaction,
    Value,
    opened_with,
)
from session_lint.ir_queries import (
    begins_nothing,
    call_place,
    call_text,
    last_name,
    path_of,
)
from session_lint.project.keywords import keyword_of

_ENTERING = ("enter_context", "enter_async_context")
"""What an ExitStack does with a context manager, whoever has made the stack."""


class Calls(DecoratedCalls):
    """Evaluates the callee and the arguments of a call, and leaves the rest to the layer that knows the callee."""

    def evaluate(
        self, node: ir.Expr | None, state: State, outcome: Outcome, purpose: str = "", calm: bool = False
    ) -> Pairs:
        """Evaluate an expression: the states after it and its value in each."""
        raise NotImplementedError

    def enter_value(
        self, value: Value, state: State, place: ir.Place, name: str, outcome: Outcome
    ) -> tuple[State, Value]:
        """Enter a context manager outside a with statement."""
        raise NotImplementedError

    def call(self, node: ir.Call, state: State, outcome: Outcome, purpose: str, calm: bool) -> Pairs:
        given = state.variables.get((self.packed, keyword_of(node, self.packed))) if self.packed else None
        if given is not None:
            return [(state, given)]
        if isinstance(node.function, ir.Name) and node.function.path[1:][-1:] == ("set_isolation_level",):
            state = self.committing_each(node.function.path[:-1], state)
        pairs: Pairs = []
        for after, callee in self._callee(node.function, state, outcome, purpose):
            for ready, arguments in self._arguments(node, after, outcome, calm):
                if self.has_failed:
                    self.note_call(node, ready)
                pairs += self._apply(callee, node, arguments, ready, outcome, purpose, calm)
        return distinct(pairs)

    def _callee(self, node: ir.Expr, state: State, outcome: Outcome, purpose: str) -> Pairs:
        if isinstance(node, ir.Name):
            if len(node.path) == 1:
                return [(state, self.lookup(node.path, state))]
            owner = self.lookup(node.path[:-1], state)
            if owner is None and node.path not in state.variables:
                state, owner = self.shaped_attribute(node.path[:-1], state)
                if owner is None:
                    state, owner = self.kept_transaction(node.path[:-1], state)
                if owner is None:
                    return [(state, self.lookup(node.path, state))]
            if isinstance(owner, Coroutine) and node.path[-1] not in ops.OF_COROUTINES:
                self.not_awaited(owner, state)
                return [(state, None)]
            if isinstance(owner, (Borrowed, Opened, Registry, ModelQuery)) and not (
                isinstance(owner, Registry) and node.path[-1] == "configure"
            ):
                origin = self.origin_of(node.path[:-1])
                place = self.statement.place if self.statement is not None else ir.NOWHERE
                state, owner = self.materialise(owner, state, node.path[:-1], place, origin)
            if node.path in state.variables:
                return [(state, state.variables[node.path])]
            if isinstance(owner, Loaded):
                return [(state, Method(owner, node.path[-1]))]
            return [(state, self.attribute(owner, node.path[-1], node.path))]
        if isinstance(node, ir.Attribute):
            pairs: Pairs = []
            for after, base in self.evaluate(node.base, state, outcome, "attribute"):
                if isinstance(base, Coroutine) and node.name not in ops.OF_COROUTINES:
                    self.not_awaited(base, after)
                    base = None
                if isinstance(base, (Registry, ModelQuery)):
                    after, base = self.materialise(base, after, (), call_place(node), result.AMBIENT)
                if isinstance(base, Session) and isinstance(node.base, ir.Call) and after.sessions[base.identity].owned:
                    self.note_temporary(node, base, after, purpose)
                method = Method(base, node.name) if isinstance(base, Loaded) else self.attribute(base, node.name, ())
                pairs.append((after, method))
            return pairs
        return self.evaluate(node, state, outcome, "called")

    def _arguments(self, node: ir.Call, state: State, outcome: Outcome, calm: bool) -> list[tuple[State, Arguments]]:
        pairs: list[tuple[State, Arguments]] = [(state, ())]
        for name, node_of_value in node.arguments:
            pairs = [
                (after, (*known, (name, value, node_of_value)))
                for before, known in pairs
                for after, value in self.evaluate(node_of_value, before, outcome, "item", calm)
            ]
            if len(pairs) > 1:
                unique = {
                    (after.key, tuple([value for _, value, _ in known])): (after, known) for after, known in pairs
                }
                pairs = list(unique.values())[: States.LIMIT]
        return pairs

    def _apply(
        self,
        callee: Value,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
        calm: bool,
    ) -> Pairs:
        if (callee is None or isinstance(callee, ExternalValue)) and last_name(node.function) in _ENTERING:
            return [self._onto_stack(arguments, node, state, outcome)]
        if callee is None:
            method = self.only_method(node, arguments, state)
            if method is not None:
                return self.project_function(method, node, arguments, state, outcome, purpose)
            if self._passes_on(node):
                return self.decorated_call(Decorated(call_text(node)), node, arguments, state, outcome, purpose)
            return self.foreign_call(None, node, arguments, state, outcome, purpose, calm)
        if isinstance(callee, Method):
            if isinstance(callee.owner, Loaded):
                own = self._of_model(callee.owner, callee.name)
                if own is not None:
                    return self.project_function(own, node, arguments, state, outcome, purpose)
                pairs = self._apply(None, node, arguments, state, outcome, purpose, calm)
                given = fetched(callee.owner, callee.name)
                return [(after, given if value is None else value) for after, value in pairs]
            return self._method(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, SessionClass) and callee.is_alias:
            return [(state, arguments[0][1] if arguments else None)]
        if isinstance(callee, (SessionClass, Factory)):
            kind = opened_with(callee.type, [value for _, value, _ in arguments], begins_nothing(node))
            if self.joins_connection(arguments):
                kind = kind._replace(commits=JOINED)
            state, identity = self.open(kind, node.place, state, call_text(node))
            return [(state, Session(identity))]
        if isinstance(callee, Lender):
            return [(state, callee.manager)]
        if isinstance(callee, Registry):
            path = node.function.path if isinstance(node.function, ir.Name) else ()
            return [self.materialise(callee, state, path, node.place, result.AMBIENT)]
        if isinstance(callee, Function):
            state = self.lend_captured(arguments, state)
            return self.project_function(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, Decorated):
            return self.decorated_call(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, Closure):
            return self.nested_function(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, ClassValue):
            return [(state, self.construct(callee.reference, arguments))]
        called = self.project.statics.attribute(callee, "__call__") if isinstance(callee, Instance) else None
        if isinstance(called, Function):
            return self.project_function(called, node, arguments, state, outcome, purpose)
        return self.foreign_call(callee, node, arguments, state, outcome, purpose, calm)

    def _of_model(self, owner: Loaded, name: str) -> Function | None:
        """`user.rename(name)`: the method of a mapped object's class."""
        if owner.model is None or owner.kind != OBJECT:
            return None
        found = self.project.statics.attribute(Instance(owner.model, (), (), owner), name)
        return found if isinstance(found, Function) else None

    def _passes_on(self, node: ir.Call) -> bool:
        """`function(*args, **kwargs)` of a parameter: the function is called for somebody else."""
        if not isinstance(node.function, ir.Name) or len(node.function.path) != 1 or not node.arguments:
            return False
        kinds = {parameter.name: parameter.kind for parameter in self.function.parameters}
        return kinds.get(node.function.path[0]) == "positional" and any(
            [
                argument.name in ("*", "**") and isinstance(argument.value, ir.Name) and argument.value.path[0] in kinds
                for argument in node.arguments
            ]
        )

    def _method(
        self, callee: Method, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        owner, name = callee
        if isinstance(owner, Session):
            return self.session_method(owner, name, node, arguments, state, outcome, purpose)
        if isinstance(owner, Transaction):
            return self.transaction_method(owner, name, node, state, outcome)
        if isinstance(owner, ConnectionOf):
            if ops.SESSION_METHODS.get(name) != ops.EXECUTE:
                return [(state, None)]
            return self.session_method(Session(owner.identity), name, node, arguments, state, outcome, purpose)
        if isinstance(owner, Answer):
            key = node.arguments[0].value if name == "get" and node.arguments else None
            return [(state, _asked(owner, key, arguments))]
        if isinstance(owner, Query):
            return self.query_method(owner, name, node, state, outcome)
        if isinstance(owner, Engine):
            return self.engine_method(owner, name, node, state, outcome)
        if isinstance(owner, Factory):
            if name == "begin":
                return [(state, Manager("open begin", Opened(owner.type), place=node.place))]
            if name == "configure" and self.joins_connection(arguments):
                joined = Factory(owner.type._replace(commits=JOINED))
                return [(state.bind(path_of(node.function)[:-1], joined), None)]
            return [(state, None)]
        if isinstance(owner, Generator):
            return self.generator_method(owner, name, node, state, outcome)
        if isinstance(owner, Manager) and owner.kind == "stack" and name in _ENTERING:
            return [self._onto_stack(arguments, node, state, outcome)]
        for _, value, _ in arguments:
            state = self.hand_over(value, state)
        return [(state, None)]

    def _onto_stack(self, arguments: Arguments, node: ir.Call, state: State, outcome: Outcome) -> tuple[State, Value]:
        """`stack.enter_context(session)`: whoever has the stack leaves what is entered on it."""
        value = arguments[0][1] if arguments else None
        state, bound = self.enter_value(value, state, node.place, call_text(node), outcome)
        return self.hand_over(bound, state), bound


def _asked(answer: Answer, key: ir.Expr | None, arguments: Arguments) -> Value:
    """`answer.get(key, default)`."""
    if not isinstance(key, ir.Constant) or not isinstance(key.value, str):
        return None
    if answer.holds(key.value) is not False:
        return answer.part(key.value)
    return arguments[1][1] if len(arguments) > 1 else Const(None)
