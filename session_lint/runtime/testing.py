"""What the pytest plugin does once it is asked for: watches every test, judges it, and makes its operations fail."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Exit

from session_lint.runtime.evidence import LIFETIME, Evidence, Oracle
from session_lint.runtime.faults import POINTS, Injector, Step, single_faults
from session_lint.runtime.interleaving import Interleaver, Program
from session_lint.runtime.journal import Journal
from session_lint.runtime.observer import Observers
from session_lint.runtime.oracles import Case, judge, never_awaited
from session_lint.runtime.places import Frames, Place
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Operation, Recording
from session_lint.runtime.report import RUNNING, RunReport
from session_lint.runtime.rerunning import Progress, TimedOutError, quietly, run_again
from session_lint.runtime.tidying import tidy


class SessionProbe:
    """What a test may ask of session-lint: what was recorded of it, and runs of a program at the same time.

    Evidence that these runs give is returned, and stands in the report as well. The methods with _async are for
    coroutine functions. Data must be visible to a second connection: no transaction around the test.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._interleaver = Interleaver(watch.probe)

    @property
    def recording(self) -> Recording:
        return self._watch.probe.recording

    def interleave(self, program: Program, reset: Program | None = None) -> list[Evidence]:
        """Duplicate rows and lost updates of two runs, one between what the other has read and what it writes."""
        return self._watch.proved(self._interleaver.interleave(program, reset))

    async def interleave_async(self, program: Program, reset: Program | None = None) -> list[Evidence]:
        return self._watch.proved(await self._interleaver.interleave_async(program, reset))

    def at_once(self, program: Program, number: int) -> list[Evidence]:
        """Whether so many runs at the same time exhaust the pool. Give the engine a short pool_timeout."""
        return self._watch.proved(self._interleaver.at_once(program, number))

    async def at_once_async(self, program: Program, number: int) -> list[Evidence]:
        return self._watch.proved(await self._interleaver.at_once_async(program, number))


