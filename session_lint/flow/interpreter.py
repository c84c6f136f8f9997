"""The flow interpreter: runs a function's IR over sets of abstract states, exceptions and all.

Python is structured, so the interpreter is compositional: every statement takes states and gives states per way
out (`Outcome`). Every call may raise, every await may be cancelled; `finally` and `with` run on all ways out.
Loops run until no new state appears.

The interpreter is a stack of layers, one file each, every layer a subclass of the one below and ignorant of those
above, but for the three methods that it needs of them and declares itself (`run_block` in `nested_calls.py`,
`evaluate` and `enter_value` in `calls.py`):

    Interpreter    interpreter.py    statements
    Exceptions     exceptions.py     raise, try
    Evaluation     evaluation.py     expressions
    Conditions     conditions.py     verdicts of conditions
    Managers       managers.py       the beginning of with blocks, loops over session generators
    Leaving        leaving.py        the end of with blocks
    Renewals       renewals.py       blocks in which a name means a session of its own
    Starts         starts.py         sessions that go into tasks, threads and jobs
    Calls          calls.py          callee and arguments; sends a call to one of the next three
    DecoratedCalls decorated_calls.py what a decorator's wrapper calls
    NestedCalls    nested_calls.py   nested functions, in place
    ProjectCalls   project_calls.py  functions and classes of the project
    ContractCalls  contract_calls.py what a callee's contract means for the caller's sessions
    ForeignCalls   foreign_calls.py  what can't be seen
    SessionCalls   session_calls.py  methods of sessions, transactions, engines, generators
    Variables      variables.py      names, and who is responsible for what they hold
    Objects        objects.py        mapped objects that a session has loaded
    Effects        effects.py        what an operation does to a session
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.answers import said
from session_lint.flow.entry import entry_states
from session_lint.flow.errors import Error
from session_lint.flow.exceptions import Exceptions
from session_lint.flow.liveness import Liveness
from session_lint.flow.objects import element_of
from session_lint.flow.outcome import Outcome
from session_lint.flow.plain_values import PlainValues
from session_lint.flow.result import Exit, FunctionFlow
from session_lint.flow.state import BROKEN, SessionState, State, States
from session_lint.flow.turns import has_turns
from session_lint.flow.values import (
    Answer,
    Const,
    Coroutine,
    Instance,
    Items,
    Loaded,
    Path,
    Registry,
    Session,
    Truth,
    Value,
)
from session_lint.ir_queries import is_endless, place_of, words
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_ROUNDS = 6
"""How often a loop's body is run at most; the typestate is finite and small, so that is enough in practice."""


