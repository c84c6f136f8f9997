"""Modules and the names they define: the project's symbol table.

Nothing is imported. A dotted name is looked up by the files that could be meant: `app.db` is any file whose
path ends in app/db.py or app/db/__init__.py, which covers src layouts, several roots in one repository and
namespace packages alike; of several the one nearest to the importing file is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Union

from session_lint import ir
from session_lint.ir_queries import is_abstract, is_empty, path_of
from session_lint.project.bodies import Bodies


@dataclass(eq=False)
class Module:
    """One file. path: as shown to the user; name: dotted, from the project's root.

    attributes: what it puts into an object of its own, `app.session = ...`. setters: the functions that give its
    variables their values.
    """

    path: str
    name: str
    is_package: bool
    tree: ir.Module
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    functions: dict[str, ir.Function] = field(default_factory=dict)
    classes: dict[str, ir.Class] = field(default_factory=dict)
    variables: dict[str, ir.Assign] = field(default_factory=dict)
    attributes: dict[str, ir.Assign] = field(default_factory=dict)
    setters: dict[str, ir.Function] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._collect(self.tree.body)

    @property
    def is_short_lived(self) -> bool:
        """Whether it is a test, a migration, an example or a command: most of what those leave ends with them."""
        return self.is_trial or self.is_command

    @property
    def is_trial(self) -> bool:
        """Whether it is a test, a migration or an example: nobody's work is lost with it."""
        folders, last = self._place()
        if any([folder in _TRIALS or folder.endswith("_tests") for folder in folders]):
            return True
        is_named = last in ("migrations", "testing", "tests") or last.startswith(("test_", "conftest"))
        return is_named or last.endswith("_test")

    @property
    def is_command(self) -> bool:
        """Whether it is a command-line program, which gives everything back when it ends, and somebody sees how."""
        folders, last = self._place()
        return last in ("cli", "commands", "manage", "__main__") or not _COMMANDS.isdisjoint(folders)

    def _place(self) -> tuple[list[str], str]:
        """The folders and the name from the project's root: what a file is does not depend on where the linter runs."""
        *folders, last = self.name.lower().split(".")
        return ([*folders, last], "") if self.is_package else (folders, last)

    def _collect(self, body: tuple[ir.Stmt, ...]) -> None:
        for statement in ir.statements(body):
            if isinstance(statement, ir.Import):
                self._import(statement)
            elif isinstance(statement, ir.Define):
                definition = statement.definition
                if isinstance(definition, ir.Function):
                    self.functions[definition.qualname] = definition
                    self._collect_nested(definition)
                else:
                    self.classes[definition.qualname] = definition
                    self._collect_members(definition)
            elif isinstance(statement, ir.Assign):
                self._assign(statement, None)

    def _assign(self, statement: ir.Assign, names: tuple[str, ...] | None, setter: ir.Function | None = None) -> None:
        """A module-level variable; a placeholder such as None gives way to what is assigned later."""
        for target in statement.targets:
            if isinstance(target, ir.Collection) and statement.value is not None:
                for index, part in enumerate(target.items):
                    value = _part(statement.value, index)
                    self._assign(statement._replace(targets=(part,), value=value), names, setter)
            if not isinstance(target, ir.Name) or len(target.path) != 1:
                # What is called otherwise need not have been read wherever it is used.
                path = path_of(target)
                is_made = setter is None and isinstance(statement.value, ir.Call)
                if is_made and len(path) == 2 and "session" in path[1].lower():
                    self.attributes[".".join(path)] = statement
                continue
            name = target.path[0]
            if names is not None and name not in names:
                continue
            known = self.variables.get(name)
            if known is None or (known.value in (None, ir.Constant(None)) and statement.value is not None):
                self.variables[name] = (
                    statement
                    if known is None or known.annotation is None
                    else statement._replace(annotation=known.annotation)
                )
                if setter is not None:
                    self.setters[name] = setter

    def _collect_nested(self, function: ir.Function) -> None:
        """Functions in functions, the imports that functions make, and the globals that they set."""
        global_names: tuple[str, ...] = ()
        for statement in ir.statements(function.body):
            if isinstance(statement, ir.Scope):
                global_names += statement.names
            elif isinstance(statement, ir.Assign) and global_names:
                self._assign(statement, global_names, function)
            if isinstance(statement, ir.Define):
                definition = statement.definition
                if isinstance(definition, ir.Function):
                    self.functions[definition.qualname] = definition
                    self._collect_nested(definition)
                else:
                    self.classes[definition.qualname] = definition
                    self._collect_members(definition)
            elif isinstance(statement, ir.Import):
                self._import(statement)

    def _import(self, statement: ir.Import) -> None:
        for local, dotted in statement.bindings:
            # How Flask's extensions were imported before Flask 1.0.
            name = dotted.replace("flask.ext.", "flask_", 1) if dotted.startswith("flask.ext.") else dotted
            if local == "*":
                self.stars.append(name)
            else:
                self.imports.setdefault(local, name)
                self.targets.append(name)

    def _collect_members(self, definition: ir.Class) -> None:
        for statement in ir.statements(definition.body):
            if isinstance(statement, ir.Define):
                member = statement.definition
                if isinstance(member, ir.Function):
                    self.functions[member.qualname] = member
                    self._collect_nested(member)
                else:
                    self.classes[member.qualname] = member
                    self._collect_members(member)

    def imports_any(self, *packages: str) -> bool:
        """Whether the module imports something of one of the packages."""
        names = [*self.imports.values(), *self.stars]
        return any([name == package or name.startswith(f"{package}.") for name in names for package in packages])


