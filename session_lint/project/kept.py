"""Sessions that live as long as the process, and whether more than one request, job or thread works with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import result, tasks
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.values import Opened, Path
from session_lint.ir_queries import path_of
from session_lint.project.entry_points import LOOP, MESSAGE, REQUEST, Entry
from session_lint.project.lifetimes import APPLICATIONS
from session_lint.project.modules import ClassRef, FunctionRef, Module

if TYPE_CHECKING:
    from session_lint.project.link import Project

_CONCURRENT = (REQUEST, tasks.JOB, tasks.TASK)


class Kept(NamedTuple):
    """A session that is kept. what: what keeps it. users: the functions that work with it, by the path they use.

    entries: where they are called from. confidence: that several requests or jobs share it to their harm. takes_turns:
    one after the other, so that nothing but what fails harms them.
    """

    name: str
    what: str
    place: ir.Place
    is_async: bool
    certainty: Confidence
    users: tuple[tuple[FunctionRef, Path], ...]
    entries: tuple[Entry, ...]
    confidence: Confidence
    takes_turns: bool = False


class KeptSessions:
    """Finds the sessions that modules, classes and applications keep. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._found: dict[int, list[Kept]] = {}
        self._shared: dict[Path, list[tuple[FunctionRef, Path]]] | None = None

    def of(self, module: Module) -> list[Kept]:
        """What a module defines."""
        if id(module) not in self._found:
            self._found[id(module)] = [
                *self._of_variables(module),
                *self._of_classes(module),
                *self._of_applications(module),
                *self._of_defaults(module),
            ]
        return self._found[id(module)]

    def is_shared(self, flow: FunctionFlow, info: SessionInfo) -> bool:
        """Whether the session is one that requests or jobs share: then its keeper is to be told, once."""
        name = info.identity[-1]
        if info.origin == result.SHARED and len(info.identity) == 3:
            modules = [module for module in self._project.table.modules if module.name == info.identity[1]]
        else:
            modules = [flow.reference.module]
        return any(
            [
                kept.name == name and kept.confidence is not Confidence.POSSIBLE
                for module in modules
                for kept in self.of(module)
            ]
        )

    # ---------------------------------------------------------------------------------------------- keepers

    def _of_variables(self, module: Module) -> Iterator[Kept]:
        for name, assignment in module.variables.items():
            value = self._project.statics.name(module, (name,))
            if isinstance(value, Opened) and value.type.role == "session":
                users = self._sharing().get(("~", module.name, name), [])
                yield from self._kept(name, "the module", assignment.place, value, users)

    def _sharing(self) -> dict[Path, list[tuple[FunctionRef, Path]]]:
        """Who works with which module's session."""
        if self._shared is None:
            self._shared = {}
            for flow in self._project.all_flows():
                for info in flow.sessions.values():
                    if info.origin == result.SHARED:
                        self._shared.setdefault(info.identity, []).append((flow.reference, (info.name,)))
        return self._shared

    def _of_classes(self, module: Module) -> Iterator[Kept]:
        for definition in module.classes.values():
            reference = ClassRef(module, definition)
            self._project.statics.fields.of(reference)
            for name, how in self._project.statics.fields.kept.get(id(definition), {}).items():
                if how == "instance" and not self._project.lifetimes.outlives_calls(reference):
                    continue
                what = f"the class {definition.name}" if how == "class" else f"the one {definition.name} of the process"
                place, value = self.opening(reference, name)
                if value is not None:
                    yield from self._kept(name, what, place, value, list(self._users_of(reference, name)))

    def _users_of(self, reference: ClassRef, name: str) -> Iterator[tuple[FunctionRef, Path]]:
        """The functions that work with the attribute: methods, and others of the module by the class's name."""
        module, definition = reference
        for function in module.functions.values():
            is_method = function.owner == definition.qualname and bool(function.parameters)
            path = (function.parameters[0].name if is_method else definition.name, name)
            if function.name != "__init__" and path in self._project.statics.usage(FunctionRef(module, function)):
                yield FunctionRef(module, function), path

    def opening(self, reference: ClassRef, name: str) -> tuple[ir.Place, Opened | None]:
        """Where a class opens the session of an attribute."""
        module, definition = reference
        for function in (None, *[each for each in module.functions.values() if each.owner == definition.qualname]):
            around = FunctionRef(module, function) if function is not None else None
            local = self._project.statics.results.locals(around) if around is not None else None
            for statement in ir.statements(function.body if function is not None else definition.body):
                if isinstance(statement, ir.Assign) and any([path_of(t)[-1:] == (name,) for t in statement.targets]):
                    value = self._project.statics.expression(module, statement.value, local)
                    if isinstance(value, Opened) and value.type.role == "session":
                        return statement.place, value
        return definition.place, None

    def _of_applications(self, module: Module) -> Iterator[Kept]:
        """`app.state.db = Session(engine)`."""
        bodies: list[tuple[FunctionRef | None, tuple[ir.Stmt, ...]]] = [(None, module.tree.body)]
        bodies += [(reference, reference.function.body) for reference in self._project.functions(module)]
        for around, body in bodies:
            for statement in self._project.table.bodies.statements(body):
                path = path_of(statement.targets[0]) if isinstance(statement, ir.Assign) else ()
                if not isinstance(statement, ir.Assign) or len(path) < 3 or path[-2] != "state":
                    continue
                if path[-3] not in APPLICATIONS:
                    continue
                local = self._project.statics.results.locals(around) if around is not None else None
                value = self._project.statics.expression(module, statement.value, local)
                if isinstance(value, Opened) and value.type.role == "session":
                    users = [user for user in self._reading(path[-3:]) if around is None or user[0] != around]
                    yield from self._kept(path[-1], "the application", statement.place, value, users)

    def _of_defaults(self, module: Module) -> Iterator[Kept]:
        """`def save(item, session=new_session()):` makes one session, when the function is defined."""
        for reference in self._project.functions(module):
            for parameter in reference.function.parameters:
                default = parameter.default
                value = self._project.statics.expression(module, default) if isinstance(default, ir.Call) else None
                if not isinstance(default, ir.Call) or not isinstance(value, Opened) or value.type.role != "session":
                    continue
                what = f"the default of a parameter of {reference.function.name}"
                users: list[tuple[FunctionRef, Path]] = [(reference, (parameter.name,))]
                for kept in self._kept(parameter.name, what, default.place, value, users):
                    # Whoever calls it without a session works with that one.
                    yield kept._replace(confidence=Confidence.LIKELY)

    def _reading(self, path: Path) -> Iterator[tuple[FunctionRef, Path]]:
        """The functions that mention `request.app.state.db`."""
        for module in self._project.table.modules:
            for reference in self._project.functions(module):
                for node in self._project.table.bodies.expressions(reference.function.body):
                    if isinstance(node, ir.Name) and path in (node.path[-3:], node.path[-4:-1]):
                        yield reference, node.path
                        break

    # -------------------------------------------------------------------------------------------- judgement

    def _kept(
        self, name: str, what: str, place: ir.Place, value: Opened, users: list[tuple[FunctionRef, Path]]
    ) -> Iterator[Kept]:
        if not users:
            return
        entries = self._project.entry_points.reaching([reference for reference, _ in users])
        turns = not value.type.is_async and all(map(_is_in_event_loop, entries))
        confidence = Confidence.POSSIBLE if turns and self._is_cleaned(users) else self._confidence(entries, users)
        is_async, certainty = value.type.is_async, value.type.certainty
        yield Kept(name, what, place, is_async, certainty, tuple(users), tuple(entries), confidence, turns)

    def _confidence(self, entries: list[Entry], users: list[tuple[FunctionRef, Path]]) -> Confidence:
        """Tornado's handlers and a queue's jobs take turns: then a rollback at the right place is enough."""
        takes_turns = self._project.imports("tornado")
        concurrent = [entry for entry in entries if entry.kind in _CONCURRENT]
        if concurrent and not (takes_turns and all([entry.kind == REQUEST for entry in concurrent])):
            return Confidence.LIKELY
        threads = [entry for entry in entries if entry.kind == tasks.THREAD]
        if len(threads) > 1:
            return Confidence.LIKELY
        serving = [entry for entry in entries if entry.kind not in (tasks.THREAD, LOOP)]
        return Confidence.LIKELY if serving and not self._is_cleaned(users) else Confidence.POSSIBLE

    def _is_cleaned(self, users: list[tuple[FunctionRef, Path]]) -> bool:
        """Whether some user ends the session's transaction, whenever that may be."""
        return any([self._project.statics.ends(reference, path) for reference, path in users])


def _is_in_event_loop(entry: Entry) -> bool:
    """An event, a task or a loop of a bot: with a session that is never awaited, they take turns."""
    return entry.reference.function.is_async and entry.kind in (MESSAGE, tasks.TASK, LOOP)