class Interpreter(Exceptions):
    """Interprets one function of the project."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int = 0) -> None:
        super().__init__(project, reference, depth)
        self._blocks: dict[type, Callable[..., Outcome]] = {
            ir.Assign: self._assign,
            ir.Expression: self._expression_statement,
            ir.Return: self._return,
            ir.Raise: self.run_raise,
            ir.Break: self._break,
            ir.Continue: self._continue,
            ir.Delete: self._delete,
            ir.Assert: self._assert,
            ir.If: self._if,
            ir.While: self._while,
            ir.For: self._for,
            ir.Try: self.run_try,
            ir.With: self._with,
            ir.Match: self._match,
            ir.Define: self._define,
        }
        self.steps = 0
        """How many statements were run, each once for every state before it."""
        self._liveness = Liveness(project.table.bodies, self.function, self.local_names)
        self._plain_values = PlainValues(project.table.bodies, self.function)

    def run(self, begun: int = 0, constants: tuple[tuple[str, Value], ...] = ()) -> FunctionFlow:
        """Interpret the function from its entry.

        begun: 1 if it is handed its sessions in a begin() block. constants: parameters whose value is known.
        """
        outcome = Outcome()
        start = States(entry_states(self, begun, dict(constants)))
        self.run_block(self.function.body, start, outcome)
        end = self.function.place
        last = (end[2], end[3], end[2], end[3])
        for state in outcome.normal:
            self.flow.exits.append(Exit(None, state, last, Const(None)))
        for state, value, place in outcome.returns:
            self.flow.exits.append(Exit(None, state, place, value))
        for state, error in outcome.raises:
            self.flow.exits.append(Exit(error, state, error.place))
        return self.flow

    # --------------------------------------------------------------------------------------------- blocks

    def run_block(self, body: Iterable[ir.Stmt], states: States, outcome: Outcome) -> None:
        """Run statements one after the other; what falls through is added to outcome.normal."""
        current = states
        for statement in body:
            if not current:
                return
            run = self._blocks.get(type(statement))
            if run is None:
                continue
            self.statement = statement
            self.steps += len(current)
            result = run(statement, current)
            if self.frames:
                outcome.jumps(result)
            else:
                outcome.exits(result)
            current = result.normal
            if len(current) > 1:
                current = self._liveness.forget(current, statement)
        outcome.normal.update(current)

    def _assign(self, node: ir.Assign, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            for after, value in self.evaluate(node.value, state, outcome, "assigned"):
                if isinstance(value, Registry) and len(node.targets) == 1:
                    value = self.project.statics.results.made_here(self.flow.reference, node.targets[0], value)
                pairs = [(after, value)]
                if node.annotation is not None and len(node.targets) == 1 and isinstance(value, (Loaded, type(None))):
                    ready, held = self.declared(node, after)
                    if value is not None:
                        held = held._replace(loaded=value) if isinstance(held, Instance) else held or value
                    pairs = [(ready, held)]
                elif value is None and len(node.targets) == 1:
                    pairs = self.shaped(node.targets[0], node.value, after)
                if value is None and len(node.targets) == 1:
                    plain = self._plain_values.of(node.targets[0], node.value)
                    pairs = pairs if plain is None else [(ready, plain) for ready, _ in pairs]
                for ready, held in pairs:
                    for target in node.targets:
                        ready = self._evaluate_target(target, ready, outcome)
                        ready = self.assign(target, held, ready, node)
                    outcome.normal.add(ready)
        return outcome

    def _evaluate_target(self, target: ir.Expr, state: State, outcome: Outcome) -> State:
        """`repository.get(1).name = "x"`: the calls in a target are made, too."""
        if isinstance(target, ir.Name) and len(target.path) > 1:
            held = state.variables.get(target.path[:1])
            if isinstance(held, Coroutine):
                self.not_awaited(held, state)
        if isinstance(target, ir.Attribute):
            place = place_of(self.statement)
            for after, held in self.evaluate(target.base, state, outcome, "attribute"):
                return self.changed_of(held, target.name, words(target), place, after)
        if isinstance(target, ir.Subscript):
            for part in (target.base, *target.items):
                state = next((after for after, _ in self.evaluate(part, state, outcome, "item")), state)
        return state

    def _expression_statement(self, node: ir.Expression, states: States) -> Outcome:
        outcome = Outcome()
        grown = self._plain_values.grown(node)
        for state in states:
            for after, value in self.evaluate(node.value, state, outcome, "dropped"):
                if isinstance(value, Coroutine):
                    self.not_awaited(value, after)
                outcome.normal.add(after.bind((grown,), Truth(True)) if grown else after)
        return outcome

    def _return(self, node: ir.Return, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            for after, value in self.evaluate(node.value, state, outcome, "returned"):
                self.note_returned(value, after)
                if self.has_failed:
                    self.note_return(node, after)
                outcome.returns.add(self.hand_over(value, after), said(node.value, value), node.place)
        return outcome

    def _break(self, node: ir.Break, states: States) -> Outcome:
        outcome = Outcome()
        outcome.breaks.update(states)
        return outcome

    def _continue(self, node: ir.Continue, states: States) -> Outcome:
        outcome = Outcome()
        outcome.continues.update(states)
        return outcome

    def _delete(self, node: ir.Delete, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            for target in node.targets:
                if isinstance(target, ir.Name):
                    state = state.bind(target.path, None)
            outcome.normal.add(state)
        return outcome

    def _assert(self, node: ir.Assert, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            for after, verdict in self.test(node.test, state, outcome):
                if verdict is not False:
                    outcome.normal.add(after)
                if verdict is not True:
                    outcome.raises.add(after, Error("AssertionError", node.place, "assert"))
        return outcome

    def _define(self, node: ir.Define, states: States) -> Outcome:
        outcome = Outcome()
        for state in states:
            outcome.normal.add(self.define(node.definition, state))
        return outcome

    # ------------------------------------------------------------------------------------------- branches

    def _if(self, node: ir.If, states: States) -> Outcome:
        outcome = Outcome()
        true, false = States(), States()
        for state in states:
            for after, verdict in self.test(node.test, state, outcome):
                if verdict is not False:
                    true.add(after)
                if verdict is not True:
                    false.add(after)
        with self.inside("if", node):
            self.run_block(node.body, true, outcome)
            self.run_block(node.orelse, false, outcome)
        return outcome

    def _match(self, node: ir.Match, states: States) -> Outcome:
        outcome = Outcome()
        waiting = States()
        for state in states:
            for after, _ in self.evaluate(node.subject, state, outcome):
                waiting.add(after)
        exhausted = False
        with self.inside("if", node):
            for case in node.cases:
                taken = States()
                for state in waiting:
                    for name in case.names:
                        state = state.bind((name,), None)
                    if case.guard is None:
                        taken.add(state)
                    else:
                        for after, verdict in self.test(case.guard, state, outcome):
                            if verdict is not False:
                                taken.add(after)
                self.run_block(case.body, taken, outcome)
                if case.irrefutable:
                    exhausted = True
                    break
        if not exhausted:
            outcome.normal.update(waiting)
        return outcome

    # ---------------------------------------------------------------------------------------------- loops

    def _while(self, node: ir.While, states: States) -> Outcome:
        outcome = Outcome()
        forever = is_endless(node)

        def enter(state: State) -> tuple[list[State], list[State]]:
            inside, done = [], []
            for after, verdict in self.test(node.test, state, outcome):
                if verdict is not False:
                    inside.append(after)
                if verdict is not True and not forever:
                    done.append(after)
            return inside, done

        with self.inside("while", node):
            done = self._loop(node.body, states, enter, outcome)
        self.run_block(node.orelse, done, outcome)
        return outcome

    def _for(self, node: ir.For, states: States) -> Outcome:
        outcome = Outcome()
        entered, done = States(), States()
        elements: set[Value] = set()
        for state in states:
            for after, value in self.evaluate(node.iterable, state, outcome, "iterated"):
                if value == Truth(False):
                    done.add(after)
                if value in (Truth(False), Const(None)):  # The one has no turns, the other raises a TypeError.
                    continue
                elements.add(element_of(value, after))
                iterated = self.iterate_generator(node, value, after, outcome)
                if iterated is not None:
                    outcome.normal.update(iterated)
                    continue
                for ready in self.iterate(value, after, node, outcome):
                    entered.add(ready)

        element = _common(elements)
        runs = has_turns(self.project.table.bodies, self.function, node.iterable)

        def enter(state: State) -> tuple[list[State], list[State]]:
            return [self.assign(node.target, element, state, node)], [] if runs else [state]

        if entered:
            with self.inside("for", node):
                done.update(self._loop(node.body, entered, enter, outcome, runs))
        self.run_block(node.orelse, done, outcome)
        return outcome

    def _loop(
        self,
        body: tuple[ir.Stmt, ...],
        states: States,
        enter: Callable[[State], tuple[list[State], list[State]]],
        outcome: Outcome,
        runs: bool = False,
    ) -> States:
        """The states after a loop's last turn. runs: it may end after each turn, but not before the first."""
        seen, done, frontier = States(), States(), States(states)
        outer = {path for state in states for path in state.variables}
        for _ in range(_ROUNDS):
            inside = States()
            for state in frontier:
                if seen.add(state):
                    before, after = enter(state)
                    inside.update(before)
                    done.update(after)
            if not inside:
                break
            result = Outcome()
            self.run_block(body, inside, result)
            outcome.returns.update(result.returns)
            outcome.raises.update(result.raises)
            outcome.normal.update(result.breaks)
            # What a turn has loaded, the next one loads anew before it reads it.
            frontier = States([_without_new(state, outer) for state in (*result.normal, *result.continues)])
            if runs:
                done.update(frontier)
        return done

    # ----------------------------------------------------------------------------------------------- with

    def _with(self, node: ir.With, states: States) -> Outcome:
        outcome = Outcome()
        with self.inside("with", node):
            self._with_items(node, 0, states, outcome)
        if self.raises_again(node):
            left = self.run_raise(ir.Raise(None, None, node.place), outcome.normal)
            outcome.normal = States()
            outcome.jumps(left)
        return outcome

    def _with_items(self, node: ir.With, index: int, states: States, outcome: Outcome) -> None:
        if index == len(node.items):
            self.run_block(node.body, states, outcome)
            return
        item = node.items[index]
        groups: dict[Value, States] = {}
        for state in states:
            for after, value in self.evaluate(item.value, state, outcome, "with"):
                for entered, manager, bound in self.enter(value, after, node, item, outcome):
                    if item.target is not None:
                        entered = self.assign(item.target, bound, entered, node)
                    groups.setdefault(manager, States()).add(entered)
        for manager, group in groups.items():
            inner = Outcome()
            self._with_items(node, index + 1, group, inner)
            self.leave(manager, inner, outcome, node)

    # ------------------------------------------------------------------------------------------ assigning

    def assign(self, target: ir.Expr, value: Value, state: State, node: ir.Stmt) -> State:
        """Give a target a value. What is stored outside the function's own variables is handed over."""
        if isinstance(target, ir.Name):
            if len(target.path) == 1:
                if target.path[0] in self.outer_names:
                    return self.hand_over(value, state)
                return self.rebind(target.path, value, state, node)
            if len(target.path) == 2:
                state = self.changed(target.path, node.place, state)
            if self.has_failed:
                state = self.refill(target.path[:1], state)
            old = state.sessions.get(target.path)
            if old is not None and old.transaction in BROKEN:
                # What is used under this name from now on is another session.
                state = state.set(target.path, SessionState())
            if isinstance(value, Session):
                self.name_session(value, target)
                return self.store(value, target, state, node).bind(target.path, value)
            kept = None if isinstance(value, Loaded) else value
            return self.hand_over(kept, state).bind(target.path, kept)
        if isinstance(target, ir.Collection):
            values = value.items if isinstance(value, Items) and len(value.items) == len(target.items) else ()
            if isinstance(value, Answer) and len(value.parts) == len(target.items):
                values = tuple([value.part(index) for index in range(len(target.items))])
            for index, part in enumerate(target.items):
                state = self.assign(part, values[index] if values else None, state, node)
            return state
        changed = target.base.path if isinstance(target, ir.Subscript) and isinstance(target.base, ir.Name) else ()
        if isinstance(state.variables.get(changed), Answer):
            state = state.bind(changed, None)
        if (
            isinstance(target, ir.Subscript)
            and isinstance(target.base, ir.Name)
            and self._stays_here(target.base, node)
        ):
            return state
        if isinstance(target, (ir.Subscript, ir.Attribute)):
            return self.store(value, target, state, node)
        return state

    def _stays_here(self, container: ir.Name, node: ir.Stmt) -> bool:
        """`kwargs["session"] = session` of a session that is closed by its own name: the dict only passes it on."""
        own = {parameter.name for parameter in self.function.parameters if parameter.kind == "**"}
        if len(container.path) != 1 or not isinstance(node, ir.Assign) or not isinstance(node.value, ir.Name):
            return False
        is_local = container.path[0] in own or container.path[0] not in {item.name for item in self.function.parameters}
        usage = self.project.statics.usage(self.flow.reference).get(node.value.path)
        return is_local and container.path[0] in self.local_names and usage is not None and "close" in usage.methods

    def declared(self, node: ir.Assign, state: State) -> tuple[State, Value]:
        """`session: Session = something unknown`: believe the annotation."""
        assert node.annotation is not None
        value = self.project.statics.annotations.instance(self.module, node.annotation)
        target = node.targets[0]
        name = target.path if isinstance(target, ir.Name) else ("?",)
        return self.materialise(value, state, name, node.place, "attribute")


def _common(elements: set[Value]) -> Value:
    """What all turns of a loop are about: of objects that differ in nothing but their age, the newest."""
    loaded = sorted([item for item in elements if isinstance(item, Loaded)], key=lambda item: item.since)
    if len(loaded) == len(elements) and len({item._replace(since=0) for item in loaded}) == 1:
        return loaded[-1]
    return elements.pop() if len(elements) == 1 else None


def _without_new(state: State, outer: set[Path]) -> State:
    new = [path for path, value in state.variables.items() if isinstance(value, Loaded) and path not in outer]
    return state.forget(new) if new else state
