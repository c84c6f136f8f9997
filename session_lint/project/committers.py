"""Which functions commit, and which of those run around others without being called by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.result import COMMITTED
from session_lint.ir_queries import last_name, uncalled
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_OF_REQUESTS = frozenset(
    "after_request after_app_request after_this_request teardown_request teardown_app_request dispatch_request "
    "full_dispatch_request finalize_request wsgi_app".split()
)
"""Flask's hooks and methods that know nothing of the jobs of a worker."""
_HOOKS = frozenset(
    "after_request after_app_request after_this_request teardown_request teardown_app_request teardown_appcontext "
    "connect connect_via".split()
)
_AROUND = frozenset(
    "dispatch_request full_dispatch_request finalize_request wsgi_app __call__ __exit__ on_success after_return "
    "process dispatch".split()
)
_SETTING = "SQLALCHEMY_COMMIT_ON_TEARDOWN"


class Committers:
    """Answers for the whole project. Worked out when first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._names: frozenset[str] | None = None
        self._around: dict[frozenset[str], bool] = {}
        self._route_classes: bool | None = None

    def commits(self, reference: FunctionRef) -> bool:
        """Whether the function, or what it calls, commits anything, as far as that can be seen."""
        flow = self._project.flow(reference)
        return flow is not None and (
            flow.unresolved
            or any([event.kind == COMMITTED for event in flow.events])
            or any([session.commits for way in flow.exits for session in way.state.sessions.values()])
        )

    def named(self, name: str) -> bool:
        """Whether a function of that name commits something, one that may be called by others."""
        if self._names is None:
            entries = self._project.entry_points
            self._names = frozenset(
                flow.reference.function.name
                for flow in self._project.all_flows()
                if self.commits(flow.reference) and entries.of(flow.reference) is None
            )
        return name in self._names

    def around(self, is_job: bool) -> bool:
        """Whether a hook, a base class or a setting commits what requests leave behind, or what jobs do."""
        names = (_HOOKS | _AROUND) - (_OF_REQUESTS if is_job else frozenset())
        if names not in self._around:
            self._around[names] = any(
                [self._is_around(flow.reference, names) for flow in self._project.all_flows()]
            ) or any(self._mentions(part, names) for part in self._expressions())
        return self._around[names]

    def has_route_classes(self) -> bool:
        """Whether what runs around FastAPI routes is of the project's own making, and may commit for them."""
        if self._route_classes is None:
            self._route_classes = any(
                isinstance(part, ir.Call) and any([argument.name == "route_class" for argument in part.arguments])
                for part in self._expressions()
            )
        return self._route_classes

    def _is_around(self, reference: FunctionRef, names: frozenset[str]) -> bool:
        function = reference.function
        called = [uncalled(item) for item in function.decorators]
        hooked = any([last_name(item) in names & _HOOKS for item in called])
        return (hooked or (bool(function.owner) and function.name in names & _AROUND)) and self.commits(reference)

    def _mentions(self, part: ir.Expr, names: frozenset[str]) -> bool:
        """`app.after_request(finish)`, and the setting by which old Flask-SQLAlchemy commits."""
        if isinstance(part, ir.Constant):
            return part.value == _SETTING
        if isinstance(part, ir.Name):
            return part.path[-1] == _SETTING
        if isinstance(part, ir.Call) and last_name(part.function) in names & _HOOKS:
            return any([self.named(last_name(argument.value)) for argument in part.arguments])
        return False

    def _expressions(self) -> list[ir.Expr]:
        bodies = self._project.table.bodies
        return [
            part
            for module in self._project.table.modules
            for body in (module.tree.body, *[function.body for function in module.functions.values()])
            for part in bodies.expressions(body)
        ]
