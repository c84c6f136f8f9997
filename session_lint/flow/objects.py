"""Mapped objects that a session has loaded: what changes them, and what can't be read of them after a failed flush.

A failed flush expires all objects that the session has from the database, keys included: reading any attribute loads
it again, which is a use of the failed session. A statement that fails expires nothing, and neither does a flush in a
savepoint. What was added and not committed leaves the session and keeps what it holds.

A change is a write like add(): it is sent by the next flush. Only what is known to be mapped counts: any other
attribute is one of the plain object, as in `user.is_me = True` for a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.effects import Effects
from session_lint.flow.state import FAILED, SessionState, State, failed_method
from session_lint.flow.values import (
    LIST,
    OBJECT,
    ROWS,
    SCALARS,
    Instance,
    Loaded,
    Path,
    Query,
    Transaction,
    Value,
    loaded_in,
)
from session_lint.ir_queries import call_text, path_of, place_of
from session_lint.project.entry_points import is_route

_FETCHES = {
    (ROWS, "scalars"): SCALARS,
    (ROWS, "scalar"): OBJECT,
    (ROWS, "scalar_one"): OBJECT,
    (ROWS, "scalar_one_or_none"): OBJECT,
    (ROWS, "unique"): ROWS,
    (SCALARS, "unique"): SCALARS,
    (SCALARS, "all"): LIST,
    (SCALARS, "first"): OBJECT,
    (SCALARS, "one"): OBJECT,
    (SCALARS, "one_or_none"): OBJECT,
}
"""What the methods of results give that hold mapped objects."""

_ONE = frozenset("first one one_or_none get scalar first_or_404 one_or_404 get_or_404".split())
"""Methods of queries that give one object."""

_READERS = re.compile(
    r"^(\w*render(_\w+)?|template|TemplateResponse|jsonify|marshal|model_validate|from_orm|\w*serialize\w*)$"
)
"""Functions that read the attributes of what they are given."""

_READING_METHODS = frozenset({"to_dict", "as_dict", "to_json", "serialize"})
"""Methods of mapped objects that read their attributes."""


_CHANGED_BY = frozenset({"setattr", "flag_modified", "sqlmodel_update", "make_transient"})
CHANGING = _CHANGED_BY | frozenset("append remove extend insert add discard clear pop".split())
"""The last names of calls that may change a mapped object, or take it out of its session."""


class Objects(Effects):
    """Notes where a mapped object is changed, and where its attributes are read after a failed flush."""

    def note_read(self, path: Path, state: State) -> None:
        """`user.name`."""
        if path[1][:1].islower():
            self._note_load(path[:1], f"reading {'.'.join(path[:2])}", place_of(self.statement), state)

    def note_call(self, node: ir.Call, state: State) -> None:
        """`render("page.html", user=user)`, `user.to_dict()`, `user.groups.append(group)`."""
        path = path_of(node.function)
        if len(path) > 2 or (len(path) == 2 and path[-1] in _READING_METHODS):
            self.note_read(path, state)
        if path and _READERS.match(path[-1]):
            for argument in node.arguments:
                for name in _named(argument.value):
                    self._note_load(name, f"{call_text(node)} with {name[0]}", node.place, state)

    def note_return(self, node: ir.Return, state: State) -> None:
        """`return user`, where the framework makes the answer out of the object's attributes."""
        if node.value is not None and is_validated(self.function):
            for name in _named(node.value):
                self._note_load(name, f"answering with {name[0]}", node.place, state, result.INJECTED)

    def _note_load(self, name: Path, text: str, place: ir.Place, state: State, origin: str = "") -> None:
        loaded = loaded_in(state.variables.get(name))
        session = state.sessions.get(loaded.identity) if loaded is not None else None
        if loaded is None or session is None or session.witness.swallowed is None or session.commits <= loaded.since:
            return
        if origin and self.flow.sessions[loaded.identity].origin != origin:
            return
        inside = session.savepoints or any(
            [isinstance(held, Transaction) and held.is_nested for held in state.variables.values()]
        )
        if session.transaction == FAILED and not inside and _failed_in_flush(session) and not self._asks_which():
            self.event(result.USE_BROKEN, place, loaded.identity, text, session, ops.LOAD)

    def _asks_which(self) -> bool:
        """`if error.response["error"] == ...:` in a handler: what follows is for an error of somebody else."""
        errors: set[str | None] = set()
        for frame in self.frames:
            if isinstance(frame.node, ir.Handler):
                errors.add(frame.node.name)
            elif isinstance(frame.node, ir.If):
                parts = ir.expressions(frame.node.test)
                if any([isinstance(part, ir.Name) and part.path[0] in errors for part in parts]):
                    return True
        return False

    # -------------------------------------------------------------------------------------------- changing

    def note_change(self, node: ir.Call, function: str, state: State) -> State:
        """`user.groups.append(group)`, `setattr(user, key, value)`, `flag_modified(user, "tags")`."""
        path = path_of(node.function)
        if function not in _CHANGED_BY:
            return self.changed(path[:2], node.place, state, many=True) if len(path) == 3 else state
        if function == "sqlmodel_update":
            return self.changed((*path[:-1], ""), node.place, state)
        given = [argument.value for argument in node.arguments]
        name = given[0].path if given and isinstance(given[0], ir.Name) else ()
        if function == "make_transient":
            loaded = loaded_in(state.variables.get(name))
            return self.disown(loaded.identity, state, name) if loaded is not None else state
        key = given[1].value if len(given) > 1 and isinstance(given[1], ir.Constant) else None
        return self.changed((*name, key if isinstance(key, str) else ""), node.place, state)

    def changed(self, path: Path, place: ir.Place, state: State, many: bool = False) -> State:
        """An attribute of a variable gets a value, or (many) the objects that it holds do change.

        The attribute is "" if it may be any.
        """
        if len(path) != 2:
            return state
        held = state.variables.get(path[:1])
        if loaded_in(held) is None and path[0] in self._given_names:
            self.flow.changes.add(result.Change(*path, many))
        return self.changed_of(held, path[1], ".".join(path).rstrip("."), place, state, many) if held else state

    @cached_property
    def _given_names(self) -> frozenset[str]:
        """The parameters that hold what the function was given from its first to its last line."""
        names = [parameter.name for parameter in self.function.parameters]
        return frozenset(names) - self.project.table.bodies.bound(self.function.body)

    def changed_of(self, held: Value, name: str, text: str, place: ir.Place, state: State, many: bool = False) -> State:
        """The same of an object that may have no name."""
        loaded = loaded_in(held)
        if loaded is None or loaded.kind != OBJECT:
            return state
        session = state.sessions.get(loaded.identity)
        if session is None or (session.commits <= loaded.since and not (session.dirty or session.pending)):
            return state  # It was added, and that has been rolled back.
        model = held.reference if isinstance(held, Instance) else loaded.model
        if model is None or not self.project.table.maps(model, name, many):
            return state
        return self.change(state, loaded.identity, place, f"changing {text}")

    # --------------------------------------------------------------------------------------------- tracking

    def adopt(self, node: ir.Expr, identity: Path, state: State) -> State:
        """`session.add(user)`: the object belongs to the session from now on."""
        if not isinstance(node, ir.Name) or len(node.path) > 1:
            return state
        held = state.variables.get(node.path)
        if loaded_in(held) is not None:
            return state
        loaded = Loaded(identity, since=state.sessions[identity].commits)
        if held is None:
            return state.bind(node.path, loaded)
        return state.bind(node.path, held._replace(loaded=loaded)) if isinstance(held, Instance) else state

    def disown(self, identity: Path, state: State, only: Path | None = None) -> State:
        """`session.expunge(user)`, `session.close()`: the objects, or only one of them, belong to nobody."""
        for path, held in list(state.variables.items()):
            loaded = loaded_in(held)
            if loaded is not None and loaded.identity == identity and only in (None, path):
                state = state.bind(path, held._replace(loaded=None) if isinstance(held, Instance) else None)
        return state

    def refill(self, path: Path, state: State) -> State:
        """`user.name = "x"` of an expired object: what is read next may be there."""
        loaded = loaded_in(state.variables.get(path))
        if loaded is None or state.sessions[loaded.identity].transaction != FAILED:
            return state
        return self.disown(loaded.identity, state, path)


