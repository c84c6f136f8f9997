"""A part of SES201: a class opens a session for each of its objects, and nobody closes it."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks._leaks import confidence_of
from session_lint.checks.context import Context, step_at
from session_lint.findings import Confidence, Finding, Step
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import OPEN, Mark
from session_lint.ir_queries import me_of, path_of
from session_lint.project import lifetimes
from session_lint.project.modules import ClassRef, FunctionRef

_ENDING = frozenset(
    "close aclose __exit__ __aexit__ __del__ stop shutdown dispose cleanup clean_up finish teardown tearDown on_finish "
    "disconnect release end remove".split()
)
"""Methods by which an object is told that it is not needed any more."""


def held_findings(context: Context) -> Iterator[Finding]:
    """One finding per attribute."""
    for definition in context.module.classes.values():
        reference = ClassRef(context.module, definition)
        context.project.statics.fields.of(reference)
        for name, how in context.project.statics.fields.kept.get(id(definition), {}).items():
            if how == "instance":
                yield from _held(context, reference, name)


def _held(context: Context, reference: ClassRef, name: str) -> Iterator[Finding]:
    place, opened = context.project.kept.opening(reference, name)
    making = context.project.table.method(reference, "__init__")
    if opened is None or making is None or making.module is not context.module:
        return
    flow = context.project.flow(making)
    info = flow.sessions.get((me_of(making.function), name)) if flow is not None else None
    if context.project.parking.is_closed_under(name) or _ends(context, reference):
        return
    if context.project.lifetimes.outlives_calls(reference):
        return  # SES208 tells about it
    user = next(_users(context, reference, name), None)
    maker = next(_makers(context, reference, _handed_in(making.function, name)), None)
    if flow is None or user is None or maker is None:
        return
    message = (
        f"every {reference.definition.name} opens a session in {name} and nobody closes it: {user[0].name} leaves its "
        f"connection checked out; give the class a method that closes it and call that in `finally`, or hand the "
        f"session in"
    )
    known = info or next((each for each in flow.sessions.values() if each.origin == result.LOCAL), None)
    confidence = confidence_of(flow, known) if known is not None else opened.type.certainty
    trail: list[Mark | Step | None] = [Mark(place, "it is opened here"), user[1], maker]
    yield context.finding(flow, place, message, confidence.at_most(Confidence.LIKELY), trail)


def _ends(context: Context, reference: ClassRef) -> bool:
    """Whether the class, or one that it inherits from, has a method for the end of its objects."""
    return any([context.project.table.method(reference, name) is not None for name in _ENDING])


def _users(context: Context, reference: ClassRef, name: str) -> Iterator[tuple[FunctionFlow, Mark]]:
    """The methods that return with the session in a transaction."""
    module, definition = reference
    for function in module.functions.values():
        if function.owner != definition.qualname or function.name == "__init__":
            continue
        flow = context.project.flow(FunctionRef(module, function))
        for way in flow.exits if flow is not None else ():
            session = way.state.sessions.get((me_of(function), name))
            if flow is not None and way.error is None and session is not None and session.transaction == OPEN:
                yield flow, session.witness.used or Mark(function.place, f"{flow.name} uses it here")


def _makers(context: Context, reference: ClassRef, handed_in: dict[str, int]) -> Iterator[Step]:
    """Where an object is made that does not outlive the call, and opens its session itself."""
    for making in context.project.lifetimes.makings(reference):
        if making.life == lifetimes.CALL and not _is_given(making.given, handed_in):
            yield step_at(making.module, making.place, f"{making.maker} makes one here")


def _handed_in(constructor: ir.Function, name: str) -> dict[str, int]:
    """The parameters that the attribute is filled with instead, by their positions: `session or new_session()`."""
    values = [
        statement.value
        for statement in ir.statements(constructor.body)
        if isinstance(statement, ir.Assign) and (me_of(constructor), name) in map(path_of, statement.targets)
    ]
    parts: list[ir.Expr | None] = []
    for value in values:
        parts.append(value)
        if isinstance(value, ir.Boolean):
            parts += [value.left, value.right]
        elif isinstance(value, ir.Conditional):
            parts += [value.then, value.other]
    paths = {part.path for part in parts if isinstance(part, ir.Name)}
    return {
        parameter.name: position
        for position, parameter in enumerate(constructor.parameters[1:])
        if (parameter.name,) in paths
    }


def _is_given(arguments: tuple[ir.Argument, ...], handed_in: dict[str, int]) -> bool:
    """Whether whoever makes the object hands the session in."""
    return any(
        [
            argument.value != ir.Constant(None)
            and (argument.name in handed_in or (argument.name is None and position in handed_in.values()))
            for position, argument in enumerate(arguments)
        ]
    )
