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
    Instance,
    Path,
    Session,
    SessionClass,
    Truth,
    Value,
)
from session_lint.ir_queries import decorator_name
from session_lint.project import shapes
from session_lint.project.modules import ClassRef, FunctionRef

LEAVING = ("__exit__", "__aexit__")
"""What `with` calls last: of a class that derives from Session, its object is the session, and nobody ends it later."""


def entry_states(interpreter: Effects, begun: int, constants: dict[str, Value]) -> list[State]:
    """What the parameters hold when the function is entered.

    begun: 1 if the sessions that it is handed are in a begin() block. constants: what is known of parameters.
    """
    statics = interpreter.project.statics
    state = State({}, {})
    optional: Path | None = None
    usage = statics.usage(interpreter.flow.reference)
    prefixes = {used[:1] for used in usage} | _passed(interpreter.project.table.bodies.calls(interpreter.function.body))
    injected = interpreter.project.decorators.injected(interpreter.flow.reference)
    decorators = [decorator_name(decorator) for decorator in interpreter.function.decorators]
    for index, parameter in enumerate(interpreter.function.parameters):
        path = (parameter.name,)
        owner = interpreter.module.classes.get(interpreter.function.owner or "") if index == 0 else None
        if owner is not None and "staticmethod" not in decorators:
            me = ClassRef(interpreter.module, owner)
            if interpreter.function.name in LEAVING:
                mine = statics.class_value(me)
                if isinstance(mine, SessionClass):
                    state = _session_parameter(interpreter, path, Borrowed(mine.type), False, None, state, begun)
                    continue
            state = state.bind(path, ClassValue(me) if "classmethod" in decorators else Instance(me, path, ()))
            continue
        value, dependency = interpreter.project.parameter(interpreter.flow.reference, parameter)
        if value is None and parameter.kind in ("positional", "keyword") and not _is_foreign_type(parameter):
            kind = shapes.recognise(parameter.name, usage.get(path), statics.uses_sqlalchemy(interpreter.module))
            value = Borrowed(kind) if kind else interpreter.project.passed_on(interpreter.flow.reference, parameter)
            if value is None and path in prefixes:
                value = statics.call_sites.given(interpreter.flow.reference, parameter.name)
        if isinstance(value, Borrowed):
            provider = injected.get(parameter.name)
            if dependency is not None:
                provider = interpreter.project.provider_of(dependency.provider)
            is_injected = dependency is not None or provider is not None
            state = _session_parameter(interpreter, path, value, is_injected, provider, state, begun)
            may_be_none = parameter.default == ir.Constant(None) or constants.get(parameter.name) == Const(None)
            if may_be_none and parameter.name not in injected:
                optional = path
        elif isinstance(constants.get(parameter.name), Const):
            state = state.bind(path, constants[parameter.name])
        elif value is not None:
            state = state.bind(path, value if not isinstance(value, Instance) else value._replace(path=path))
    packed = interpreter.packed
    for keyword, value in constants.items() if packed else ():
        if keyword not in [parameter.name for parameter in interpreter.function.parameters]:
            state = state.bind((packed, keyword), value)
    known = constants.get(optional[0]) if optional is not None else None
    if optional is None or isinstance(known, Truth):
        return [state]
    if known == Const(None):
        return [state.bind(optional, known)]
    return [state, state.bind(optional, Const(None))]


def _passed(calls: list[ir.Call]) -> set[Path]:
    """The plain names that the calls hand to others."""
    return {argument.value.path for call in calls for argument in call.arguments if isinstance(argument.value, ir.Name)}


def _session_parameter(
    interpreter: Effects,
    path: Path,
    value: Borrowed,
    is_injected: bool,
    provider: FunctionRef | None,
    state: State,
    begun: int,
) -> State:
    if provider is not None:
        begun = interpreter.project.provider(provider).begun
    origin = result.INJECTED if is_injected else result.PARAMETER
    info = SessionInfo(path, path[-1], origin, value.type, interpreter.function.place, provider)
    entry = SessionState(begun=begun)
    return interpreter.track(info, entry, state).bind(path, Session(path))


def _is_foreign_type(parameter: ir.Parameter) -> bool:
    """Whether the parameter is declared as something that can't be a session."""
    annotation = parameter.annotation
    while isinstance(annotation, ir.Subscript):
        annotation = annotation.items[0] if annotation.items else annotation.base
    if not isinstance(annotation, ir.Name):
        return False
    last = annotation.path[-1]
    return not last.lower().endswith(("session", "connection", "any", "object", "db"))
