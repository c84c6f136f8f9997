"""Calls of what the project defines: functions by their contracts, and constructors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.contract_calls import ContractCalls
from session_lint.flow.contracts import Contract
from session_lint.flow.outcome import Outcome
from session_lint.flow.state import Pairs, SessionState, State, distinct
from session_lint.flow.values import (
    JOINED,
    Answer,
    Arguments,
    Borrowed,
    Coroutine,
    Factory,
    Function,
    Generator,
    Instance,
    Items,
    Manager,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    Value,
    carries_session,
    direct_sessions,
    is_lasting,
    loaded_in,
)
from session_lint.ir_queries import call_text, decorator_name, is_abstract, is_hook, last_name, path_of
from session_lint.project.modules import ClassRef, FunctionRef
from session_lint.project.passing import passed_on
from session_lint.project.provider import UNSEEN

if TYPE_CHECKING:
    from session_lint.project.summaries import Constants

_PLAIN = frozenset({"staticmethod", "classmethod", "override"})
"""Decorators that leave a coroutine function one."""

_MAX_OVERRIDES = 8
"""Of a method with more of them, nobody can say what it does."""

_GIVEN = (Opened, Borrowed, Registry)
"""What becomes a session of the caller."""


class ProjectCalls(ContractCalls):
    """Applies calls of functions and classes that the project defines."""

    def contract_of(
        self, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]
    ) -> tuple[Constants, Contract | None]:
        """What a call of a function does, with its decorators, and the constants that decide about that."""
        constants = self.project.summaries.constants(reference, bindings)
        return constants, self.project.contract(reference, constants)

    def _taken_over(self, reference: FunctionRef, handed: dict[Path, Path], state: State) -> State:
        """The state after a generator was made which closes the sessions that it is given, however it ends."""
        provider = self.project.provider(reference) if handed else UNSEEN
        if provider.seen and provider.closes and provider.closes_on_error:
            for root in provider.parameters:
                if root in handed:
                    state = self.hand_over(Session(handed[root]), state)
        return state

    def project_function(
        self, callee: Function, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        reference = callee.reference
        function = reference.function
        statics = self.project.statics
        bindings = self.bind(callee, arguments)
        is_open = is_hook(function)
        if (is_open or is_abstract(function)) and not (function.is_async and purpose in ("dropped", "attribute")):
            # What it gives is what its annotation says.
            given = self._result(callee, bindings)
            overrides = self._overrides(callee, purpose)
            if overrides:
                pairs = self._any_of(overrides, given, node, arguments, state, outcome, purpose)
                return distinct([*pairs, *self._giving(given, [state], node)]) if is_open else pairs
            if not is_open:
                # Which of its implementations runs can't be seen.
                self.note_handing(reference, node.place, self.handed(callee, bindings, state))
                called = self.unknown_call(node, arguments, state, outcome, call_text(node), False)
                return self._giving(given, [after for after, _ in called], node)
        if function.is_generator:
            static = statics.results.returned(reference)
            if isinstance(static, Manager):
                return [(state, static._replace(value=callee.receiver, place=node.place, bindings=bindings))]
            if statics.results.is_manager(reference):
                return [(state, Manager("provider", callee.receiver, reference, (), node.place, bindings))]
            state = self._taken_over(reference, self.handed(callee, bindings, state), state)
            return [(state, Generator(reference, node.place))]
        label = call_text(node)
        handed = self.handed(callee, bindings, state)
        touched = [identity for (name, *rest), identity in handed.items() if not rest]
        coroutine: Coroutine | None = None
        is_lost = purpose == "returned" and self.is_answer(touched[0] if touched else ())
        if function.is_async and (is_lost or purpose in (*ops.NEVER_AWAITED, "assigned")):
            if touched or self._needs_await(callee):
                coroutine = Coroutine(None, label, node.place, touched[0] if touched else ())
            if purpose != "assigned":
                return [(state, coroutine)]
        constants, contract = self.contract_of(reference, bindings)
        if contract is None:
            self.note_handing(reference, node.place, handed)
            return self.unknown_call(node, arguments, state, outcome, label, False)
        self.cancellation_known = function.is_async
        state, roots = self.sessions_behind(contract, dict(bindings), callee.receiver, state, node.place)
        state = self.sessions_within(contract, self.taken_by(callee, arguments), roots, state, node.place)
        handed.update(roots)
        self.note_handing(reference, node.place, handed)
        self.note_invocation(reference, constants, handed.values(), state)
        returned_as: Path | None = None
        results = statics.results
        if contract.returned is not None:
            root = contract.returned.identity
            state, returned_as = self.session_behind(root, contract, dict(bindings), callee.receiver, state, node.place)
        loaded = contract.loaded
        if loaded is not None:
            owner = roots.get(loaded.identity)
            since = -1 if loaded.since < 0 or owner is None else state.sessions[owner].commits
            model = results.model_for(callee, loaded.model)
            loaded = loaded._replace(identity=owner, since=since, model=model) if owner is not None else None
        unknown = self.unknown_to(contract, reference, bindings)
        for value in unknown:
            if isinstance(value, Session):
                state = self.lend(value, node, label, False, state, outcome)
        if contract.changes:
            state = self._changed_by(contract, callee, node, arguments, roots, state)
        returned = self.apply_contract(contract, roots, node.place, label, state, outcome)
        if is_open:
            returned = [(after, None) for after, _ in returned]  # an heir may say something else
        for value in unknown:
            if not isinstance(value, Session):
                returned = [
                    (self.lend_indirectly(value, node, label, after, outcome), answer) for after, answer in returned
                ]
        stored = self.project.table.bodies.stored(function.body)
        for name, value in bindings if stored else ():
            if name in stored and carries_session(value):
                returned = [(self.hand_over(value, after), answer) for after, answer in returned]
        value = self._result(callee, bindings)
        if contract.returned is not None and returned_as is not None and returned_as in state.sessions:
            value = contract.returned._replace(identity=returned_as)
            value = value._replace(model=results.model_for(callee, value.model)) if isinstance(value, Query) else value
        if value is None and (passed := passed_on(self.project.table.bodies, function)):
            given = dict(bindings).get(passed)
            value = given if isinstance(given, Session) else None
        if loaded is not None and value is None:
            value = loaded
        elif loaded is not None and isinstance(value, Instance):
            value = value._replace(loaded=loaded)
        if coroutine is not None and not isinstance(value, _GIVEN):
            return [(after, coroutine._replace(value=value)) for after, _ in returned]
        pairs = self._giving(value, [after for after, answer in returned if answer is None], node)
        pairs += [
            self._gift(answer, contract, callee, dict(bindings), value, after, node)
            for after, answer in returned
            if isinstance(answer, Items)
        ]
        for after, answer in returned:
            # A tuple with a session in it, or an object whose class is known, matters more than what it says.
            if isinstance(answer, Answer) and value is not None:
                pairs += self._giving(value, [after], node)
            elif answer is not None and not isinstance(answer, Items):
                pairs.append((after, answer))
        return pairs

    def _changed_by(
        self,
        contract: Contract,
        callee: Function,
        node: ir.Call,
        arguments: Arguments,
        roots: dict[Path, Path],
        state: State,
    ) -> State:
        """`rename(user, name)`, `user.rename(name)`: what the callee changes of the objects that it is given.

        A callee that commits has sent them, too, be it with the session that it asks the object for.
        """
        ends = {roots.get(root) for way in contract.ways for root, effect in way.sessions if effect.commits}
        taken = self.taken_by(callee, arguments)
        done: set[str] = set()
        for parameter, attribute, many in sorted(contract.changes):
            if parameter == contract.me:
                held, path = callee.receiver, path_of(node.function)[:-1]
            elif parameter in taken:
                held, path = taken[parameter][1], path_of(taken[parameter][2])
            else:
                continue
            if self._commits_session_of(parameter, callee):
                continue
            loaded = loaded_in(held)
            if loaded is None and len(path) == 1:
                self.changed((*path, attribute), node.place, state, many)
            elif loaded is not None and loaded.identity not in ends and parameter not in done:
                text = f"{'.'.join(path) or 'an object'} in {call_text(node)}"
                before, state = state, self.changed_of(held, attribute, text, node.place, state, many)
                if state is not before:
                    done.add(parameter)
        return state

    def _commits_session_of(self, parameter: str, callee: Function) -> bool:
        """`session = object_session(self); ...; session.commit()`."""
        calls = self.project.table.bodies.calls(callee.reference.function.body)
        asked = [call for call in calls if last_name(call.function) in ("object_session", "async_object_session")]
        given = [argument.value for call in asked for argument in call.arguments]
        return ir.Name((parameter,)) in given and any([last_name(call.function) == "commit" for call in calls])

    def _gift(
        self,
        gift: Items,
        contract: Contract,
        callee: Function,
        bindings: dict[str, Value],
        static: Value,
        state: State,
        node: ir.Call,
    ) -> tuple[State, Value]:
        """A session that comes with what is to be known of it. static: what is known of the result in any case."""
        known = static.items if isinstance(static, Items) and len(static.items) == len(gift.items) else ()
        items: list[Value] = []
        for index, item in enumerate(gift.items):
            if isinstance(item, Session):
                kind = contract.infos[item.identity].type
                state, identity = self.session_behind(
                    item.identity, contract, bindings, callee.receiver, state, node.place
                )
                item = Session(identity) if identity is not None and identity in state.sessions else Borrowed(kind)
            elif item is None and known and not isinstance(known[index], _GIVEN):
                item = known[index]
            [(state, item)] = self._giving(item, [state], node)
            items.append(item)
        return state, Items(tuple(items))

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
        given: Value,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
    ) -> Pairs:
        """One of the overrides runs. given: what the abstract method's annotation says that they give."""
        pairs: Pairs = []
        inner = Outcome()
        for override in overrides:
            for after, own in self.project_function(override, node, arguments, state, inner, purpose):
                pairs += [(after, own)] if given is None else self._giving(given, [after], node)
        for after, error in inner.raises:
            outcome.raises.add(_doubted(after, node.place), error)
        return distinct([(_doubted(after, node.place), value) for after, value in pairs])

    def _needs_await(self, callee: Function) -> bool:
        """Whether an async function that is not handed a session works with one, so that it is our business."""
        if isinstance(callee.receiver, Instance) and self.project.holds_session(callee.receiver.reference):
            return True
        # A decorator may make something else of it, such as a task or a plain function.
        module, function = callee.reference
        keeps = [
            decorator_name(each) in _PLAIN or self.project.decorators.keeps_coroutine(module, each)
            for each in function.decorators
        ]
        return all(keeps) and self.project.works_with_sessions(callee.reference)

    def only_method(self, node: ir.Call, arguments: Arguments, state: State) -> Function | None:
        """`plugin.instance.consume(session=session)`: nobody knows what the object is, but one class has such a method.

        It must take what it is given, and know the session as one.
        """
        path = path_of(node.function)
        is_method = len(path) > 1 or isinstance(node.function, ir.Attribute)
        name = last_name(node.function) if is_method else ""
        given = [value for _, value, _ in arguments if isinstance(value, Session)]
        reference = self.project.table.only_method(name) if name and given else None
        if reference is None or reference.function is self.function:
            return None
        owner = ClassRef(reference.module, reference.module.classes[reference.function.owner or ""])
        callee = Function(reference, Instance(owner, path[:-1], ()))
        parameters = {parameter.name: parameter for parameter in reference.function.parameters}
        bound = dict(self.bind(callee, arguments))
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
            elif (
                isinstance(value, Items) and len(new := [item for item in value.items if isinstance(item, Opened)]) == 1
            ):
                [(after, session)] = self._giving(new[0], [after], node)
                items = [session if isinstance(item, Opened) else item for item in value.items]
                pairs.append((after, Items(tuple(items))))
            elif isinstance(value, Borrowed):
                path = (*path_of(node.function), "()")
                pairs.append(self.materialise(value, after, path, node.place, result.ATTRIBUTE))
            elif isinstance(value, Registry):
                is_new = value.is_unnamed  # The function has just made it.
                if is_new:
                    value = value._replace(identity=(*value.identity, f"@{node.place[0]}:{node.place[1]}"))
                after, session = self.materialise(value, after, (call_text(node),), node.place, result.AMBIENT)
                if is_new and isinstance(session, Session):
                    after = after.set(session.identity, SessionState())
                pairs.append((after, session))
            else:
                pairs.append((after, value))
        return pairs

    def _result(self, callee: Function, bindings: tuple[tuple[str, Value], ...]) -> Value:
        value = self.project.statics.results.given_by(callee)
        given_sessions = [given.identity for _, given in bindings if isinstance(given, Session)]
        is_joined = any([self.flow.sessions[identity].type.role == "connection" for identity in given_sessions])
        if isinstance(value, (Factory, Opened)) and is_joined:
            # `get_session_factory(connection)`: whoever has begun its transaction ends it.
            return value._replace(type=value.type._replace(commits=JOINED))
        held = [given for _, given in bindings if carries_session(given)]
        if isinstance(value, Instance) and held and not value.fields and self.project.holds_session(value.reference):
            # `get_repositories(session)`: the object that comes back works with the session that went in.
            return value._replace(
                fields=tuple([("?", session) for given in held for session in direct_sessions(given)])
            )
        return value

    def construct(self, reference: ClassRef, arguments: Arguments) -> Value:
        """An object of a class of the project, with the sessions that it was given."""
        given = [(name, value if carries_session(value) or is_lasting(value) else None) for name, value, _ in arguments]
        return Instance(reference, (), self.project.constructors.kept(reference, given))


def _doubted(state: State, place: ir.Place) -> State:
    """Which override runs is not known: that a session has failed in the call is likely, and no more."""
    for identity, session in state.sessions.items():
        failed, causes = session.witness.failed, session.witness.causes
        if failed is not None and failed.place == place and causes and not causes[0].chosen:
            witness = session.witness._replace(causes=(causes[0]._replace(chosen=True), *causes[1:]))
            state = state.set(identity, session._replace(witness=witness))
    return state
