"""What is known of each function: its flow, its contract, what it does as a provider.

Worked out when it is first asked for, and kept. A function that is reached again while it is being worked out
(recursion) is judged there as if nothing were known of it. What was found out on the way to such a place is not kept,
because it would depend on where the way began: whoever asks for it later gets the same answer in every run,
whichever files the run is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.contracts import Contract, contract_of
from session_lint.flow.result import FunctionFlow
from session_lint.flow.values import Const, Registry, Session, Truth, Value
from session_lint.project.bodies import Bodies
from session_lint.project.keywords import flags_in, packed_in
from session_lint.project.modules import FunctionRef
from session_lint.project.provider import UNSEEN, Provider, provider_of

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAX_CHAIN = 40
"""How many functions deep contracts are followed; Python's own stack is the limit behind it."""
_MAX_AGAIN = 2000
"""So many answers are thrown away because of recursion; after that even such ones are kept, so that it ends."""
_MAX_STEPS_AGAIN = 20_000
"""So many statements are interpreted for them: a few functions of thousands of lines would take minutes otherwise."""

_LONG = 40
"""A function of so many statements that works with no session is run once, and not for each caller's constants."""

Constants = tuple[tuple[str, Value], ...]
"""Parameters whose value is known: None, True, False, or that a session is given."""


