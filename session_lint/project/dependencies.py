"""FastAPI dependencies: what runs before a function, with the very session that it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.values import Borrowed, ClassValue, Dependency, Function, Instance, Path, Registry, Value
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAX_DEPTH = 8


class Dependencies:
    """Reads the `Depends()` of the project. Uses are worked out when they are first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._used: dict[int, list[tuple[FunctionRef, Path, Dependency]]] | None = None
        self._behind: dict[tuple[int, str], FunctionRef | None] = {}

    def of(self, reference: FunctionRef) -> Iterator[tuple[Path, Dependency]]:
        """The parameters of a function that are filled by dependencies."""
        for parameter in reference.function.parameters:
            _, dependency = self._project.parameter(reference, parameter)
            if dependency is not None:
                yield (parameter.name,), dependency

    def before(self, reference: FunctionRef, depth: int = 0) -> Iterator[FunctionRef]:
        """The functions that FastAPI runs before this one for the same request: its dependencies and theirs."""
        if depth > _MAX_DEPTH:
            return
        for dependency in [*self._of_decorators(reference), *[found for _, found in self.of(reference)]]:
            function = self.function(dependency.provider)
            if function is not None and function != reference:
                yield from self.before(function, depth + 1)
                yield function

    def given(self, reference: FunctionRef, dependency: Dependency) -> Path | None:
        """The parameter that holds what this dependency gives everybody in the request."""
        return next((path for path, found in self.of(reference) if found == dependency and found.cached), None)

    def session_behind(self, reference: FunctionRef, name: str) -> FunctionRef | None:
        """The dependency that provides the session of an object which a parameter holds: `Depends(get_service)`.

        None if that can't be told, or there are several.
        """
        key = (id(reference.function), name)
        if key not in self._behind:
            self._behind[key] = self._find_behind(reference, name)
        return self._behind[key]

    def _find_behind(self, reference: FunctionRef, name: str) -> FunctionRef | None:
        made = [self.function(dependency.provider) for path, dependency in self.of(reference) if path == (name,)]
        maker = made[0] if made else None
        if maker is None or maker.function.is_generator:
            return None
        results = self._project.statics.results
        generators = {each for each in self.before(maker) if each.function.is_generator}
        found = [each for each in generators if isinstance(results.yielded(each), (Borrowed, Registry))]
        return found[0] if len(found) == 1 else None

    def users(self, provider: FunctionRef) -> list[tuple[FunctionRef, Path, Dependency]]:
        """The functions that depend on a provider directly, by which parameter, and how they say so."""
        if self._used is None:
            self._used = {}
            for module in self._project.table.modules:
                for reference in self._project.functions(module):
                    for path, dependency in self.of(reference):
                        function = self.function(dependency.provider)
                        if function is not None:
                            self._used.setdefault(id(function.function), []).append((reference, path, dependency))
        return self._used.get(id(provider.function), [])

    def _of_decorators(self, reference: FunctionRef) -> Iterator[Dependency]:
        """`@router.get("/", dependencies=[Depends(check)])`."""
        for decorator in reference.function.decorators:
            for argument in decorator.arguments if isinstance(decorator, ir.Call) else ():
                if argument.name == "dependencies" and isinstance(argument.value, ir.Collection):
                    for item in argument.value.items:
                        value = self._project.statics.expression(reference.module, item)
                        if isinstance(value, Dependency):
                            yield value

    def function(self, provider: Value) -> FunctionRef | None:
        """What FastAPI calls for `Depends(provider)`."""
        if isinstance(provider, Function):
            return provider.reference
        if isinstance(provider, Instance):
            return self._project.table.method(provider.reference, "__call__")
        if isinstance(provider, ClassValue):
            return self._project.table.method(provider.reference, "__init__")
        return None