_TRIALS = frozenset(
    "tests test testing versions alembic migrations examples example samples docs docs_src tutorial".split()
)
_COMMANDS = frozenset("scripts cli commands bin sbin".split())


def _part(value: ir.Expr, index: int) -> ir.Expr:
    """What the name at that position gets in `session, engine = ...`."""
    if isinstance(value, ir.Collection) and index < len(value.items):
        return value.items[index]
    return ir.Subscript(value, (ir.Constant(index),))


class FunctionRef(NamedTuple):
    """A function of the project; the same definition is the same reference."""

    module: Module
    function: ir.Function

    def __hash__(self) -> int:
        return id(self.function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionRef) and other.function is self.function


class ClassRef(NamedTuple):
    """A class of the project; the same definition is the same reference."""

    module: Module
    definition: ir.Class

    def __hash__(self) -> int:
        return id(self.definition)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassRef) and other.definition is self.definition


class VariableRef(NamedTuple):
    module: Module
    name: str
    assignment: ir.Assign


class ModuleRef(NamedTuple):
    module: Module


class External(NamedTuple):
    """Something that the project does not define."""

    name: str


Symbol = Union[FunctionRef, ClassRef, VariableRef, ModuleRef, External]  # noqa: UP007 - an alias like the other unions


LIBRARIES = frozenset(
    "sqlalchemy sqlmodel flask_sqlalchemy fastapi starlette flask asyncpg psycopg psycopg2 sqlite3 pymysql".split()
)
"""Packages that a folder of the same name (`contrib/sqlalchemy/orm.py`), or a copy in the tree, does not stand for."""


_SOURCES = ("src", "lib", "python")
"""Folders that hold what Python is to find, and are no part of its name."""


