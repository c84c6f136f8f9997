"""Sessions that other packages make or keep: `from company.extensions import db`, `flask.g.db`.

What such a name stands for is said nowhere in the project. It is a scoped session, or Flask-SQLAlchemy's `db`, if what
all functions that import it do with it, taken together, only these can do. What a framework keeps for the code that
serves one request is what some function has put there.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import Borrowed, Extension, Opened, Path, Registry
from session_lint.project import shapes
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import External, FunctionRef, Module, VariableRef
from session_lint.project.profiles import known_profiles
from session_lint.project.shapes import Usage

if TYPE_CHECKING:
    from session_lint.project.statics import Statics

_REGISTRY = re.compile(r"^(db|((db|current|scoped|sqla?|orm)?_?session))$", re.IGNORECASE)
_EXTENSION = frozenset({"db", "database", "sa", "sql", "sqlalchemy"})
_APPLICATION = "flask.current_app"
_REQUEST = "flask.g"
KEEPERS = (_REQUEST, "quart.g", "bottle.request", "cherrypy.request", "web.ctx")
"""Objects that are another one for each request, and keep what they are given."""

Known = Registry | Extension | None


class Outside:
    """What names of other packages hold. Worked out when first asked for, and kept."""

    def __init__(self, statics: Statics) -> None:
        self._statics = statics
        self._known: dict[str, Known] = {
            name: Registry(tuple(name.rsplit(".", 1)), False, profile.name)
            for profile in known_profiles()
            for name in profile.sessions
        }
        self._importers: dict[str, list[tuple[Module, str]]] | None = None

    def of(self, dotted: str) -> Known:
        """The scoped session or extension of that dotted name, which the project does not define."""
        if dotted not in self._known:
            owner, _, last = dotted.rpartition(".")
            self._known[dotted] = None
            if last == "session" and owner.rpartition(".")[2] in _EXTENSION:
                extension = self.only_extension if owner.startswith(f"{_REQUEST}.") else self.of(owner)
                if isinstance(extension, Extension):
                    self._known[dotted] = extension.session
            elif last in _EXTENSION and (owner == _APPLICATION or self._statics.table.is_unread(dotted)):
                # A module of the project's that was not read has imported it.
                self._known[dotted] = self.only_extension
            if self._known[dotted] is None and owner in KEEPERS:
                self._known[dotted] = self._kept(owner, last)
            if self._known[dotted] is None and owner and (_REGISTRY.match(last) or last in _EXTENSION):
                self._known[dotted] = self._judged(dotted, last)
        return self._known[dotted]

    @cached_property
    def only_extension(self) -> Extension | None:
        """The `db` that whoever sets the application up leaves there: the one that the project makes, if it is one."""
        found = {
            value
            for module in self._statics.table.modules
            if module.imports_any("flask_sqlalchemy")
            for name, assignment in module.variables.items()
            if isinstance(assignment.value, ir.Call)
            and isinstance(value := self._statics.symbol(VariableRef(module, name, assignment)), Extension)
        }
        return found.pop() if len(found) == 1 else None

    def _kept(self, keeper: str, name: str) -> Known:
        """`g.db`: the session that some function puts there, or what can only be one by what is done with it."""
        owner, _, last = keeper.rpartition(".")
        importers = [*self._importing(keeper), *[(one, (*path, last)) for one, path in self._importing(owner)]]
        identity = (keeper, name)
        seen = self._usage(importers, (name,))
        for module, local in importers:
            kept = ir.Name((*local, name))
            for function in module.functions.values():
                reference = FunctionRef(module, function)
                for statement in self._statics.table.bodies.statements(function.body):
                    if not isinstance(statement, ir.Assign):
                        continue
                    if kept in statement.targets and statement.value is not None:
                        known = self._statics.results.locals(reference)
                        value = self._statics.expression(module, statement.value, known)
                        if isinstance(value, Registry):
                            return value
                        if isinstance(value, (Opened, Borrowed)) and value.type.role == "session":
                            return Registry(identity, value.type.is_async, "", value.type.certainty)
                    elif statement.value == kept and isinstance(statement.targets[0], ir.Name):
                        alias = self._statics.usage(reference).get(statement.targets[0].path, seen)
                        seen = Usage(seen.methods | alias.methods, seen.awaited | alias.awaited)
        has_sqlalchemy = any([module.imports_any(*names.PACKAGES) for module, _ in importers])
        if shapes.is_session(seen, has_sqlalchemy):
            return Registry(identity, bool(seen.awaited), "", Confidence.LIKELY)
        return None

    def _importing(self, dotted: str) -> list[tuple[Module, Path]]:
        """The modules that import something of another package, and what they call it."""
        if self._importers is None:
            self._importers = {}
            for module in self._statics.table.modules:
                for local, target in module.imports.items():
                    self._importers.setdefault(target, []).append((module, local))
        return [
            (module, (local,))
            for module, local in self._importers.get(dotted, ())
            if isinstance(self._statics.table.resolve(module, (local,)), External)
        ]

    def _judged(self, dotted: str, name: str) -> Known:
        table = self._statics.table
        importers = self._importing(dotted)
        identity = tuple(dotted.rsplit(".", 1))
        if name in _EXTENSION:
            seen = self._usage(importers, ("session",))
            if shapes.is_session(seen, True) and not seen.awaited:
                has_flask = any([module.imports_any("flask") for module in table.modules])
                return Extension(identity, "flask_sqlalchemy" if has_flask else "", Confidence.LIKELY)
        has_sqlalchemy = any([module.imports_any(*names.PACKAGES) for module, _ in importers])
        for how in ((), ("()",)):
            seen = self._usage(importers, how)
            if shapes.is_session(seen, has_sqlalchemy):
                return Registry(identity, bool(seen.awaited), "", Confidence.LIKELY)
        return None

    def _usage(self, importers: list[tuple[Module, Path]], attribute: Path) -> Usage:
        """What all functions that know the name do with it, or with what it has."""
        methods: set[str] = set()
        awaited: set[str] = set()
        for module, local in importers:
            functions = [FunctionRef(module, function) for function in module.functions.values()]
            hiding = [f"{each.function.qualname}." for each in functions if self._hides(each, local[0])]
            for each in functions:
                name = f"{each.function.qualname}."
                seen = self._statics.usage(each).get((*local, *attribute))
                if seen is not None and not any([one.startswith(name) or name.startswith(one) for one in hiding]):
                    methods |= seen.methods
                    awaited |= seen.awaited
        return Usage(frozenset(methods), frozenset(awaited))

    def _hides(self, reference: FunctionRef, name: str) -> bool:
        """Whether the function calls something else by that name."""
        if any([parameter.name == name for parameter in reference.function.parameters]):
            return True
        return name in self._statics.table.bodies.bound(reference.function.body)