class Summaries:
    """Runs the interpreter over the project's functions."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._flows: dict[tuple[int, Constants], FunctionFlow] = {}
        self._contracts: dict[tuple[int, Constants], Contract] = {}
        self._providers: dict[tuple[int, Constants], Provider] = {}
        self._decorated: dict[tuple[int, Constants], Contract | None] = {}
        self._deciding: dict[int, frozenset[str]] = {}
        self._keywords: dict[int, dict[str, Const | None]] = {}
        self._running: dict[tuple[int, Constants], int] = {}
        self._reached: list[int] = []
        self._again = 0
        self._steps = 0
        self._steps_again = 0

    def flow(self, reference: FunctionRef, constants: Constants = ()) -> FunctionFlow | None:
        """The function's flow; None while it is being worked out."""
        key = (id(reference.function), constants)
        if key in self._flows:
            return self._flows[key]
        depth = len(self._reached)
        if key in self._running or depth >= _MAX_CHAIN:
            self._depends_on(self._running.get(key, 0))
            return None
        self._running[key] = depth
        self._reached.append(depth)
        try:
            flow = self._run(reference, constants)
        finally:
            del self._running[key]
            lowest = self._reached.pop()
        if lowest < depth:
            self._depends_on(lowest)
            self._again += 1
            self._steps_again += self._steps
        if lowest >= depth or self._again > _MAX_AGAIN or self._steps_again > _MAX_STEPS_AGAIN:
            self._flows[key] = flow
        return flow

    def _depends_on(self, depth: int) -> None:
        if self._reached:
            self._reached[-1] = min(self._reached[-1], depth)

    def _run(self, reference: FunctionRef, constants: Constants) -> FunctionFlow:
        from session_lint.flow.interpreter import Interpreter

        interpreter = Interpreter(self._project, reference)
        try:
            flow = interpreter.run(constants=constants)
            self._steps = interpreter.steps
            return flow
        except RecursionError:
            self._project.notes.append(
                f"{reference.module.path}: {reference.function.qualname} is nested too deeply to be judged"
            )
        except Exception as error:  # noqa: BLE001 - a bug of ours in one function must not cost the rest its findings
            problem = f"{reference.function.qualname}: {type(error).__name__}: {error}"
            self._project.failures.append((reference, problem))
        return FunctionFlow(reference, unresolved=True)

    def contract(self, reference: FunctionRef, constants: Constants = ()) -> Contract | None:
        """The function's contract, with what its decorators do; None if it is not known."""
        bare = self.bare_contract(reference, constants)
        if bare is None or not reference.function.decorators:
            return bare
        key = (id(reference.function), constants)
        if key not in self._decorated:
            self._decorated[key] = None
            self._decorated[key] = self._through_wrappers(reference, constants)
        return self._decorated[key] or bare

    def _through_wrappers(self, reference: FunctionRef, constants: Constants) -> Contract | None:
        """What the outermost wrapper makes of the function; the contract's places are the wrapper's."""
        from session_lint.flow.interpreter import Interpreter

        wrappers = self._project.decorators.wrappers(reference)
        if not wrappers:
            return None
        interpreter = Interpreter(self._project, wrappers[0])
        interpreter.decorated = reference
        interpreter.decorated_with = constants
        own = {parameter.name for parameter in wrappers[0].function.parameters}
        return contract_of(interpreter.run(constants=tuple([item for item in constants if item[0] in own])))

    def bare_contract(self, reference: FunctionRef, constants: Constants = ()) -> Contract | None:
        """The function's contract as if it were not decorated."""
        key = (id(reference.function), constants)
        if key not in self._contracts:
            flow = self.flow(reference, constants)
            if flow is None or flow.unresolved:
                return None
            contract = contract_of(flow)
            if key not in self._flows:
                return contract
            self._contracts[key] = contract
        return self._contracts[key]

    def provider(self, reference: FunctionRef, constants: Constants = ()) -> Provider:
        """What a session generator does at its end."""
        key = (id(reference.function), constants)
        if key not in self._providers:
            flow = self.flow(reference, constants)
            if flow is None or key not in self._flows:
                return UNSEEN if flow is None else provider_of(flow)
            self._providers[key] = provider_of(flow)
        return self._providers[key]

    # -------------------------------------------------------------------------------------------- constants

    def constants(self, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]) -> Constants:
        """Those of a call's arguments that are known and that decide what the function does."""
        given = dict(bindings)
        found: dict[str, Value] = {}
        wrappers = self._project.decorators.wrappers(reference)[:1] if reference.function.decorators else ()
        for asked in (reference, *wrappers):
            deciding = self._decides(asked)
            for parameter in asked.function.parameters if deciding else ():
                if parameter.name not in deciding:
                    continue
                value = given[parameter.name] if parameter.name in given else _default(parameter)
                if isinstance(value, Const):
                    found.setdefault(parameter.name, value)
                elif isinstance(value, (Session, Registry)) and (_default(parameter) or _is_optional(parameter)):
                    found.setdefault(parameter.name, Truth(True))
        is_open = packed_in(reference.function) in given
        for keyword, default in self.flags(reference).items():
            value = given.get(keyword, None if is_open else default)
            if isinstance(value, Const):
                found.setdefault(keyword, value)
        return () if found and self._is_idle(reference, found) else tuple(found.items())

    def _is_idle(self, reference: FunctionRef, constants: dict[str, Value]) -> bool:
        """Whether a long function works with no session, so that it is not worth knowing what decides in it."""
        function = reference.function
        if len(self._project.table.bodies.statements(function.body)) < _LONG:
            return False
        if not all([isinstance(value, Const) for value in constants.values()]):
            return False  # It is given a session.
        flow = self.flow(reference)
        if flow is None or (id(function), ()) not in self._flows:
            return False
        return not (flow.sessions or flow.events or flow.calls or flow.changes)

    def flags(self, reference: FunctionRef) -> dict[str, Const | None]:
        """The keywords that the function takes out of its `**kwargs` to decide something, with their defaults."""
        key = id(reference.function)
        if key not in self._keywords:
            bodies = self._project.table.bodies
            tests = list(_tests(bodies, reference.function)) if packed_in(reference.function) else []
            self._keywords[key] = flags_in(bodies, reference.function, tests)
        return self._keywords[key]

    def _decides(self, reference: FunctionRef) -> frozenset[str]:
        """The parameters that the function's conditions ask for, and flags that it hands on to others."""
        key = id(reference.function)
        if key not in self._deciding:
            bodies, function = self._project.table.bodies, reference.function
            asked = {name for test in _tests(bodies, function) for name in _plain_names(ir.expressions(test))}
            handed = [argument.value for call in bodies.calls(function.body) for argument in call.arguments]
            flags = {item.name for item in function.parameters if _default(item) not in (None, Const(None))}
            found = asked.intersection([item.name for item in function.parameters])
            self._deciding[key] = frozenset(found | flags.intersection(_plain_names(handed)))
        return self._deciding[key]


def _default(parameter: ir.Parameter) -> Const | None:
    default = parameter.default
    if isinstance(default, ir.Constant) and (default.value is None or isinstance(default.value, bool)):
        return Const(default.value)
    return None


def _is_optional(parameter: ir.Parameter) -> bool:
    """`Optional[X]`, `X | None`"""
    annotation = parameter.annotation
    parts = list(ir.expressions(annotation)) if annotation is not None else []
    return any(
        [part == ir.Constant(None) or (isinstance(part, ir.Name) and part.path[-1] == "Optional") for part in parts]
    )


def _tests(bodies: Bodies, function: ir.Function) -> Iterator[ir.Expr]:
    """What the function's conditions ask."""
    for statement, nodes in bodies.parts(function.body):
        if isinstance(statement, (ir.If, ir.While)):
            yield statement.test
        for part in nodes:
            if isinstance(part, ir.Conditional):
                yield part.test
            elif isinstance(part, ir.Boolean):
                yield part


def _plain_names(nodes: Iterable[ir.Expr]) -> set[str]:
    return {node.path[0] for node in nodes if isinstance(node, ir.Name) and len(node.path) == 1}