class Watch:
    """The plugin of one pytest run, or of one worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.faults: bool = config.option.session_lint_faults
        self.report = RunReport()
        self._running = os.environ.get(RUNNING)
        _expect_writable(config)
        self.journal = self._journal()
        self._all_told = True
        self.probe = Probe(Observers(), thorough=self.faults)
        self.probe.start()
        self.probe.asking = False
        self.injector = Injector(self.probe)
        self._tried: set[tuple[object, ...]] = set()
        self._step: Step | None = None
        self._baseline: Recording | None = None
        self._call_from = self._call_to = 0
        self._at_call_end: list[Evidence] = []
        self._proved: list[Evidence] | None = None
        self.session_probe = SessionProbe(self)
        self._error: BaseException | None = None
        self._judged = False

    def _journal(self) -> Journal:
        name = self.config.option.session_lint_resume
        try:
            return Journal(self.config.invocation_params.dir / name if name else None)
        except OSError as error:
            raise pytest.UsageError(f"--session-lint-resume: {name}: {error.strerror}") from error

    # ---------------------------------------------------------------------------------------------------- one test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
        """The test as it is, judged."""
        self._begin(None, None)
        self._judged = False
        self._say_what_runs(item.nodeid)
        result = yield
        self._look_back(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """If asked, the test again for each operation and fault, while its module's and session's fixtures stand."""
        failure: BaseException | None = None
        if self.faults and self._step is None:
            state: Any = item.session._setupstate
            try:
                state.teardown_exact(item.parent)  # the test's own fixtures, and nothing above them
            except BaseException as error:  # noqa: BLE001 - raised again, once pytest has done the rest
                failure = self._error = error
            else:
                self._look_back(item)
        yield
        if failure is not None:
            raise failure

    def _look_back(self, item: pytest.Item) -> None:
        """Judge what a test has left behind, and make it fail."""
        if self._judged:
            return
        self._judged = True
        try:
            first, passed = self._end(item), self._error is None
            if self.faults and passed and isinstance(item, pytest.Function):
                self._explore(item, first)
            left_behind = bool(first.out)
            first.release()
            if left_behind:
                gc.collect()  # at a moment of our own choosing, and not in the middle of something else
            self.report.tests += 1
        except Exit:
            raise
        except Exception as failure:  # noqa: BLE001 - ours, and no business of the test's
            self.probe.lose(f"what {item.nodeid} left behind", failure)
            self.report.lost = self.probe.lost
        finally:
            self._step = None

    def _say_what_runs(self, what: str) -> None:
        """For those who find this process gone."""
        if self._running is not None:
            with contextlib.suppress(OSError):
                Path(self._running).write_text(what, encoding="utf-8", errors="replace")

    def _begin(self, step: Step | None, baseline: Recording | None) -> None:
        self._step, self._baseline, self._error, self._at_call_end, self._proved = step, baseline, None, [], None
        self._call_from = self._call_to = 0
        self.probe.begin()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Judge at the end of the test itself, while its database, its loop and its server still are there."""
        self._call_from = len(self.probe.recording.operations)
        if self.faults:
            self.injector.arm(self._step)
        self.probe.asking = self.faults
        try:
            return (yield)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self.injector.disarm()
            self.probe.asking = False
            self._call_to = len(self.probe.recording.operations)
            observers = self.probe.observers
            self._at_call_end = self._judge()
            if observers.reason:
                self.report.note(f"a second connection could not look: {observers.reason}")
            observers.close()  # the fixtures may want to drop the database

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
        """What a module's or session's fixture opens is not left behind by the test that happened to ask first."""
        before, self.probe.exempt = self.probe.exempt, self.probe.exempt or fixturedef.scope != "function"
        try:
            return (yield)
        finally:
            self.probe.exempt = before

    def proved(self, evidence: list[Evidence]) -> list[Evidence]:
        """Take what the test has proved by itself."""
        self._proved = [*(self._proved or ()), *evidence]
        return evidence

    def _judge(self) -> list[Evidence]:
        """What can be proved now. An oracle's own failure is nothing that the test may notice."""
        error = None if isinstance(self._error, TimedOutError) else self._error
        fault = str(self._step) if self._step else ""
        try:
            return judge(Case(self.probe.recording, self.probe.observers, error, fault, self._baseline))
        except Exception as failure:  # noqa: BLE001
            self.probe.lose("the judgement of a test", failure)
            return []

    def _end(self, item: pytest.Item) -> Recording:
        """After the test's fixtures are torn down: what is left now is left for good."""
        recording = self.probe.recording
        left = {id(use) for use in recording.out} | {id(s) for s in recording.sessions if s.session is not None}
        evidence = [e for e in self._at_call_end if e.oracle not in LIFETIME or id(e.subject) in left]
        known = {(e.oracle, id(e.subject)) for e in evidence}
        evidence += [e for e in self._judge() if e.oracle in LIFETIME and (e.oracle, id(e.subject)) not in known]
        for each in [*evidence, *(self._proved or ())]:
            if self._applications(each):
                self.report.add(replace(each, test=item.nodeid, subject=None))
        for frames in recording.frames():
            self.report.saw(frames.places, item.nodeid)
        self.report.lost = self.report.lost or self.probe.lost
        if self._step is not None:
            tidy(recording, self.probe.observers)
        self.probe.observers.close()
        return recording

    def _applications(self, evidence: Evidence) -> bool:
        """Whether the application has a part in it: what a test alone does to its own rows is its own business."""
        if evidence.oracle in (Oracle.LOST_WRITE, Oracle.PARTIAL_COMMIT):
            return any([not _is_test(place.path) for place in evidence.places])
        return True

    # -------------------------------------------------------------------------------------------------------- faults

    def _explore(self, item: pytest.Function, first: Recording) -> None:
        plan = self._plan(item, first)[: self.config.option.session_lint_limit]
        if any([not use.exempt for use in first.out]):
            tidy(first, self.probe.observers)
        if not plan:
            return
        progress = Progress(self.config)
        with quietly():
            for number, step in enumerate(plan, 1):
                progress(number, len(plan))
                name = self.journal.name(item.nodeid, step, first)
                shown = self.journal.known(name)
                if shown is None:
                    whole, self.report = self.report, RunReport()
                    try:
                        problem = self._run(item, step, first)
                    finally:
                        shown, self.report = self.report, whole
                    if problem:
                        self.report.note(f"{item.nodeid}: cannot be set up once more: {problem}")
                        break
                    if self.injector.hit is not None:  # nothing has failed, perhaps not even the server was there
                        self.journal.add(name, shown)
                self.report.merge(shown)
        progress.clear()

    def _run(self, item: pytest.Function, step: Step, first: Recording) -> str:
        """The test once more, with a fault. Gives why it can't be."""
        self._begin(step, first)
        self._say_what_runs(f"{item.nodeid}, {step}")
        problem = run_again(item, self.config.option.session_lint_timeout)
        if not problem:
            self.report.runs += 1
            if isinstance(self._error, TimedOutError):
                self.report.note(f"{item.nodeid}: {step}: stopped after it took too long")
            self._end(item)
        return problem

    def _plan(self, item: pytest.Function, first: Recording) -> list[Step]:
        if self._proved is not None:
            return []  # what fails while several runs are under way says nothing of any one of them
        own = item.get_closest_marker("session_probe") is not None
        points = [o for o in first.operations[self._call_from : self._call_to] if o.kind in POINTS]
        plan = []
        for number, operation in enumerate(points):
            key = _key(operation, own=own)
            if not key or not self._may_fail(operation, item):
                continue
            for fault in single_faults(operation):
                if (fault, operation.kind, key) not in self._tried:
                    self._tried.add((fault, operation.kind, key))
                    plan.append(Step(number, fault, operation.kind, str(_place(operation.frames, own=own) or "")))
        return plan

    def _may_fail(self, operation: Operation, item: pytest.Item) -> bool:
        """Whether it can be made to fail, and nobody but this test would notice."""
        use, session = operation.use, operation.session
        dialect = use.engine.dialect.name if use is not None and use.engine is not None else "postgresql"
        if dialect != "postgresql":
            self.report.note(f"on {dialect} nothing is made to fail: only PostgreSQL's operations are")
            return False
        if (use is not None and use.exempt) or (session is not None and session.exempt):
            self.report.note(f"{item.nodeid}: nothing fails in a session that a wider fixture shares with other tests")
            return False
        return True

    # -------------------------------------------------------------------------------------------------- end of the run

    @pytest.hookimpl
    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        """Python warns when a coroutine is dropped."""
        evidence = never_awaited(warning_message)
        if evidence is not None:
            self.report.add(replace(evidence, test=nodeid))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the report on: a worker to its controller, the others to a file."""
        self.probe.observers.close()
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["session_lint"] = json.dumps(self.report.as_dict())
            return
        self.report.status = int(session.exitstatus)
        file = self.config.option.session_lint_report
        if file:
            try:
                Path(file).write_text(json.dumps(self.report.as_dict(), indent=1) + "\n", encoding="utf-8")
            except OSError as error:
                self.report.note(f"the report could not be written: {error}")
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        ended = session.exitstatus in _ENDED and not (session.shouldstop or session.shouldfail)
        if ended and self._all_told:
            self.journal.remove()
        if self.report.evidence and session.exitstatus == 0 and not self.config.option.session_lint_exit_zero:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done."""
        text = getattr(node, "workeroutput", {}).get("session_lint")
        if text:
            self.report.merge(RunReport.from_dict(json.loads(text)))
        else:
            self._all_told = False
            self.report.note(f"worker {node.gateway.id} ended without a report: what it saw is lost")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What was found, one line for each, with the place that opened it."""
        write = terminalreporter.write_line
        terminalreporter.section("session-lint")
        for line in self.report.lines():
            write(line)


_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def _expect_writable(config: pytest.Config) -> None:
    """Say it before the tests rather than after them."""
    file = config.option.session_lint_report
    if file and not hasattr(config, "workerinput") and not Path(file).parent.is_dir():
        raise pytest.UsageError(f"--session-lint-report: {file}: there is no such directory")


def _is_test(path: str) -> bool:
    name = Path(path).name
    return any([fnmatch.fnmatch(name, pattern) for pattern in ("test_*.py", "*_test.py", "conftest.py")])


def _key(operation: Operation, *, own: bool) -> tuple[tuple[str, int], ...]:
    """The application's lines that led to an operation; empty if it is the test's own."""
    return tuple([(path, line) for path, line in operation.frames.key if own or not _is_test(path)])


def _place(frames: Frames, *, own: bool) -> Place | None:
    return next((place for place in frames.places if own or not _is_test(place.path)), None)