class SymbolTable:
    """All modules of the project, and the question what a name means."""

    def __init__(self, modules: list[Module], files: Iterable[str] = (), packages: Iterable[str] = ()) -> None:
        """files: the dotted names of all files of the project, those that were not read included.

        packages: the names of those that are an `__init__.py`.
        """
        self.modules = modules
        self.bodies = Bodies()
        self._by_last: dict[str, list[tuple[tuple[str, ...], Module]]] = {}
        self._found: dict[tuple[str, str], list[Module]] = {}
        # Asked a hundred thousand times in a large project, with few different questions.
        self._resolved: dict[tuple[int, tuple[str, ...]], Symbol | None] = {}
        self._ancestors: dict[int, list[Symbol]] = {}
        self._methods: dict[tuple[int, str], FunctionRef | None] = {}
        self._methods_by_name: dict[str, list[FunctionRef]] | None = None
        self._heirs: dict[int, list[ClassRef]] | None = None
        self._overrides: dict[tuple[int, int], list[tuple[ClassRef, FunctionRef]]] = {}
        self._files = [tuple(name.split(".")) for name in files]
        self._packages = {tuple(name.split(".")) for name in packages}
        self._folders = {path[:length] for path in self._files for length in range(1, len(path) + 1)}
        self._tops: set[str] | None = None
        for module in modules:
            parts = tuple(module.name.split("."))
            self._by_last.setdefault(parts[-1], []).append((parts, module))

    def function_at(self, path: str, qualname: str) -> ir.Function | None:
        """The function of that name in a file."""
        return next((module.functions.get(qualname) for module in self.modules if module.path == path), None)

    def find_module(self, dotted: str, near: Module) -> Module | None:
        """The file that `import dotted` means, seen from the module `near`."""
        home = near.name if near.is_package else near.name.rpartition(".")[0]
        key = (dotted, home)
        if key not in self._found:
            self._found[key] = self._candidates(tuple(dotted.split(".")), tuple(home.split(".")))
        return next((module for module in self._found[key] if module is not near), None)

    def _candidates(self, parts: tuple[str, ...], home: tuple[str, ...]) -> list[Module]:
        """The files that a dotted name may mean, seen from a package; the likeliest first."""

        def shared(path: tuple[str, ...]) -> int:
            pairs = enumerate(zip(home, path, strict=False))
            return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(home), len(path)))

        found = [pair for pair in self._by_last.get(parts[-1], ()) if pair[0][-len(parts) :] == parts]
        if any([path[: -len(parts)] in self._packages for path, _ in found]) and self._is_top(parts[0], home):
            found = [pair for pair in found if pair[0][: -len(parts)] not in self._packages]
        if len(parts) == 1:
            # A short name such as `utils` or `requests` must not be found in some unrelated corner of the tree.
            found = [pair for pair in found if shared(pair[0]) >= len(pair[0]) - 1]
        return [module for path, module in sorted(found, key=lambda pair: (-shared(pair[0]), len(pair[0])))]

    def _is_top(self, name: str, home: tuple[str, ...]) -> bool:
        """Whether a file or folder of that name lies where Python looks for it: around a package, in no other one.

        Then what lies in a package by the same name is another one: `tests/app/db.py` is not `app.db`.
        """
        roots = [home[:length] for length in range(len(home) + 1)]
        roots += [(*root, source) for root in roots for source in _SOURCES]
        return any([root not in self._packages and (*root, name) in self._folders for root in roots])

    def resolve(self, module: Module, path: tuple[str, ...]) -> Symbol | None:
        """What a dotted path means at module level; None if the module defines no such name."""
        key = (id(module), path)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(module, path, 0)
        return self._resolved[key]

    def _resolve(self, module: Module, path: tuple[str, ...], depth: int) -> Symbol | None:
        if depth > 12:
            return None
        head = path[0]
        for length in range(len(path), 0, -1):
            qualname = ".".join(path[:length])
            if qualname in module.functions:
                return FunctionRef(module, module.functions[qualname]) if length == len(path) else None
            if qualname in module.classes:
                reference = ClassRef(module, module.classes[qualname])
                return reference if length == len(path) else self._member(reference, path[length:], depth)
        if head in module.variables:
            known = module.variables if len(path) == 1 else module.attributes
            name = ".".join(path)
            return VariableRef(module, name, known[name]) if name in known else None
        if head in module.imports:
            return self.resolve_dotted(".".join([module.imports[head], *path[1:]]), module, depth + 1)
        for star in module.stars:
            source = self.find_module(star, module)
            if source is not None and source is not module:
                found = self._resolve(source, path, depth + 1)
                if found is not None:
                    return found
        return None

    def _member(self, reference: ClassRef, path: tuple[str, ...], depth: int) -> Symbol | None:
        return self.method(reference, path[0]) if len(path) == 1 else None

    def resolve_dotted(self, dotted: str, near: Module, depth: int = 0) -> Symbol:
        """What an absolute dotted name means; External if the project does not define it."""
        parts = dotted.split(".")
        if parts[0] in LIBRARIES:
            return External(dotted)
        for length in range(len(parts), 0, -1):
            module = self.find_module(".".join(parts[:length]), near)
            if module is None:
                continue
            if length == len(parts):
                return self._hiding(parts, near, depth) or ModuleRef(module)
            found = self._resolve(module, tuple(parts[length:]), depth + 1)
            if found is not None:
                return found
            break
        return External(dotted)

    def _hiding(self, parts: list[str], near: Module, depth: int) -> Symbol | None:
        """What has the name of a module of a package, because the package says `from .db import db`."""
        package = self.find_module(".".join(parts[:-1]), near) if len(parts) > 1 else None
        if package is None or not package.is_package:
            return None
        name = parts[-1]
        # By its end only: the package may be called by another name than its files lie under.
        target = package.imports.get(name, "").split(".")
        if target[-2:] != [name, name] and not (target == [""] and f"{package.name}.{name}" in package.stars):
            return None
        found = self._resolve(package, (name,), depth + 1)
        return found if not isinstance(found, (External, ModuleRef)) else None

    def is_unread(self, dotted: str) -> bool:
        """Whether an external name belongs to the project after all: to a part of it that was not read."""
        if self._tops is None:
            self._tops = {part for module in self.modules for part in module.name.split(".")[:-1]}
            self._tops.update([path[0] for path in self._files])
        first = dotted.partition(".")[0]
        return first in self._tops and first not in LIBRARIES

    def bases(self, reference: ClassRef) -> list[Symbol]:
        """What a class's bases mean."""
        found = [self._meant(reference.module, base, 0) for base in reference.definition.bases]
        return [symbol for symbol in found if symbol is not None]

    def _meant(self, module: Module, base: ir.Expr | None, depth: int) -> Symbol | None:
        """What a base means, also behind another name: `Rows = Reader[int]`."""
        while isinstance(base, ir.Subscript):
            base = base.base
        found = self.resolve(module, base.path) if isinstance(base, ir.Name) else None
        if isinstance(found, VariableRef) and isinstance(found.assignment.value, (ir.Name, ir.Subscript)) and depth < 4:
            return self._meant(found.module, found.assignment.value, depth + 1) or found
        return found

    def ancestors(self, reference: ClassRef) -> list[Symbol]:
        """The class itself and what it inherits from, nearest first; cycles end."""
        key = id(reference.definition)
        if key not in self._ancestors:
            self._ancestors[key] = list(self._find_ancestors(reference))
        return self._ancestors[key]

    def _find_ancestors(self, reference: ClassRef) -> Iterator[Symbol]:
        queue: list[Symbol] = [reference]
        seen: set[int] = set()
        while queue:
            symbol = queue.pop(0)
            yield symbol
            if isinstance(symbol, ClassRef) and id(symbol.definition) not in seen:
                seen.add(id(symbol.definition))
                queue.extend([base for base in self.bases(symbol) if base != symbol])
            if len(seen) > 40:
                return

    def maps(self, reference: ClassRef, name: str, many: bool = False) -> bool:
        """Whether a class maps an attribute of that name, or any if it is "". many: as a relation."""
        for symbol in self.ancestors(reference):
            if isinstance(symbol, ClassRef):
                definition = symbol.definition
                known = definition.relations if many else definition.columns + definition.relations
                if name in known or (not name and known):
                    return True
        return False

    def heirs(self, reference: ClassRef) -> list[ClassRef]:
        """The classes that inherit from a class, however far."""
        if self._heirs is None:
            self._heirs = {}
            for module in self.modules:
                for definition in module.classes.values():
                    heir = ClassRef(module, definition)
                    for symbol in self.ancestors(heir)[1:] if definition.bases else ():
                        if isinstance(symbol, ClassRef) and symbol != heir:
                            found = self._heirs.setdefault(id(symbol.definition), [])
                            if heir not in found:
                                found.append(heir)
        return self._heirs.get(id(reference.definition), [])

    def overrides(self, reference: ClassRef, method: FunctionRef) -> list[tuple[ClassRef, FunctionRef]]:
        """What a method that says nothing itself is in the class's heirs, each with one class that has it."""
        key = (id(reference.definition), id(method.function))
        if key not in self._overrides:
            found: dict[int, tuple[ClassRef, FunctionRef]] = {}
            # An override that calls what it overrides does not call itself.
            is_its_own = self.method(reference, method.function.name) == method
            for heir in self.heirs(reference) if is_its_own else ():
                own = self.method(heir, method.function.name)
                if own is not None and own != method and not is_abstract(own.function) and not is_empty(own.function):
                    found.setdefault(id(own.function), (heir, own))
            self._overrides[key] = list(found.values())
        return self._overrides[key]

    def method(self, reference: ClassRef, name: str) -> FunctionRef | None:
        """A method by name, through inheritance."""
        key = (id(reference.definition), name)
        if key not in self._methods:
            self._methods[key] = self._find_method(self.ancestors(reference), name)
        return self._methods[key]

    def only_method(self, name: str) -> FunctionRef | None:
        """The method of that name, if only one class of the project says what it does."""
        if self._methods_by_name is None:
            self._methods_by_name = {}
            for module in self.modules:
                for function in module.functions.values():
                    if function.owner and not is_abstract(function) and not is_empty(function):
                        found = self._methods_by_name.setdefault(function.name, [])
                        found.append(FunctionRef(module, function))
        found = self._methods_by_name.get(name, [])
        return found[0] if len(found) == 1 else None

    def inherited_method(self, reference: ClassRef, name: str) -> FunctionRef | None:
        """The method that a class would have if it did not define it itself."""
        return self._find_method(self.ancestors(reference)[1:], name)

    def _find_method(self, classes: Iterable[Symbol], name: str) -> FunctionRef | None:
        for symbol in classes:
            if isinstance(symbol, ClassRef):
                qualname = f"{symbol.definition.qualname}.{name}"
                if qualname in symbol.module.functions:
                    return FunctionRef(symbol.module, symbol.module.functions[qualname])
        return None
