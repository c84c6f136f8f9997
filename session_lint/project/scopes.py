"""Who ends the scopes of scoped sessions, and for whom: what ends a request knows nothing of a worker's jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.values import Extension, Path, Registry, Value
from session_lint.ir_queries import decorator_name, last_name, words
from session_lint.project import shapes
from session_lint.project.entry_points import MESSAGE, REQUEST, Entry
from session_lint.project.modules import FunctionRef, Module

if TYPE_CHECKING:
    from session_lint.project.link import Project

_ANY: Path = ()

_TEARDOWNS = frozenset(
    "teardown_appcontext teardown_request teardown_app_request after_request after_app_request".split()
)
"""Hooks that end every request, so that what is closed there is as good as removed."""

_ENDS = frozenset("request_tearing_down appcontext_tearing_down request_finished".split())
"""Flask's signals of the same. What else a function may be connected to says nothing of requests."""

_TRANSACTION_HOOK = "TransactionHook"
"""Pecan's: it is given five functions, and calls the last one, `clear`, at the end of every request."""
_CLEAR = 4

_AFTER_TASKS = frozenset("task_postrun task_success task_failure".split())
"""Celery's signals: they call what is connected to them after its own tasks, and after nothing else."""

_HOOKS = _TEARDOWNS | frozenset(
    "teardown_websocket before_request before_app_request middleware add_middleware exception_handler errorhandler "
    "on_event add_event_handler listener".split()
)
"""What the functions that they decorate, or are given, are called for: requests, or the end of the application."""


_GIVING_CONTEXTS = (
    "flask_celery flask_celeryext flask_rq flask_rq2 flask_executor flask_dramatiq flask_crontab flask_huey "
    "flask_socketio"
).split()
"""Packages that run their jobs in an application context."""


class _Ending(NamedTuple):
    """A place where the session of a scope is removed. registry: _ANY if it is not known which one."""

    registry: Path
    module: Module
    function: ir.Function | None
    in_hook: bool


