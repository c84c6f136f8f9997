"""One program several times at once, in the order that brings out what else needs bad luck.

Two runs, of which the second comes between what the first has read and what it writes, must end as two runs one after
the other do. If they do not, and neither has raised, then rows are there twice or an update is lost.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.util import await_only

from session_lint.runtime.evidence import Evidence, Oracle, places
from session_lint.runtime.oracles import Case, exceptions
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Operation, Who
from session_lint.runtime.wire import identifier

Program = Callable[[], Any]
"""A function, or a coroutine function for the methods that are awaited."""

_PATIENCE = 5.0
"""Seconds that the first run waits for the second one, which may wait for a lock of the first one's."""
_GATHERING = 0.3
_TURN = 0.01


@dataclass
class Table:
    """What a second connection sees of a table: the values of each column, in an order of their own."""

    count: int = 0
    columns: dict[str, list[str]] = field(default_factory=dict)


State = Mapping[str, Table]
Plan = Generator[Program, None, list[Evidence]]


class Interleaver:
    """Runs programs together. They must use an engine of PostgreSQL's that the probe watches."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._gate: Callable[[Any, Operation], None] | None = None
        self._second: list[Any] = []
        self._errors: list[BaseException] = []
        self._attached = False

    # ------------------------------------------------------------------------------------------------ two interleaved

    def interleave(self, program: Program, reset: Program | None = None) -> list[Evidence]:
        """Evidence of duplicate rows and lost updates. reset: brings back the rows that the program begins with."""
        plan = self._plan(program, reset or _nothing)
        while True:
            try:
                step = next(plan)
            except StopIteration as stop:
                evidence: list[Evidence] = stop.value
                return evidence
            self._once(step)
            for thread in self._second:
                thread.join(2 * _PATIENCE)

    async def interleave_async(self, program: Program, reset: Program | None = None) -> list[Evidence]:
        """The same for coroutine functions."""
        plan = self._plan(program, reset or _nothing)
        while True:
            try:
                step = next(plan)
            except StopIteration as stop:
                evidence: list[Evidence] = stop.value
                return evidence
            await self._once_async(step)
            if self._second:
                await asyncio.wait(self._second, timeout=2 * _PATIENCE)

    def _plan(self, program: Program, reset: Program) -> Plan:
        """What is to be run, one after the other; the end is the evidence."""
        self._attach()
        self._errors, self._second, self._gate = [], [], None
        in_turn: list[State] = []
        for _ in range(2):  # the second time shows which columns differ from run to run in any case
            yield reset
            start = len(self._probe.recording.operations)
            yield program
            yield program
            in_turn.append(self._state(start))
        yield reset
        start = len(self._probe.recording.operations)
        first: list[Who] = []

        def gate(connection: Any, operation: Operation) -> None:
            if operation.writes and not first:
                first.append(operation.who)
                self._run_second(program, is_async=connection.dialect.is_async)

        self._gate = gate
        try:
            yield program
        finally:
            self._gate = None
        together = self._state(start)
        if self._errors:
            return []  # the application was told
        return self._compare(in_turn, together, self._probe.recording.operations[start:])

    def _run_second(self, program: Program, *, is_async: bool) -> None:
        """All of the second run now, or as much of it as the first one's locks allow."""
        until = time.monotonic() + _PATIENCE
        if is_async:

            async def run() -> None:
                task = asyncio.ensure_future(self._once_async(program))
                self._second.append(task)
                while not task.done() and not self._blocked() and time.monotonic() < until:
                    await asyncio.wait([task], timeout=_TURN)

            await_only(run())
            return
        thread = threading.Thread(target=self._once, args=(program,), daemon=True)
        self._second.append(thread)
        thread.start()
        while thread.is_alive() and not self._blocked() and time.monotonic() < until:
            thread.join(_TURN)

    def _blocked(self) -> bool:
        """Whether somebody waits for a lock."""
        observer = self._probe.observers.of(next((u.engine for u in reversed(self._probe.recording.uses)), None))
        return bool(
            observer.query(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    def _state(self, start: int) -> State:
        """What the tables hold that were written since."""
        writes = [o for o in self._probe.recording.operations[start:] if o.table and o.use is not None]
        state: dict[str, Table] = {}
        for operation in writes:
            name = operation.table or ""
            if name in state or operation.use is None:
                continue
            table = state[name] = Table()
            quoted = ".".join(identifier(part) for part in name.split("."))
            observer = self._probe.observers.of(operation.use.engine)
            for (row,) in observer.query(f"SELECT to_jsonb(t)::text FROM {quoted} t LIMIT 10000"):
                table.count += 1
                for column, value in json.loads(row or "{}").items():
                    table.columns.setdefault(column, []).append(json.dumps(value))
            for values in table.columns.values():
                values.sort()
        return state

    def _compare(self, in_turn: Sequence[State], together: State, operations: Sequence[Operation]) -> list[Evidence]:
        evidence = []
        for name, table in together.items():
            one, other = (state.get(name, Table()) for state in in_turn)
            facts = {"one after the other": f"{name} {one.count} rows", "at once": f"{name} {table.count} rows"}
            if table.count > max(one.count, other.count):
                evidence.append(self._evidence(Oracle.DUPLICATE_ROW, "both runs have inserted", operations, facts))
                continue
            for column, values in table.columns.items():
                alone = one.columns.get(column)
                if alone is not None and alone == other.columns.get(column) and values != alone:
                    facts = {
                        "one after the other": f"{name}.{column} {', '.join(alone[:3])}",
                        "at once": f"{name}.{column} {', '.join(values[:3])}",
                    }
                    evidence.append(self._evidence(Oracle.LOST_UPDATE, "one run's update is lost", operations, facts))
                    break
        return evidence

    def _evidence(
        self, oracle: Oracle, message: str, operations: Sequence[Operation], facts: Mapping[str, str]
    ) -> Evidence:
        session = next((o.session for o in operations if o.session is not None), None)
        moments = [operation.frames for operation in operations]
        opened = session.opened if session is not None else moments[0]
        return Evidence(oracle, message, opened.first, places([opened, *moments]), facts)

    # --------------------------------------------------------------------------------------------------- many at once

    def at_once(self, program: Program, number: int) -> list[Evidence]:
        """Evidence that this many runs exhaust the pool: each waits for a connection while it holds one."""
        self._gather(number)
        threads = [threading.Thread(target=self._once, args=(program,), daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._of_errors()

    async def at_once_async(self, program: Program, number: int) -> list[Evidence]:
        """The same for a coroutine function."""
        self._gather(number)
        await asyncio.gather(*(self._once_async(program) for _ in range(number)))
        return self._of_errors()

    def _gather(self, number: int) -> None:
        """Let each run wait at its first statement until all are there that the pool lets in."""
        self._attach()
        self._errors = []
        here: set[Who] = set()
        complete = threading.Event(), asyncio.Event()

        def gate(connection: Any, operation: Operation) -> None:
            if operation.who in here:
                return
            here.add(operation.who)
            if len(here) == number:
                for event_ in complete:
                    event_.set()
            elif connection.dialect.is_async:
                await_only(asyncio.wait([asyncio.ensure_future(complete[1].wait())], timeout=_GATHERING))
            else:
                complete[0].wait(_GATHERING)

        self._gate = gate

    def _of_errors(self) -> list[Evidence]:
        self._gate = None
        for error in self._errors:
            evidence = list(exceptions(Case(self._probe.recording, self._probe.observers, error)))
            if evidence:
                return evidence
        return []

    # ----------------------------------------------------------------------------------------------------------- runs

    def _once(self, program: Program) -> None:
        try:
            program()
        except Exception as error:  # noqa: BLE001 - an outcome like others
            self._errors.append(error)

    async def _once_async(self, program: Program) -> None:
        try:
            result = program()
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001
            self._errors.append(error)

    def _attach(self) -> None:
        if not self._attached:
            self._attached = True
            event.listen(Engine, "before_cursor_execute", self._statement)

    def _statement(self, connection: Any, *_: Any) -> None:
        gate, use = self._gate, self._probe.use_of(connection)
        if gate is None or use is None:
            return
        if use.latest is not None:
            gate(connection, use.latest)


def _nothing() -> None:
    """What resets a program that needs none."""