def fetched(owner: Loaded, name: str) -> Value:
    """What a method of a result gives."""
    kind = _FETCHES.get((owner.kind, name))
    return owner._replace(kind=kind) if kind is not None else None


def sent(query: Query, name: str, session: SessionState) -> Value:
    """What a method of a query gives that sends it."""
    if not query.gives_objects or (name != "all" and name not in _ONE):
        return None
    return Loaded(query.identity, LIST if name == "all" else OBJECT, known_since(session), model=query.model)


def known_since(session: SessionState) -> int:
    """What is loaded may be what was written just before: then it is as new as that."""
    return session.commits if session.dirty or session.pending else -1


def element_of(value: Value, state: State) -> Value:
    """What a loop over the value gives in each turn."""
    if isinstance(value, Query) and value.gives_objects:
        return Loaded(value.identity, since=known_since(state.sessions[value.identity]), model=value.model)
    return value._replace(kind=OBJECT) if isinstance(value, Loaded) and value.kind in (LIST, SCALARS) else None


def is_validated(function: ir.Function) -> bool:
    """Whether the function is a route whose answer is made after a model."""
    return is_route(function) and (
        function.returns is not None
        or any(
            [
                isinstance(decorator, ir.Call)
                and any([argument.name == "response_model" for argument in decorator.arguments])
                for decorator in function.decorators
            ]
        )
    )


def _named(node: ir.Expr) -> Iterator[Path]:
    """The variables that an expression consists of."""
    if isinstance(node, ir.Name) and len(node.path) == 1:
        yield node.path
    elif isinstance(node, ir.Collection):
        for item in node.items:
            yield from _named(item)


_FLUSHING = frozenset("flush commit begin_nested bulk_save_objects bulk_insert_mappings bulk_update_mappings".split())


def _failed_in_flush(session: SessionState) -> bool:
    """Whether what has failed has flushed, here or in a callee."""
    owner, method = failed_method(session)
    if method not in _FLUSHING or "nested" in owner or "savepoint" in owner:
        return False
    # A commit() after a flush() has nothing to flush: then it is COMMIT that fails, which expires nothing.
    return method != "commit" or session.pending or not session.dirty
