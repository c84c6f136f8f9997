"""One program, run once as it is and then once for every operation and fault, one fault at a time.

SQLite's own tests make every allocation fail in turn; this makes every statement, COMMIT and await fail in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from session_lint.runtime.evidence import Evidence
from session_lint.runtime.faults import Injector, Plan, Step, single_faults, steps
from session_lint.runtime.oracles import Case, judge, never_awaited
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Recording
from session_lint.runtime.tidying import tidy

_TURNS = 20
CAME_BACK = "came back"


@dataclass
class Run:
    """One run: which fault it had, whether that was reached, how it ended and what it proves."""

    step: Step | None
    recording: Recording
    error: BaseException | None = None
    evidence: list[Evidence] = field(default_factory=list)
    reached: bool = True
    diverged: str = ""


Program = Callable[[], Any]
Prepare = Callable[[], Program]


class Explorer:
    """Runs programs under one probe. limit: the most runs with a fault that one program gets."""

    def __init__(self, probe: Probe, *, faults: Plan = single_faults, limit: int = 200) -> None:
        self.probe = probe
        self.injector = Injector(probe)
        self.faults = faults
        self.limit = limit

    def explore(self, prepare: Prepare) -> Iterator[Run]:
        """First the run without a fault, then the others. prepare: makes the program anew, and its data."""
        first = self.run(prepare(), None, None)
        yield first
        for step in self.plan(first)[: self.limit]:
            yield self.run(prepare(), step, first.recording)

    def plan(self, first: Run) -> list[Step]:
        """The faults that a recorded run calls for."""
        return steps(first.recording.operations, self.faults)

    def run(self, program: Program, step: Step | None, baseline: Recording | None) -> Run:
        """Run it once and judge what it leaves behind."""
        recording = self.probe.begin()
        run = Run(step, recording)
        case = Case(recording, self.probe.observers, fault=str(step) if step else "", baseline=baseline)
        self.injector.arm(step)
        with _no_garbage_collection(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if inspect.iscoroutinefunction(program):
                asyncio.run(self._in_a_loop(program, run, case))
            else:
                try:
                    program()
                except Exception as error:  # noqa: BLE001 - an outcome like others
                    run.error = error
                self.injector.disarm()
                run.evidence = judge(replace(case, error=run.error))
            run.reached = step is None or self.injector.hit is not None
            run.diverged = self.injector.diverged
            if step is None:
                # A coroutine that an exception's frames still hold is not yet known to be dropped.
                if run.error is not None:
                    run.error.__traceback__ = None
                gc.collect()
        if step is None:
            run.evidence += [evidence for warning in caught if (evidence := never_awaited(warning))]
        tidy(recording, self.probe.observers)
        return run

    async def _in_a_loop(self, program: Program, run: Run, case: Case) -> None:
        task = asyncio.ensure_future(program())
        await asyncio.wait([task])
        self.injector.disarm()
        if task.cancelled():
            run.error = asyncio.CancelledError()
        else:
            run.error = task.exception()
        at_once = judge(replace(case, error=run.error))
        # What closes an abandoned generator is a task of its own.
        for _ in range(_TURNS):
            await asyncio.sleep(0.001)
            if len(asyncio.all_tasks()) == 1:
                break
        later = judge(replace(case, error=run.error))
        stayed = {(evidence.oracle, evidence.opened) for evidence in later}
        run.evidence = later + [
            replace(evidence, facts={**evidence.facts, CAME_BACK: "after a turn of the loop"})
            for evidence in at_once
            if (evidence.oracle, evidence.opened) not in stayed
        ]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
