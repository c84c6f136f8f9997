"""Calls of what the project defines: functions by their contracts, nested functions in place, constructors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.contracts import Contract, compose, marks_of
from session_lint.flow.errors import Error
from session_lint.flow.foreign_calls import ForeignCalls
from session_lint.flow.outcome import Outcome
from session_lint.flow.state import (
    ENTRY,
    FAILED,
    NONE,
    OPEN,
    Mark,
    Pairs,
    SessionState,
    State,
    States,
    distinct,
)
from session_lint.flow.values import (
    Answer,
    Arguments,
    Borrowed,
    Closure,
    Coroutine,
    Function,
    Generator,
    Instance,
    Manager,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    Value,
    carries_session,
    direct_sessions,
)
from session_lint.ir_queries import (
    call_text,
    decorator_name,
    has_decorator,
    is_abstract,
    me_of,
    path_of,
)
from session_lint.project.modules import ClassRef, FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_PLAIN = frozenset({"staticmethod", "classmethod", "override"})
"""Decorators that leave a coroutine function one."""

_MAX_DEPTH = 3
"""How deep calls of nested functions are run in place."""

_MAX_OVERRIDES = 8
"""Of a method with more of them, nobody can say what it does."""

_GIVEN = (Opened, Borrowed, Registry)
"""What becomes a session of the caller."""


class ProjectCalls(ForeignCalls):
    """Applies calls of functions and classes that the project defines."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self._handings: set[result.Handing] = set()

    def run_block(self, body: Iterable[ir.Stmt], states: States, outcome: Outcome) -> None:
        """Run statements one after the other; what falls through is added to outcome.normal."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- functions

    def project_function(
        self, callee: Function, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        reference = callee.reference
        function = reference.function
        statics = self.project.statics
        bindings = self._bind(callee, arguments)
        if is_abstract(function) and not (function.is_async and purpose in ("dropped", "attribute")):
            # What it gives is what its annotation says.
            overrides = self._overrides(callee, purpose)
            if overrides:
                return self._any_of(overrides, callee, node, arguments, state, outcome, purpose)
            # Which of its implementations runs can't be seen.
            self._note_handing(reference, node.place, self._handed(callee, bindings, state))
            called = self.unknown_call(node, arguments, state, outcome, call_text(node), False)
            return self._giving(self._result(callee, bindings), [after for after, _ in called], node)
        if function.is_generator:
            static = statics.results.returned(reference)
            if isinstance(static, Manager):
                return [(state, static._replace(value=callee.receiver, place=node.place, bindings=bindings))]
            if statics.results.is_manager(reference):
                return [(state, Manager("provider", callee.receiver, reference, (), node.place, bindings))]
            return [(state, Generator(reference, node.place))]
        label = call_text(node)
        handed = self._handed(callee, bindings, state)
        touched = [identity for (name, *rest), identity in handed.items() if not rest]
        coroutine: Coroutine | None = None
        if function.is_async and purpose in (*ops.NEVER_AWAITED, "assigned"):
            if touched or self._needs_await(callee):
                coroutine = Coroutine(None, label, node.place, touched[0] if touched else ())
            if purpose != "assigned":
                return [(state, coroutine)]
        contract = self.project.contract(reference, self.project.summaries.constants(reference, bindings))
        if contract is None:
            self._note_handing(reference, node.place, handed)
            return self.unknown_call(node, arguments, state, outcome, label, False)
        self.cancellation_known = function.is_async
        state, roots = self._roots(contract, dict(bindings), callee.receiver, state, node.place)
        self._note_handing(reference, node.place, {**handed, **roots})
        given: Path | None = None
        if contract.returned is not None:
            root = contract.returned.identity
            state, given = self._root(root, contract, dict(bindings), callee.receiver, state, node.place)
        loaded = contract.loaded
        if loaded is not None:
            owner = roots.get(loaded.identity)
            since = -1 if loaded.since < 0 or owner is None else state.sessions[owner].commits
            loaded = loaded._replace(identity=owner, since=since) if owner is not None else None
        unknown = self._unknown_to(contract, reference, bindings)
        for value in unknown:
            if isinstance(value, Session):
                state = self.lend(value, node, label, False, state, outcome)
        returned = self._apply_contract(contract, roots, node.place, label, state, outcome)
        for value in unknown:
            if not isinstance(value, Session):
                returned = [
                    (self._lend_indirectly(value, node, label, after, outcome), answer) for after, answer in returned
                ]
        value = self._result(callee, bindings)
        if contract.returned is not None and given is not None and given in state.sessions:
            value = contract.returned._replace(identity=given)
        if loaded is not None and value is None:
            value = loaded
        elif loaded is not None and isinstance(value, Instance):
            value = value._replace(loaded=loaded)
        if coroutine is not None and not isinstance(value, _GIVEN):
            return [(after, coroutine._replace(value=value)) for after, _ in returned]
        pairs = self._giving(value, [after for after, answer in returned if answer is None], node)
        # A tuple with a session in it, or an object whose class is known, matters more than what it says.
        return pairs + [
            (after, value if isinstance(answer, Answer) and value is not None else answer)
            for after, answer in returned
            if answer is not None
        ]

    def _overrides(self, callee: Function, purpose: str) -> list[Function]:
        """What an abstract method may be, if any of it works with a session of its caller, and all of it is seen."""
        receiver, method = callee.receiver, callee.reference
        if not isinstance(receiver, Instance) or (method.function.is_async and purpose == "assigned"):
            return []
        found = self.project.table.overrides(receiver.reference, method)
        if len(found) > _MAX_OVERRIDES or any([own.function.is_generator for _, own in found]):
            return []
        contracts = [self.project.contract(own) for _, own in found]
        if not any([contract is not None and contract.roots for contract in contracts]):
            return []
        return [Function(own, receiver._replace(reference=heir)) for heir, own in found]

    def _any_of(
        self,
        overrides: list[Function],
        callee: Function,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
    ) -> Pairs:
        """One of the overrides runs."""
        pairs: Pairs = []
        inner = Outcome()
        value = self._result(callee, self._bind(callee, arguments))
        for override in overrides:
            for after, own in self.project_function(override, node, arguments, state, inner, purpose):
                pairs += [(after, own)] if value is None else self._giving(value, [after], node)
        for after, error in inner.raises:
            outcome.raises.add(_doubted(after, node.place), error)
        return distinct([(_doubted(after, node.place), given) for after, given in pairs])

    def _needs_await(self, callee: Function) -> bool:
        """Whether an async function that is not handed a session works with one, so that it is our business."""
        if isinstance(callee.receiver, Instance) and self.project.holds_session(callee.receiver.reference):
            return True
        # A decorator may make something else of it, such as a task or a plain function.
        names = [decorator_name(each) for each in callee.reference.function.decorators]
        return all([name in _PLAIN for name in names]) and self.project.works_with_sessions(callee.reference)

    def only_method(self, node: ir.Call, arguments: Arguments, state: State) -> Function | None:
        """`plugin.instance.consume(session=session)`: nobody knows what the object is, but one class has such a method.

        It must take what it is given, and know the session as one.
        """
        path = path_of(node.function)
        name = path[-1] if len(path) > 1 else node.function.name if isinstance(node.function, ir.Attribute) else ""
        given = [value for _, value, _ in arguments if isinstance(value, Session)]
        reference = self.project.table.only_method(name) if name and given else None
        if reference is None or reference.function is self.function:
            return None
        owner = ClassRef(reference.module, reference.module.classes[reference.function.owner or ""])
        callee = Function(reference, Instance(owner, path[:-1], ()))
        parameters = {parameter.name: parameter for parameter in reference.function.parameters}
        bound = dict(self._bind(callee, arguments))
        if not bound.keys() <= parameters.keys() or len(bound) < len(arguments):
            return None
        named = {name for name, _, _ in arguments}
        positional = [name for name, value in bound.items() if isinstance(value, Session) and name not in named]
        taken = [self.project.parameter(reference, parameters[name])[0] for name in positional]
        return callee if all([isinstance(value, Borrowed) for value in taken]) else None

    def _giving(self, value: Value, states: list[State], node: ir.Call) -> Pairs:
        """What a call gives, in each of the states after it."""
        pairs: Pairs = []
        for after in states:
            if isinstance(value, Opened):
                after, identity = self.open(value.type, node.place, after, call_text(node))
                pairs.append((after, Session(identity)))
            elif isinstance(value, Borrowed):
                path = (*path_of(node.function), "()")
                pairs.append(self.materialise(value, after, path, node.place, result.ATTRIBUTE))
            elif isinstance(value, Registry):
                pairs.append(self.materialise(value, after, (call_text(node),), node.place, result.AMBIENT))
            else:
                pairs.append((after, value))
        return pairs

    def _result(self, callee: Function, bindings: tuple[tuple[str, Value], ...]) -> Value:
        value = self.project.statics.results.given_by(callee)
        held = [given for _, given in bindings if carries_session(given)]
        if isinstance(value, Instance) and held and not value.fields and self.project.holds_session(value.reference):
            # `get_repositories(session)`: the object that comes back works with the session that went in.
            return value._replace(
                fields=tuple([("?", session) for given in held for session in direct_sessions(given)])
            )
        return value

    def _unknown_to(
        self, contract: Contract, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]
    ) -> list[Value]:
        """The arguments that are or hold a session without the callee knowing it: it may use them in any way."""
        unknown: list[Value] = []
        parameters = {parameter.name: parameter for parameter in reference.function.parameters}
        for name, value in bindings:
            if not carries_session(value) or any([path[0] == name for path in contract.known]):
                continue
            if isinstance(value, Instance):
                parameter = parameters.get(name)
                if parameter is not None and self.project.parameter(reference, parameter)[0] is not None:
                    continue
            unknown.append(value)
        return unknown

    def _lend_indirectly(self, value: Value, node: ir.Call, label: str, state: State, outcome: Outcome) -> State:
        """The callee gets an object that works with the session, and may use it if all goes well."""
        mark = Mark(node.place, f"{label} may use it here")
        for owner in direct_sessions(value):
            if owner.identity not in state.sessions:
                continue
            if isinstance(value, Query):
                # It is there to be sent.
                state = self.operate(state, owner.identity, ops.READ, node.place, label, outcome)
            session = state.sessions[owner.identity]
            used = OPEN if session.transaction in (ENTRY, NONE) else session.transaction
            lent = session._replace(transaction=used, touched=True, handed=True)
            state = state.set(owner.identity, lent.mark(used=session.witness.used or mark))
        return state

    def _bind(self, callee: Function, arguments: Arguments) -> tuple[tuple[str, Value], ...]:
        """Which parameter gets which value; those that are not named have their default."""
        parameters = list(callee.reference.function.parameters)
        owner = callee.reference.function.owner
        is_static = has_decorator(callee.reference.function, "staticmethod")
        is_bound = callee.receiver is not None or has_decorator(callee.reference.function, "classmethod")
        if owner and is_bound and not is_static:
            parameters = parameters[1:]
        bound: dict[str, Value] = {}
        position = 0
        for name, value, _ in arguments:
            if name is None:
                while position < len(parameters) and parameters[position].kind == "keyword":
                    position += 1
                if position < len(parameters) and parameters[position].kind == "positional":
                    bound[parameters[position].name] = value
                    position += 1
            elif name not in ("*", "**"):
                bound[name] = value
        if any([name in ("*", "**") for name, _, _ in arguments]):
            bound = {**{parameter.name: None for parameter in parameters}, **bound}
        return tuple(bound.items())

    # ------------------------------------------------------------------------------------------- contracts

    def _handed(self, callee: Function, bindings: tuple[tuple[str, Value], ...], state: State) -> dict[Path, Path]:
        """The sessions that a callee is given, or finds in its object: its path of each, and ours."""
        handed: dict[Path, Path] = {(name,): value.identity for name, value in bindings if isinstance(value, Session)}
        receiver = callee.receiver
        me = me_of(callee.reference.function)
        if isinstance(receiver, Instance) and me:
            handed.update({(me, field): held.identity for field, held in receiver.fields if isinstance(held, Session)})
            for identity in state.sessions if receiver.path else ():
                if identity[: len(receiver.path)] == receiver.path:
                    root = (me, *identity[len(receiver.path) :])
                    handed[root] = identity
            for path, value in state.variables.items() if receiver.path else ():
                # `self.session = Session(engine)`: the method finds it in the object.
                if isinstance(value, Session) and len(path) > 1 and path[: len(receiver.path)] == receiver.path:
                    root = (me, *path[len(receiver.path) :])
                    handed[root] = value.identity
        return handed

    def _note_handing(self, callee: FunctionRef, place: ir.Place, handed: dict[Path, Path]) -> None:
        if handed:
            handing = result.Handing(callee, place, tuple(sorted(handed.items())))
            if handing not in self._handings:
                self._handings.add(handing)
                self.flow.calls.append(handing)

    def _roots(
        self, contract: Contract, bindings: dict[str, Value], receiver: Value, state: State, place: ir.Place
    ) -> tuple[State, dict[Path, Path]]:
        """Our session behind each of the callee's roots."""
        identities: dict[Path, Path] = {}
        for root in contract.roots:
            state, identity = self._root(root, contract, bindings, receiver, state, place)
            if identity is not None and identity in state.sessions:
                identities[root] = identity
        return state, identities

    def _apply_contract(
        self,
        contract: Contract,
        identities: dict[Path, Path],
        place: ir.Place,
        label: str,
        state: State,
        outcome: Outcome,
    ) -> Pairs:
        """The states after a call that returns, and what it answers in each; its failures go to the outcome."""
        for root in contract.first_uses:
            if root in identities:
                identity = identities[root]
                session = state.sessions[identity]
                checked = self.check_use(session, self.flow.sessions[identity], ops.READ, place, label, state, outcome)
                if not session.touched:
                    self.flow.first_uses.add(identity)
                state = state.set(identity, checked)
        for root in contract.begins & identities.keys():
            self.begin(state, identities[root], place, label)
        states: dict[object, tuple[State, Value]] = {}
        marks = marks_of(place, label)
        splits = {root for root in contract.committed & identities.keys() if state.sessions[identities[root]].dirty}
        for root in splits:
            self.event(result.SPLIT, place, identities[root], label, state.sessions[identities[root]])
        # One session under two names: what one of them ends includes what the other has left.
        is_shared = len(set(identities.values())) < len(identities)
        for way in contract.ways:
            after = state
            effects = sorted(way.sessions, key=lambda pair: pair[1].reset) if is_shared else way.sessions
            for root, effect in effects:
                if root in identities:
                    identity = identities[root]
                    session = after.sessions[identity]
                    if effect.dirty or effect.commits:
                        does = ops.WRITE if effect.dirty else ops.COMMIT
                        session = self.go_on(session, identity, does, marks.writes)
                    silent = way.error is None and not effect.commits
                    if silent and effect.witness.lost is not None and session.dirty:
                        self.event(result.ROLLED_BACK, place, identity, label, session, "callee")
                    composed = compose(session, effect, marks, contract.reference)
                    if root in splits and effect.commits:
                        composed = composed.mark(split=Mark(place, f"{label} commits them here"))
                    after = after.set(identity, composed)
                    if effect.commits and session.savepoints:
                        self.event(result.COMMIT_IN_SAVEPOINT, place, identity, label, session)
                    if effect.commits:
                        self.event(
                            result.COMMITTED,
                            place,
                            identity,
                            label,
                            after.sessions[identity],
                            "callee" if root in contract.commits_always else "callee, perhaps",
                        )
                    elif effect.dirty:
                        self.event(result.WROTE, place, identity, label, after.sessions[identity], "callee")
                    self.has_failed |= way.error is None and composed.transaction == FAILED
            if way.error is None:
                states[after.key, way.answer] = (after, way.answer)
            else:
                outcome.raises.add(after, Error(way.error, place, label))
        return list(states.values())

    def _root(
        self, root: Path, contract: Contract, bindings: dict[str, Value], receiver: Value, state: State, place: ir.Place
    ) -> tuple[State, Path | None]:
        """The caller's session behind a callee's path."""
        if root[0] == "~":
            info = contract.infos[root]
            if root not in state.sessions:
                state = self.track(info._replace(place=place), SessionState(), state)
            return state, root
        if root[0] == contract.me:
            value = receiver
        elif root[0] in bindings:
            value = bindings[root[0]]
        else:
            return state, None
        state, value = self.behind(value, root, state, place)
        return state, value.identity if isinstance(value, Session) else None

    def behind(self, value: Value, root: Path, state: State, place: ir.Place) -> tuple[State, Value]:
        """Our value for a callee's path; value: what its first name stands for."""
        for index, name in enumerate(root[1:]):
            path = value.path if isinstance(value, Instance) else ()
            assigned = state.variables.get((*path, name)) if path else None
            value = self.attribute(value, name, (*path, name)) if assigned is None else assigned
            if isinstance(value, Borrowed) and index == len(root) - 2:
                if not path:
                    return state, None
                state, value = self.materialise(value, state, (*path, name), place, result.ATTRIBUTE)
        if isinstance(value, Registry):
            state, value = self.materialise(value, state, root, place, result.AMBIENT)
        return state, value

    # ------------------------------------------------------------------------- nested functions and classes

    def nested_function(
        self, callee: Closure, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        """A nested function is run in place: it sees our variables."""
        function = callee.function
        if function.is_generator or self.depth >= _MAX_DEPTH or (function.is_async and purpose == "dropped"):
            return self.unknown_call(node, arguments, state, outcome, call_text(node), False)
        return self._run_in_place(function, self._bind_plain(function, arguments), state, outcome)

    def _run_in_place(self, function: ir.Function, bindings: dict[str, Value], state: State, outcome: Outcome) -> Pairs:
        """Run a nested function in our state."""
        nested = type(self)(self.project, FunctionRef(self.module, function), self.depth + 1)
        nested.flow.sessions = self.flow.sessions
        nested.frames = self.frames
        nested.has_failed = self.has_failed
        kept = {path: value for path, value in state.variables.items() if path[0] not in nested.local_names}
        inner = State(kept, state.sessions, state.thrown)
        for name, value in bindings.items():
            inner = inner.bind((name,), value)
        inner_outcome = Outcome()
        nested.run_block(function.body, States([inner]), inner_outcome)
        self.flow.events.extend([event for event in nested.flow.events if event not in self.flow.events])
        self.flow.calls.extend([handing for handing in nested.flow.calls if handing not in self.flow.calls])
        self.flow.direct |= nested.flow.direct
        self.has_failed |= nested.has_failed
        self.flow.first_uses |= nested.flow.first_uses
        self.flow.begins = {**nested.flow.begins, **self.flow.begins}

        def back(after: State) -> State:
            return State(state.variables, after.sessions, after.thrown)

        for after, error in inner_outcome.raises:
            outcome.raises.add(back(after), error)
        pairs: Pairs = [(back(after), None) for after in inner_outcome.normal]
        pairs += [(back(after), value) for after, value, _ in inner_outcome.returns]
        unique = {(after.key, value): (after, value) for after, value in pairs}
        return list(unique.values())

    def _bind_plain(self, function: ir.Function, arguments: Arguments) -> dict[str, Value]:
        """Which parameter of a nested function gets which value."""
        positional = [parameter.name for parameter in function.parameters if parameter.kind == "positional"]
        bound = dict(zip(positional, [value for name, value, _ in arguments if name is None], strict=False))
        bound.update({name: value for name, value, _ in arguments if name is not None and name not in ("*", "**")})
        return bound

    def construct(self, reference: ClassRef, arguments: Arguments) -> Value:
        """An object of a class of the project, with the sessions that it was given."""
        fields = []
        if any([carries_session(value) for _, value, _ in arguments]):
            stored = self.project.constructors.of(reference)
            position = 0
            for name, value, _ in arguments:
                if name is None:
                    name = stored.positional[position] if position < len(stored.positional) else None
                    position += 1
                if name is not None and carries_session(value):
                    fields += [(field, value) for field in stored.fields.get(name, (name,))]
        return Instance(reference, (), tuple(sorted(fields)) if fields else ())


def _doubted(state: State, place: ir.Place) -> State:
    """Which override runs is not known: that a session has failed in the call is likely, and no more."""
    for identity, session in state.sessions.items():
        failed, causes = session.witness.failed, session.witness.causes
        if failed is not None and failed.place == place and causes and not causes[0].chosen:
            witness = session.witness._replace(causes=(causes[0]._replace(chosen=True), *causes[1:]))
            state = state.set(identity, session._replace(witness=witness))
    return state