class Scopes:
    """Finds where scoped sessions are removed, and who can't be helped by that. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._removals: list[_Ending] | None = None
        self._contexts: list[FunctionRef] | None = None
        self._begun: frozenset[str] | None = None
        self._connected: dict[int, set[str]] | None = None
        self._left: dict[Path, dict[int, Entry]] = {}

    def is_removed(self, registry: Path) -> bool:
        """Whether somebody removes the session of a registry (its identity), wherever and whenever that may be."""
        return bool(self._endings(registry))

    def is_removed_by_hook(self, registry: Path, but: ir.Function) -> bool:
        """Whether a hook of requests or tasks, other than that function, removes the session of a registry."""
        others = [ending for ending in self._endings(registry) if ending.function is not but]
        return any(
            [
                ending.in_hook or (ending.function is not None and self._is_after_tasks(ending.function))
                for ending in others
            ]
        )

    def jobs(self, registry: Path, is_framework: bool) -> dict[int, Entry]:
        """The functions that run in jobs of a queue or a scheduler after which nobody removes the session.

        By the functions' identities; each with the job that it runs in. is_framework: the end of an application
        context removes it.
        """
        if registry not in self._left:
            is_left = not is_framework or self.has_endless_context() or self.needs_no_context(registry)
            self._left[registry] = self._judge(registry) if is_left else {}
        return self._left[registry]

    def _judge(self, registry: Path) -> dict[int, Entry]:
        entries = [
            entry
            for entry in self._project.entry_points.all()
            if entry.kind == MESSAGE and not entry.reference.module.is_short_lived
        ]
        if not entries:
            return {}
        places = [
            FunctionRef(ending.module, ending.function) if ending.function is not None else None
            for ending in self._endings(registry)
            if not ending.in_hook and not ending.module.is_short_lived
        ]
        helped: set[int] = set()
        for place in [*places, *self._ending_contexts()]:
            callers = self._project.entry_points.reaching([place]) if place is not None else []
            if place is not None and self._is_after_tasks(place.function):
                callers = [entry for entry in entries if not self._project.entry_points.is_served(entry.reference)]
            elif not callers:
                return {}  # Somebody who is not seen calls it, whenever that may be.
            helped |= {id(caller.reference.function) for caller in callers}
        left = [entry for entry in entries if id(entry.reference.function) not in helped]
        return self._project.entry_points.reached(left)

    # ------------------------------------------------------------------------------------------------ removals

    def _endings(self, registry: Path) -> list[_Ending]:
        if self._removals is None:
            self._removals = list(self._find())
        return [ending for ending in self._removals if ending.registry in (_ANY, registry, registry[-1:])]

    def _find(self) -> Iterator[_Ending]:
        for module in self._project.table.modules:
            for registry, in_hook in self._removed(module, None, module.tree.body):
                yield _Ending(registry, module, None, in_hook)
            for function in module.functions.values():
                removed = list(self._removed(module, function, function.body))
                is_hook = bool(removed) and self._is_hook(module, function)
                for registry, in_hook in removed:
                    yield _Ending(registry, module, function, in_hook or is_hook)

    def _removed(
        self, module: Module, function: ir.Function | None, body: tuple[ir.Stmt, ...]
    ) -> Iterator[tuple[Path, bool]]:
        """What is removed, or handed on to be removed, and whether it is handed to a hook of requests."""
        given = {
            argument.value
            for call in self._project.table.bodies.calls(body)
            if words(call.function).rpartition(".")[2] in _HOOKS
            for argument in call.arguments
        }
        called = {call.function for call in self._project.table.bodies.calls(body)}
        decorators = function.decorators if function is not None else ()
        is_teardown = any([decorator_name(decorator) in _TEARDOWNS for decorator in decorators])
        is_around_task = function is not None and _is_around_task(module, function)
        is_teardown = is_teardown or is_around_task or (function is not None and bool(self._signals_of(function)))
        perhaps = {
            id(part)  # `if error: session.rollback()` leaves what was only read.
            for statement in self._project.table.bodies.statements(body)
            if is_teardown and isinstance(statement, ir.If)
            for part in ir.expressions((*statement.body, *statement.orelse))
        }
        for node in self._project.table.bodies.expressions(body):
            if isinstance(node, ir.Lambda):
                for registry, _ in self._removed(module, function, node.function.body):
                    yield registry, node in given
            elif isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute):
                # `get_session().remove()`: of a list it would say what to remove.
                if node.function.name == "remove" and not node.arguments:
                    yield _ANY, False
            elif isinstance(node, ir.Name) and len(node.path) > 1:
                owner, method = node.path[-2:]
                # `Session.remove(); Session.configure(bind=engine)` is how a program starts.
                if method == "remove" and ir.Name((*node.path[:-1], "configure")) not in called:
                    yield self._named(module, function, node.path[:-1]), node in given
                elif is_teardown and (method == "close" or (method == "rollback" and id(node) not in perhaps)):
                    is_hook = function is None or not (is_around_task or self._is_after_tasks(function))
                    yield self._named(module, function, node.path[:-1]), is_hook
                elif method == "clear" and owner == "registry":
                    yield _ANY, False

    def _named(self, module: Module, function: ir.Function | None, path: Path) -> Path:
        """The registry of that name; _ANY if it may be a session that is not known."""
        local = self._project.statics.results.locals(FunctionRef(module, function)) if function is not None else None
        value: Value = self._project.statics.expression(module, ir.Name(path), local)
        if isinstance(value, Extension):
            value = value.session
        if isinstance(value, Registry) and not value.is_unnamed:
            return value.identity
        is_session = shapes.named_like_session(path[-1]) or "session" in path[-1].lower()
        return _ANY if is_session else path[-1:]

    def _is_hook(self, module: Module, function: ir.Function) -> bool:
        """Whether a function is called at the end of a request or of the application, and for nothing else."""
        if any([decorator_name(decorator) in _HOOKS for decorator in function.decorators]):
            return True
        definition = module.classes.get(function.owner or "")
        kinds = [definition.name, *map(last_name, definition.bases)] if definition is not None else []
        if any(["middleware" in kind.lower() for kind in kinds]):
            return True
        callers = self._project.entry_points.reaching([FunctionRef(module, function)])
        return bool(callers) and all([caller.kind == REQUEST for caller in callers])

    def _is_after_tasks(self, function: ir.Function) -> bool:
        """`@task_postrun.connect`, `task_postrun.connect(clean_up)`."""
        if any([words(decorator).startswith("task_postrun.connect") for decorator in function.decorators]):
            return True
        return not _AFTER_TASKS.isdisjoint(self._signals_of(function))

    def _signals_of(self, function: ir.Function) -> set[str]:
        """The ends that a function is registered for by a call: `request_tearing_down.connect(clean_up)`."""
        if self._connected is None:
            self._connected = {}
            for module in self._project.table.modules:
                for body in (module.tree.body, *[each.body for each in module.functions.values()]):
                    for call in self._project.table.bodies.calls(body):
                        *_, signal, method = ("", *words(call.function).split("."))
                        if method == "connect" and signal in _ENDS | _AFTER_TASKS:
                            self._connect(module, signal, call.arguments)
                        elif method == _TRANSACTION_HOOK:
                            self._connect(module, method, call.arguments[_CLEAR:])
        return self._connected.get(id(function), set())

    def _connect(self, module: Module, signal: str, arguments: Sequence[ir.Argument]) -> None:
        assert self._connected is not None
        for argument in arguments:
            path = argument.value.path if isinstance(argument.value, ir.Name) else ()
            symbol = self._project.table.resolve(module, path) if path else None
            if isinstance(symbol, FunctionRef):
                self._connected.setdefault(id(symbol.function), set()).add(signal)

    # ------------------------------------------------------------------------------------------------ contexts

    def _ending_contexts(self) -> list[FunctionRef]:
        """The functions that do somebody's work in an application context: its end is the end of its sessions."""
        if self._contexts is None:
            self._contexts = [
                FunctionRef(module, function)
                for module in self._project.table.modules
                if not module.is_short_lived
                for function in module.functions.values()
                if any([is_context(statement) for statement in self._project.table.bodies.statements(function.body)])
                and self._does_work(module, function)
            ]
        return self._contexts

    def has_endless_context(self) -> bool:
        """Whether an application context is begun by hand, `app.app_context().push()`, and so never ends."""
        return any([begun.endswith(".push") for begun in self._contexts_begun()])

    def needs_no_context(self, registry: Path) -> bool:
        """Whether jobs work with the session of a Flask-SQLAlchemy that is made for one application, in no context.

        `db = SQLAlchemy(app)` of old works outside of one, too, and nothing ends a session there.
        """
        begun = [name.removesuffix("().push") for name in self._contexts_begun()]
        if len(registry) != 3 or any([name.endswith(("app_context", "request_context")) for name in begun]):
            return False
        if self._project.imports(*_GIVING_CONTEXTS):
            return False
        for module in self._project.table.modules:
            if module.name == registry[0] and registry[1] in module.variables:
                made = module.variables[registry[1]].value
                return isinstance(made, ir.Call) and any([each.name in (None, "app") for each in made.arguments])
        return False

    def _contexts_begun(self) -> frozenset[str]:
        """How contexts are begun by hand, in the words of the code."""
        if self._begun is None:
            called = [
                words(part.function)
                for module in self._project.table.modules
                if not module.is_short_lived
                for part in self._project.expressions(module)
                if isinstance(part, ir.Call)
            ]
            self._begun = frozenset([name for name in called if name.removesuffix("().push").endswith("context")])
        return self._begun

    def _does_work(self, module: Module, function: ir.Function) -> bool:
        """Whether the work in the context is a job's: `create_app()` needs a context, too, to make its tables."""
        if function.name == "__call__" or function.is_generator:
            return True
        if "." in function.qualname and not function.owner:
            return True  # a wrapper of a decorator
        return bool(self._project.entry_points.reaching([FunctionRef(module, function)]))


def _is_around_task(module: Module, function: ir.Function) -> bool:
    """Whether it is what a class of Celery tasks does around each of them."""
    definition = module.classes.get(function.owner or "")
    is_task = definition is not None and any([last_name(base) == "Task" for base in definition.bases])
    return is_task and function.name in ("__call__", "after_return")


def is_context(statement: ir.Stmt) -> bool:
    """`with app.app_context()`: the end of the context is the end of its sessions."""
    return isinstance(statement, ir.With) and any(
        [words(item.value).removesuffix("()").endswith("context") for item in statement.items]
    )
