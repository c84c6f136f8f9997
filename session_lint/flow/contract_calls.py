"""What a callee's contract means to its caller: which session is which, and what has been done to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import errors, result
from session_lint.flow import operations as ops
from session_lint.flow.contracts import Contract, compose, marks_of
from session_lint.flow.effects import is_active, known_transaction
from session_lint.flow.errors import Error
from session_lint.flow.foreign_calls import ForeignCalls
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import (
    BROKEN,
    CLOSED,
    ENTRY,
    FAILED,
    GONE,
    INACTIVE,
    NONE,
    OPEN,
    Mark,
    Pairs,
    SessionState,
    State,
)
from session_lint.flow.values import (
    Argument,
    Arguments,
    Borrowed,
    Function,
    Instance,
    Path,
    Query,
    Registry,
    Session,
    Value,
    carries_session,
    direct_sessions,
)
from session_lint.ir_queries import has_decorator, me_of, path_of
from session_lint.project.keywords import taken_out
from session_lint.project.modules import FunctionRef
from session_lint.project.passing import leaves_alone

if TYPE_CHECKING:
    from session_lint.project.link import Project
    from session_lint.project.summaries import Constants


class ContractCalls(ForeignCalls):
    """Applies the contracts of functions to the caller's sessions."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self._handings: set[result.Handing] = set()

    def bind(self, callee: Function, arguments: Arguments) -> tuple[tuple[str, Value], ...]:
        """Which parameter gets which value; those that are not named have their default."""
        bound = {name: value for name, (_, value, _) in self.taken_by(callee, arguments).items()}
        if any([name in ("*", "**") for name, _, _ in arguments]):
            parameters = {parameter.name: None for parameter in _takes(callee)}
            bound = {**self._left_out(callee, arguments), **parameters, **bound}
        return tuple(bound.items())

    def taken_by(self, callee: Function, arguments: Arguments) -> dict[str, Argument]:
        """The arguments by the parameters that take them, as far as a name or a place says it."""
        parameters = _takes(callee)
        taken: dict[str, Argument] = {}
        position = 0
        for argument in arguments:
            name = argument[0]
            if name is None:
                while position < len(parameters) and parameters[position].kind == "keyword":
                    position += 1
                if position < len(parameters) and parameters[position].kind == "positional":
                    taken[parameters[position].name] = argument
                    position += 1
            elif name not in ("*", "**"):
                taken[name] = argument
        return taken

    def _left_out(self, callee: Function, arguments: Arguments) -> dict[str, Value]:
        """The keywords that `**kwargs` can't hold any more: each is what the callee takes instead."""
        unpacked = [node for name, _, node in arguments if name == "**"]
        if not self.packed or unpacked != [ir.Name((self.packed,))]:
            return {}
        gone, flags = taken_out(self.function), self.project.summaries.flags(callee.reference)
        return {name: default for name, default in flags.items() if name in gone}

    def handed(self, callee: Function, bindings: tuple[tuple[str, Value], ...], state: State) -> dict[Path, Path]:
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

    def note_handing(self, callee: FunctionRef, place: ir.Place, handed: dict[Path, Path]) -> None:
        if handed:
            handing = result.Handing(callee, place, tuple(sorted(handed.items())))
            if handing not in self._handings:
                self._handings.add(handing)
                self.flow.calls.append(handing)

    def note_invocation(self, callee: FunctionRef, constants: Constants, handed: Iterable[Path], state: State) -> None:
        """Note how a function is called that is handed sessions in a begin() block, or such as we were given."""
        known = [identity for identity in handed if identity in state.sessions]
        in_block = any([state.sessions[identity].begun == 1 for identity in known])
        is_parameter = any([self.flow.sessions[identity].origin == result.PARAMETER for identity in known])
        if in_block or is_parameter:
            self.flow.invocations[result.Invocation(callee, constants, in_block, is_parameter)] = None

    def sessions_behind(
        self, contract: Contract, bindings: dict[str, Value], receiver: Value, state: State, place: ir.Place
    ) -> tuple[State, dict[Path, Path]]:
        """Our session behind each of the callee's roots."""
        identities: dict[Path, Path] = {}
        for root in contract.roots:
            state, identity = self.session_behind(root, contract, bindings, receiver, state, place)
            if identity is not None and identity in state.sessions:
                identities[root] = identity
        return state, identities

    def sessions_within(
        self, contract: Contract, taken: dict[str, Argument], roots: dict[Path, Path], state: State, place: ir.Place
    ) -> State:
        """Add to the roots what a callee finds in an object of which nothing is known, and we as well: `db.session`."""
        seen = self.project.statics.usage(self.flow.reference)
        for root in contract.roots:
            if root in roots or len(root) != 2 or root[0] not in taken or taken[root[0]][1] is not None:
                continue
            info, path = contract.infos[root], path_of(taken[root[0]][2])
            identity = (*path, root[1])
            if len(path) == 1 and info.origin == result.ATTRIBUTE and identity in seen:
                if identity not in state.sessions:
                    info = SessionInfo(identity, ".".join(identity), result.ATTRIBUTE, info.type, place)
                    state = self.track(info, SessionState(), state)
                roots[root] = identity
        return state

    def unknown_to(
        self, contract: Contract, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]
    ) -> list[Value]:
        """The arguments that are or hold a session without the callee knowing it: it may use them in any way."""
        unknown: list[Value] = []
        kept = self.project.table.bodies.only_stored(reference.function.body)
        parameters = {parameter.name: parameter for parameter in reference.function.parameters}
        for name, value in bindings:
            if not carries_session(value) or name in kept or any([path[0] == name for path in contract.known]):
                continue
            if isinstance(value, Instance):
                parameter = parameters.get(name)
                if parameter is not None and self.project.parameter(reference, parameter)[0] is not None:
                    continue
            if isinstance(value, Session) and leaves_alone(self.project.table.bodies, reference.function, name):
                continue
            unknown.append(value)
        return unknown

    def lend_indirectly(self, value: Value, node: ir.Call, label: str, state: State, outcome: Outcome) -> State:
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

    def apply_contract(
        self,
        contract: Contract,
        identities: dict[Path, Path],
        place: ir.Place,
        label: str,
        state: State,
        outcome: Outcome,
    ) -> Pairs:
        """The states after a call that returns, and what it answers in each; its failures go to the outcome."""
        spared = {root for root, identity in identities.items() if _spares(contract, root, state.sessions[identity])}
        for root in contract.first_uses - spared:
            if root in identities:
                identity = identities[root]
                session = state.sessions[identity]
                if session.transaction in BROKEN and self._recovers(contract, root):
                    continue
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
            if any([_rules_out(effect, state, identities.get(root)) for root, effect in way.sessions]):
                continue
            if any([root in spared and effect.transaction != INACTIVE for root, effect in way.sessions]):
                continue
            after = state
            effects = sorted(way.sessions, key=lambda pair: pair[1].reset) if is_shared else way.sessions
            for root, effect in effects:
                if root in identities:
                    identity = identities[root]
                    if effect.transaction == INACTIVE:
                        after = self.inactive(after, identity)
                    session = after.sessions[identity]
                    if effect.transaction == GONE and session.transaction == ENTRY:
                        session = session._replace(transaction=GONE)
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
                    if effect.reset and not effect.commits:
                        after = self.rolled_back_too(identity, after)
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

    def _recovers(self, contract: Contract, root: Path) -> bool:
        """Whether the callee does nothing but end the session's transaction, and rolls back if that fails.

        If an error is on its way out, the callee may raise another one, or leave the session to somebody else.
        """
        seen = self.project.statics.usage(contract.reference).get(root)
        if seen is None or not seen.methods <= ops.ENDING:
            return False
        for way in contract.ways:
            left = [effect.transaction for known, effect in way.sessions if known == root]
            if not left and self.failing:
                continue
            if (way.error in errors.DATABASES and not self.failing) or not left or left[0] not in (NONE, CLOSED):
                return False
        return True

    def session_behind(
        self, root: Path, contract: Contract, bindings: dict[str, Value], receiver: Value, state: State, place: ir.Place
    ) -> tuple[State, Path | None]:
        """The caller's session behind a callee's path."""
        if root[0] == "~":
            return self.meet(contract.infos[root], contract.reference, state, place), root
        if root[0] == contract.me:
            value = receiver
        elif root[0] in bindings:
            value = bindings[root[0]]
        else:
            return state, None
        state, value = self.behind(value, root, state, place)
        return state, value.identity if isinstance(value, Session) else None

    def meet(self, info: SessionInfo, callee: FunctionRef, state: State, place: ir.Place) -> State:
        """Know the session of a module that a callee works with."""
        if info.identity in state.sessions:
            return state
        here = info._replace(place=place, name=self._name_outside(info, callee))
        return self.track(here, SessionState(), state)

    def _name_outside(self, info: SessionInfo, callee: FunctionRef) -> str:
        """What to call a session of a module here: the callee's `self.session` means something else."""
        first = info.name.partition(".")[0]
        is_global = self.project.table.resolve(callee.module, (first,)) is not None
        if is_global and first not in [parameter.name for parameter in callee.function.parameters]:
            return info.name
        variable = ".".join(info.identity[2:])
        return f"{variable}.get()" if variable and info.name.endswith(".get()") else variable or info.name

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
            # Called what it is everywhere: the callee's `self.session` means nothing here.
            named = root if value.is_unnamed else value.identity[1:]
            state, value = self.materialise(value, state, named, place, result.AMBIENT)
        return state, value


