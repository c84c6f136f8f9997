"""The beginning of with blocks, and loops over session generators: who hands a session out."""

from __future__ import annotations

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.leaving import Leaving
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import CLOSED, NONE, OPEN, Mark, SessionState, State, States
from session_lint.flow.values import (
    Borrowed,
    Generator,
    Instance,
    Items,
    Manager,
    Method,
    Opened,
    Path,
    Registry,
    Session,
    SessionType,
    Transaction,
    Value,
    direct_sessions,
)
from session_lint.ir_queries import call_place, last_name, me_of, path_of, uncalled, words
from session_lint.project import shapes
from session_lint.project.provider import Provider

Entered = list[tuple[State, Value, Value]]


class Managers(Leaving):
    """Enters context managers, and runs the loops over session generators."""

    def enter(self, value: Value, state: State, node: ir.With, item: ir.WithItem, outcome: Outcome) -> Entered:
        """`with value as x`: the states, the manager that will be left, and what x is."""
        if isinstance(value, Registry):
            state, value = self.materialise(value, state, (), node.place, result.AMBIENT)
        if isinstance(value, Session):
            session = state.sessions[value.identity]
            state = state.set(value.identity, session._replace(owned=False))
            self.name_session(value, item.target)
            return [(state, Manager("session", value), value)]
        if isinstance(value, Generator):
            return [(state, Manager("null", None), None)]
        if isinstance(value, Transaction):
            return self._enter_transaction(value, state, node, item, outcome)
        if isinstance(value, Method) and isinstance(value.owner, Session) and value.name == "no_autoflush":
            return [(state, Manager("null", value.owner), value.owner)]
        if isinstance(value, Manager):
            return self._enter_manager(value, state, node, item, outcome)
        if isinstance(value, Instance):
            bound = self.project.statics.results.entered(self.module, value)
            if direct_sessions(value) and self._method_of(value, "exit", node) is not None:
                return self._enter_object(value, bound, state, node, outcome)
            if isinstance(bound, (Borrowed, Opened)):
                return [self._provided(bound.type, state, node, item, None, "foreign")]
            return self._enter_renewing(value, state, node, item) or [
                (state, Manager("null", value), value if bound is None else bound)
            ]
        return self._enter_renewing(None, state, node, item) or self._enter_unknown(value, state, node, item)

    def _enter_renewing(self, value: Value, state: State, node: ir.With, item: ir.WithItem) -> Entered:
        renewed = self.renewed(item, state)
        if renewed is None:
            return []
        if isinstance(renewed, Registry):
            called = path_of(item.value.function) if isinstance(item.value, ir.Call) else ()
            state, held = self.materialise(renewed, state, (*called, "session"), node.place, result.CURRENT)
            if not isinstance(held, Session):
                return []
            # All that ask for the current session get the block's own, until it ends.
            state = state.set(held.identity, SessionState(transaction=NONE, reset=True, handed=True))
            return [(state, Manager("current", held), value)]
        path, kind = renewed
        state, _, inner = self._provided(kind, state, node, item._replace(target=ir.Name(path)), None, "foreign")
        outer = ((".".join(path), state.variables.get(path)),)
        return [(state.bind(path, inner), Manager("foreign", inner, bindings=outer), value)]

    def _enter_object(self, value: Instance, bound: Value, state: State, node: ir.With, outcome: Outcome) -> Entered:
        """`with Transaction(session):` of a class of the project."""
        if isinstance(bound, (Borrowed, Opened)):
            bound = direct_sessions(value)[0]
        entered = self._call_manager(value, "enter", (), state, node, outcome)
        return [(after, Manager("object", value), value if bound is None else bound) for after, _ in entered]

    def _enter_transaction(
        self, value: Transaction, state: State, node: ir.With, item: ir.WithItem, outcome: Outcome
    ) -> Entered:
        session = state.sessions[value.identity]
        info = self.flow.sessions[value.identity]
        text = f"{info.name}.begin{'_nested' if value.is_nested else ''}()"
        if value.is_nested and info.origin == result.LOCAL and session.owned and _is_unnamed(item.value):
            self.event(result.LOST_WITH_ITEM, info.place, value.identity, text.rpartition(".")[2], session)
            state = self.hand_over(Session(value.identity), state)
        if value.is_nested:
            state = self._into_savepoint(value.identity, state, node.place, text, outcome)
            return [(state, Manager("savepoint", Session(value.identity), begun=session.begun), value)]
        joins = (
            isinstance(item.value, ir.Call)
            and ir.Argument("subtransactions", ir.Constant(True)) in item.value.arguments
        )
        if joins and session.begun == 1:
            return [(state, Manager("null", Session(value.identity)), value)]
        # Whose session it is may have begun one: then that one goes on.
        kind = "joining begin" if joins and not session.reset else "begin"
        state = self.operate(state, value.identity, ops.BEGIN, node.place, text, outcome)
        session = state.sessions[value.identity]
        state = state.set(value.identity, session._replace(begun=1))
        return [(state, Manager(kind, Session(value.identity)), value)]

    def _into_savepoint(self, identity: Path, state: State, place: ir.Place, text: str, outcome: Outcome) -> State:
        # SAVEPOINT comes after a flush of what was added before it: that is not protected.
        state = self.operate(state, identity, ops.SAVEPOINT, place, text, outcome)
        session = state.sessions[identity]
        return state.set(identity, session._replace(transaction=OPEN, savepoints=min(session.savepoints + 1, 2)))

    def _enter_manager(
        self, value: Manager, state: State, node: ir.With, item: ir.WithItem, outcome: Outcome
    ) -> Entered:
        if value.kind == "open begin" and isinstance(value.value, Opened):
            name = item.target.path[-1] if isinstance(item.target, ir.Name) else "session"
            state, identity = self.open(value.value.type, value.place, state, name)
            session = state.sessions[identity]._replace(owned=False, begun=1)
            return [(state.set(identity, session), Manager("open begin", Session(identity)), Session(identity))]
        if value.kind == "null" and isinstance(value.value, Session):
            identity = value.value.identity
            info = self.flow.sessions[identity]
            if info.origin == result.LOCAL and info.place == value.place and state.sessions[identity].owned:
                self.event(result.LOST_WITH_ITEM, info.place, identity, "no_autoflush", state.sessions[identity])
                state = self.hand_over(value.value, state)
            return [(state, value, value.value)]
        if value.kind == "closing" and isinstance(value.value, Generator):
            return [(state, Manager("null", None), value.value)]
        if value.kind == "closing":
            state = self.hand_over(value.value, state)
            return [(state, value, value.value)]
        if value.kind == "provider" and value.reference is not None:
            return self._enter_provider(value, state, node, item, outcome)
        if value.kind == "foreign" and isinstance(value.value, Borrowed):
            return [self._provided(value.value.type, state, node, item, None, "foreign")]
        return [(state, value, value.value if value.kind == "null" else value)]

    def _enter_provider(
        self, value: Manager, state: State, node: ir.With, item: ir.WithItem, outcome: Outcome
    ) -> Entered:
        assert value.reference is not None
        provider = self._provider(value)
        known = {**dict(value.bindings), me_of(value.reference.function): value.value}
        for root in provider.parameters:
            flow = self.project.flow(value.reference) if root[0] == "~" else None
            if flow is not None:
                state = self.meet(flow.sessions[root], value.reference, state, node.place)
                given: Value = Session(root)
            else:
                state, given = self.behind(known.get(root[0]), root, state, node.place)
            if isinstance(given, Session):
                if provider.closes and provider.closes_on_error:
                    state = self.hand_over(given, state)
                if provider.nested:
                    state = self._into_savepoint(given.identity, state, node.place, words(item.value), outcome)
                # A session of everybody's is not what it hands out, but only what it ends.
                return [(state, value._replace(value=given), None if flow is not None else given)]
        bound = self.project.statics.results.yielded(value.reference)
        if isinstance(bound, Registry):
            state, session = self.materialise(bound, state, (), node.place, result.AMBIENT)
            if isinstance(session, Session):
                left = state.sessions[session.identity]
                if left.transaction == CLOSED and not left.dirty:
                    # The block before has removed the registry's session, and this one gets a new one.
                    state = state.set(session.identity, left._replace(transaction=NONE))
            return [(state, value._replace(value=session), session)]
        if isinstance(bound, Borrowed):
            path = _given_to(item.value) if provider.parameters else ()
            if path:  # It hands on what it was given, of which nothing else is known.
                state, given = self.materialise(bound, state, path, node.place, self.origin_of(path))
                return [(state, value._replace(value=given), given)]
            return [self._provided(bound.type, state, node, item, value, "provider")]
        if isinstance(bound, Items):
            return [self._enter_tuple(bound, value, state, node, item)]
        if bound is None:
            entered = self._enter_unknown(None, state, node, item)
            return [
                (after, left._replace(reference=value.reference) if isinstance(left, Manager) else left, target)
                for after, left, target in entered
            ]
        return [(state, Manager("null", None), bound)]

    def _enter_tuple(
        self, bound: Items, manager: Manager, state: State, node: ir.With, item: ir.WithItem
    ) -> tuple[State, Value, Value]:
        """`with phase() as (session, row)`: the session among what a context manager function yields."""
        values = list(bound.items)
        targets = item.target.items if isinstance(item.target, ir.Collection) else ()
        for index, value in enumerate(values):
            if isinstance(value, (Borrowed, Opened)):
                named = item._replace(target=targets[index] if len(targets) == len(values) else None)
                state, left, values[index] = self._provided(value.type, state, node, named, manager, "provider")
                return state, left, Items(tuple(values))
        return state, Manager("null", None), bound

    def _provided(
        self,
        kind: SessionType,
        state: State,
        node: ir.With,
        item: ir.WithItem,
        manager: Manager | None,
        how: str,
    ) -> tuple[State, Value, Value]:
        place = (
            manager.place if manager is not None and manager.place != ir.NOWHERE else call_place(item.value, node.place)
        )
        identity: Path = (f"@{place[0]}:{place[1]}",)
        name = item.target.path[-1] if isinstance(item.target, ir.Name) else "the session"
        reference = manager.reference if manager is not None else None
        provider = self._provider(manager) if manager is not None and reference is not None else None
        begun = provider.begun if provider is not None else 0
        # What can't be seen may have done anything with it, and may commit it.
        handed = provider.may_commit if provider is not None else how == "foreign"
        info = SessionInfo(identity, name, result.PROVIDED, kind, place, reference)
        opened = Mark(place, f"{name} is opened here")
        session = SessionState(transaction=OPEN if begun else NONE, reset=True, begun=begun, handed=handed)
        state = self.track(info, session.mark(opened=opened), state)
        left = manager._replace(value=Session(identity)) if manager is not None else Manager(how, Session(identity))
        return state, left, Session(identity)

    def _enter_unknown(self, value: Value, state: State, node: ir.With, item: ir.WithItem) -> Entered:
        """`with something_unknown() as x`: x is a session if what is done with it leaves no other choice."""
        if last_name(item.value) == "no_autoflush":
            return [(state, Manager("null", None), None)]  # It gives a session that goes on after the block.
        scoped = self.project.profiles.ending(item.value)
        if scoped:
            return [(state, Manager("scope", None, types=scoped), None)]
        if isinstance(item.target, ir.Name) and len(item.target.path) == 1:
            called = uncalled(item.value)
            if self.project.profiles.is_manager(self.module, called):
                named = SessionType("session", node.is_async, Confidence.LIKELY)
                return [self._provided(named, state, node, item, None, "foreign")]
            statics = self.project.statics
            seen = statics.usage(self.flow.reference).get(item.target.path)
            kind = shapes.recognise(item.target.path[0], seen, statics.uses_sqlalchemy(self.module))
            if kind is not None:
                kind = kind._replace(is_async=node.is_async and kind.is_async)
                state, manager, bound = self._provided(kind, state, node, item, None, "foreign")
                return [(state, manager, bound)]
        return [(state, Manager("null", None), None)]

    def enter_value(
        self, value: Value, state: State, place: ir.Place, name: str, outcome: Outcome
    ) -> tuple[State, Value]:
        """`stack.enter_context(value)`: the stack will leave it."""
        item = ir.WithItem(ir.UNKNOWN, None)
        node = ir.With((item,), (), False, place)
        for after, _, bound in self.enter(value, state, node, item, outcome):
            return after, bound
        return state, None

    # ------------------------------------------------------------------------------- loops over generators

    def iterate_generator(self, node: ir.For, value: Value, state: State, outcome: Outcome) -> States | None:
        """`async for session in get_db():`; None if that is not what the loop is."""
        if isinstance(value, Manager) and value.kind == "provider":
            self.event(result.MANAGER_ITERATED, node.place, (), "for", None, value.reference)
            return None
        if not isinstance(value, Generator):
            return None
        static = self.project.statics.results.yielded(value.reference)
        if not isinstance(static, Borrowed) or not isinstance(node.target, ir.Name):
            return None
        provider = self.project.provider(value.reference)
        place = value.place if value.place != ir.NOWHERE else node.place
        identity: Path = (f"@{place[0]}:{place[1]}",)
        name = node.target.path[-1]
        info = SessionInfo(identity, name, result.ITERATED, static.type, place, value.reference)
        opened = Mark(place, f"{name} is opened here")
        entry = SessionState(transaction=NONE, reset=True, begun=provider.begun).mark(opened=opened)
        state = self.track(info, entry, state).bind(node.target.path, Session(identity))
        inner = Outcome()
        with self.inside("for", node):
            self.run_block(node.body, States([state]), inner)
        self._leave_generator(node, inner, outcome, identity, provider, value)
        done = States()
        for after in [*inner.normal, *inner.continues]:
            done.add(after.set(identity, after.sessions[identity]._replace(transaction=CLOSED, begun=0)))
        normal = Outcome()
        self.run_block(node.orelse, done, normal)
        outcome.jumps(normal)
        left = States(normal.normal)
        left.update(inner.breaks)
        return left

    def _leave_generator(
        self, node: ir.For, inner: Outcome, outcome: Outcome, identity: Path, provider: Provider, value: Generator
    ) -> None:
        immediate = not node.is_async and provider.closes_on_error
        # A generator that has a name can be, and in all code that was read is, closed through it.
        inline = isinstance(node.iterable, ir.Call)
        for state, returned, place in inner.returns:
            session = state.sessions[identity]
            if inline and not immediate and session.transaction not in (CLOSED, NONE):
                self.event(result.LOOP_LEFT, place, identity, "return", session, value.reference)
            outcome.returns.add(state, returned, place)
        for state in inner.breaks:
            session = state.sessions[identity]
            if inline and not immediate and session.transaction not in (CLOSED, NONE):
                place = next(
                    (inner.place for inner in ir.statements(node.body) if isinstance(inner, ir.Break)), node.place
                )
                self.event(result.LOOP_LEFT, place, identity, "break", session, value.reference)
        for state, error in inner.raises:
            outcome.raises.add(state, error)


def _given_to(node: ir.Expr) -> Path:
    """The first name that a call is given; () if there is none."""
    arguments = node.arguments if isinstance(node, ir.Call) else ()
    return next((item.value.path for item in arguments if isinstance(item.value, ir.Name)), ())


def _is_unnamed(node: ir.Expr) -> bool:
    """`Session(engine).begin()`: the session itself is the value of no name."""
    return isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute)
