"""Where a function begins: what its parameters hold."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import result
from session_lint.flow.effects import Effects
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import (
    SessionState,
    State,
)
from session_lint.flow.values import (
    Borrowed,
    ClassValue,
    Const,
    Dependency,
    Instance,
    Path,
    Session,
)
from session_lint.ir_queries import decorator_name
from session_lint.project import shapes
from session_lint.project.modules import ClassRef


def entry_states(function: Effects, begun: int = 0) -> list[State]:
    """What the parameters hold when the function is entered.

    begun: 1 if the sessions that it is handed are in a begin() block.
    """
    statics = function.project.statics
    state = State({}, {})
    optional: Path | None = None
    usage = statics.usage(function.flow.reference)
    for index, parameter in enumerate(function.function.parameters):
        path = (parameter.name,)
        if index == 0 and function.function.owner and function.function.owner in function.module.classes:
            if not any([decorator_name(decorator) == "staticmethod" for decorator in function.function.decorators]):
                owner = ClassRef(function.module, function.module.classes[function.function.owner])
                is_class = any(
                    [decorator_name(decorator) == "classmethod" for decorator in function.function.decorators]
                )
                state = state.bind(path, ClassValue(owner) if is_class else Instance(owner, path, ()))
                continue
        value, dependency = function.project.parameter(function.flow.reference, parameter)
        if value is None and parameter.kind in ("positional", "keyword") and not _is_foreign_type(parameter):
            kind = shapes.recognise(parameter.name, usage.get(path), statics.uses_sqlalchemy(function.module))
            value = Borrowed(kind) if kind else function.project.passed_on(function.flow.reference, parameter)
        if isinstance(value, Borrowed):
            state = _session_parameter(function, path, value, dependency, state, begun)
            if parameter.default == ir.Constant(None) and not function.project.is_injected(
                function.flow.reference, parameter
            ):
                optional = path
        elif value is not None:
            state = state.bind(path, value if not isinstance(value, Instance) else value._replace(path=path))
    if optional is None:
        return [state]
    return [state, state.bind(optional, Const(None))]


def _session_parameter(
    function: Effects, path: Path, value: Borrowed, dependency: Dependency | None, state: State, begun: int
) -> State:
    origin, provider = result.PARAMETER, None
    if dependency is not None:
        origin = result.INJECTED
        provider = function.project.provider_of(dependency.provider)
        if provider is not None:
            begun = function.project.provider(provider).begun
    info = SessionInfo(path, path[-1], origin, value.type, function.function.place, provider)
    entry = SessionState(begun=begun)
    return function.track(info, entry, state).bind(path, Session(path))


def _is_foreign_type(parameter: ir.Parameter) -> bool:
    """Whether the parameter is declared as something that can't be a session."""
    annotation = parameter.annotation
    while isinstance(annotation, ir.Subscript):
        annotation = annotation.items[0] if annotation.items else annotation.base
    if not isinstance(annotation, ir.Name):
        return False
    last = annotation.path[-1]
    return not last.lower().endswith(("session", "connection", "any", "object", "db"))
