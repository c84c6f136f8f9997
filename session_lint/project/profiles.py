"""Frameworks that make and finish sessions for the code that uses them: what cannot be read off the project itself.

What is known of each stands in a file of its own in `session_lint/profiles`:

packages: it counts in projects that import one of them. commits: the framework commits when the code returns. why: who
finishes the session, in words that fit into a message. And where its sessions are:

attributes: dotted paths that hold one, by their last parts (`request.db`). managers: context managers that hand one
out, by the last parts of their dotted names. handlers: decorators of functions that are called with one. contexts:
decorators of functions that are called with an object that has one in its members. classes: base classes, of which the
framework always calls the finishers (methods). sessions: scoped sessions of its own, by their dotted names. generators:
decorators of generators, and functions that are given one, which go on behind their yield whatever has happened.
gives_error: the value of the yield is the error then. scopes: methods of an application, of which the with block ends
its sessions.

A project names its own functions and context managers in its settings (`providers`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path as File
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.values import ExternalValue, Function, Path, Value
from session_lint.ir_queries import last_name, path_of, uncalled
from session_lint.project.modules import ClassRef, External, FunctionRef, Module, VariableRef

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from session_lint.project.link import Project

_DIRECTORY = File(__file__).resolve().parent.parent / "profiles"


class Profile(NamedTuple):
    """One framework; see above."""

    name: str
    packages: tuple[str, ...]
    commits: bool
    why: str
    attributes: tuple[Path, ...] = ()
    managers: tuple[Path, ...] = ()
    handlers: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    finishers: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()
    gives_error: bool = False
    scopes: tuple[str, ...] = ()


@cache
def known_profiles() -> tuple[Profile, ...]:
    """All of `session_lint/profiles`, by name."""
    return tuple([_read(file) for file in sorted(_DIRECTORY.glob("*.toml"))])


def _read(file: File) -> Profile:
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    for key in ("attributes", "managers"):
        table[key] = tuple([tuple(dotted.split(".")) for dotted in table.get(key, ())])
    for key in "packages handlers contexts members classes finishers sessions generators scopes".split():
        table[key] = tuple(table.get(key, ()))
    return Profile(name=file.stem, **table)


class Profiles:
    """The frameworks that the project uses."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._used: tuple[Profile, ...] | None = None
        self._providers = frozenset(project.settings.providers)
        self._resumed: dict[int, Profile] | None = None

    @property
    def used(self) -> tuple[Profile, ...]:
        if self._used is None:
            self._used = tuple([item for item in known_profiles() if self._project.imports(*item.packages)])
        return self._used

    def named(self, name: str) -> Profile:
        """The profile of that name. Raises KeyError."""
        return {profile.name: profile for profile in known_profiles()}[name]

    def of_attribute(self, reference: FunctionRef, path: Path) -> Profile | None:
        """The framework that has put a session there, for the function."""
        for profile in self.used:
            if _ends_with_one(path, profile.attributes):
                return profile
            if path[-1] in profile.members and path[:-1] == (_first_parameter(reference.function),):
                decorators = [self._decorator(reference.module, item) for item in reference.function.decorators]
                if any([_is_below(dotted, profile.contexts) for dotted in decorators]):
                    return profile
        return None

    def is_manager(self, module: Module, called: ir.Expr) -> bool:
        """Whether calling it gives a context manager that hands out a session and finishes it."""
        path = path_of(called)
        if not path:
            return False
        if any([_ends_with_one(path, profile.managers) for profile in self.used]):
            return True
        return bool(self._providers) and self._is_named(self._dotted(module, called))

    def ending(self, entered: ir.Expr) -> tuple[str, ...]:
        """The frameworks of which the sessions end with the with block: `with app.app_context():`."""
        if not isinstance(entered, ir.Call) or not self.used:
            return ()
        last = last_name(entered.function)
        return tuple([profile.name for profile in self.used if last in profile.scopes])

    def is_provider(self, reference: FunctionRef) -> bool:
        """Whether the settings say that the function hands out sessions which it finishes."""
        return bool(self._providers) and self._is_named(f"{reference.module.name}.{reference.function.qualname}")

    def is_dependency(self, provider: Value) -> bool:
        """Whether the settings say so of something that the project does not define."""
        return isinstance(provider, ExternalValue) and provider.name in self._providers

    def _is_named(self, dotted: str) -> bool:
        return any([dotted == name or dotted.endswith(f".{name}") for name in self._providers])

    def of_handler(self, reference: FunctionRef) -> Profile | None:
        """The framework that calls a function with a session, which it finishes itself."""
        for decorator in reference.function.decorators if self.used else ():
            dotted = self._decorator(reference.module, decorator)
            for profile in self.used:
                if dotted in profile.handlers:
                    return profile
        return None

    def of_generator(self, reference: FunctionRef) -> Profile | None:
        """The framework that goes on with a generator when its user has failed, and raises nothing at the yield."""
        names = {name: profile for profile in self.used for name in profile.generators}
        if not names or not reference.function.is_generator:
            return None
        for decorator in reference.function.decorators:
            if (profile := names.get(self._decorator(reference.module, decorator))) is not None:
                return profile
        if self._resumed is None:
            self._resumed = dict(self._given_to(names))
        return self._resumed.get(id(reference.function))

    def _given_to(self, names: dict[str, Profile]) -> Iterator[tuple[int, Profile]]:
        """The functions of the project that are given to one of some others: `provider.provide(get_session)`."""
        words = {name.rpartition(".")[2] for name in names}
        bodies = self._project.table.bodies
        for module in self._project.table.modules:
            members = [part for each in module.classes.values() for part in bodies.expressions(each.body)]
            for part in [*self._project.expressions(module), *members]:
                if isinstance(part, ir.Call) and part.arguments and last_name(part.function) in words:
                    given = self._project.statics.expression(module, part.arguments[0].value)
                    profile = names.get(self._decorator(module, part))
                    if isinstance(given, Function) and profile is not None:
                        yield id(given.reference.function), profile

    def of_object(self, reference: FunctionRef, attribute: str) -> Profile | None:
        """The framework that always calls a method of the function's class that ends the session in an attribute."""
        definition = reference.module.classes.get(reference.function.owner or "")
        if definition is None:
            return None
        owner = ClassRef(reference.module, definition)
        bases = [base.name for base in self._project.table.ancestors(owner) if isinstance(base, External)]
        for profile in self.used:
            if any([base in profile.classes for base in bases]):
                methods = [self._project.table.method(owner, name) for name in profile.finishers]
                if any([method is not None and self._ends(method, attribute) for method in methods]):
                    return profile
        return None

    def _ends(self, method: FunctionRef, attribute: str) -> bool:
        me = method.function.parameters[0].name if method.function.parameters else "self"
        return self._project.statics.ends(method, (me, attribute))

    def _decorator(self, module: Module, decorator: ir.Expr) -> str:
        """Its dotted name. What a variable holds that somebody else's function has made is called after that."""
        called = uncalled(decorator)
        path = path_of(called)
        for length in range(1, len(path)):
            symbol = self._project.table.resolve(module, path[:length])
            if isinstance(symbol, VariableRef) and isinstance(symbol.assignment.value, ir.Call):
                maker = self._dotted(symbol.module, symbol.assignment.value.function)
                return ".".join([f"{maker}()", *path[length:]])
        return self._dotted(module, called)

    def _dotted(self, module: Module, called: ir.Expr) -> str:
        value = self._project.statics.expression(module, called)
        if isinstance(value, ExternalValue):
            return value.name
        if isinstance(value, Function):
            return f"{value.reference.module.name}.{value.reference.function.qualname}"
        return ".".join(path_of(called))


def _ends_with_one(path: Path, endings: tuple[Path, ...]) -> bool:
    return any([path[-len(ending) :] == ending for ending in endings])


def _is_below(dotted: str, names: tuple[str, ...]) -> bool:
    """Whether it is one of the names, or an attribute of one (`writer.independent`)."""
    return any([dotted == name or dotted.startswith(f"{name}.") for name in names])


def _first_parameter(function: ir.Function) -> str:
    """The name of the first parameter that callers give."""
    names = [parameter.name for parameter in function.parameters if parameter.name not in ("self", "cls")]
    return names[0] if names else ""