def _takes(callee: Function) -> list[ir.Parameter]:
    """What the caller gives to a callee: not its `self`."""
    function = callee.reference.function
    is_bound = callee.receiver is not None or has_decorator(function, "classmethod")
    is_method = function.owner and is_bound and not has_decorator(function, "staticmethod")
    return list(function.parameters[1:] if is_method else function.parameters)


def _rules_out(effect: SessionState, state: State, identity: Path | None) -> bool:
    """Whether a way is taken only with a session that is unlike ours.

    One that has failed in a flush, is closed, or is in a transaction or not, as the callee has asked.
    """
    if identity is None:
        return False
    session = state.sessions[identity]
    known = known_transaction(session) if effect.found is not None else None
    if known is not None and known != effect.found:
        return True
    if effect.transaction == GONE:
        return session.transaction not in (ENTRY, GONE, CLOSED)
    return effect.transaction == INACTIVE and is_active(session) is True


def _spares(contract: Contract, root: Path, session: SessionState) -> bool:
    """`if not session.is_active: return`: whether the callee asks, and leaves alone what has failed in a flush."""
    if session.transaction != FAILED:
        return False
    effects = [effect for way in contract.ways for known, effect in way.sessions if known == root]
    inactive = [effect for effect in effects if effect.transaction == INACTIVE]
    return bool(inactive) and is_active(session) is False and not any([effect.touched for effect in inactive])
