"""What the pytest plugin does once it is asked for: watches every test, judges it, and makes its operations fail."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Exit

from session_lint.runtime.evidence import LIFETIME, Evidence, Oracle
from session_lint.runtime.faults import POINTS, Injector, Step, single_faults
from session_lint.runtime.observer import Observers
from session_lint.runtime.oracles import Case, judge
from session_lint.runtime.places import Frames, Place, is_users
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Operation, Recording
from session_lint.runtime.report import RunReport
from session_lint.runtime.tidying import tidy


class TimedOutError(BaseException):
    """A run with a fault took too long. No Exception, so that no handler of the application takes it."""


class Watch:
    """The plugin of one pytest run, or of one worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.faults: bool = config.option.session_lint_faults
        self.report = RunReport()
        self.probe = Probe(Observers(), thorough=self.faults)
        self.probe.start()
        self.injector = Injector(self.probe)
        self._tried: set[tuple[object, ...]] = set()
        self._step: Step | None = None
        self._baseline: Recording | None = None
        self._call_from = self._call_to = 0
        self._at_call_end: list[Evidence] = []
        self._error: BaseException | None = None

    # ---------------------------------------------------------------------------------------------------- one test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
        """The test as it is, judged; then, if asked, once more for each operation and fault."""
        self._begin(None, None)
        result = yield
        first = self._end(item)
        if self.faults and isinstance(item, pytest.Function) and self._error is None:
            self._explore(item, nextitem, first)
        left_behind = bool(first.out)
        first.release()
        if left_behind:
            # At a moment of our own choosing: what finalizers do to connections and greenlets, in the middle of
            # somebody's ast.parse, can make CPython fail.
            gc.collect()
        self.report.tests += 1
        return result

    def _begin(self, step: Step | None, baseline: Recording | None) -> None:
        self._step, self._baseline, self._error, self._at_call_end = step, baseline, None, []
        self._call_from = self._call_to = 0
        self.probe.begin()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Judge at the end of the test itself, while its database, its loop and its server still are there."""
        self._call_from = len(self.probe.recording.operations)
        if self.faults:
            self.injector.arm(self._step)
        try:
            return (yield)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self.injector.disarm()
            self._call_to = len(self.probe.recording.operations)
            self._at_call_end = self._judge()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
        """What a module's or session's fixture opens is not left behind by the test that happened to ask first."""
        before, self.probe.exempt = self.probe.exempt, self.probe.exempt or fixturedef.scope != "function"
        try:
            return (yield)
        finally:
            self.probe.exempt = before

    def _judge(self) -> list[Evidence]:
        error = None if isinstance(self._error, TimedOutError) else self._error
        fault = str(self._step) if self._step else ""
        return judge(Case(self.probe.recording, self.probe.observers, error, fault, self._baseline))

    def _end(self, item: pytest.Item) -> Recording:
        """After the test's fixtures are torn down: what is left now is left for good."""
        recording = self.probe.recording
        left = {id(use) for use in recording.out} | {id(s) for s in recording.sessions if s.session is not None}
        evidence = [e for e in self._at_call_end if e.oracle not in LIFETIME or id(e.subject) in left]
        known = {(e.oracle, id(e.subject)) for e in evidence}
        evidence += [e for e in self._judge() if e.oracle in LIFETIME and (e.oracle, id(e.subject)) not in known]
        for each in evidence:
            if self._applications(each):
                self.report.add(replace(each, test=item.nodeid, subject=None))
        for frames in recording.frames():
            self.report.saw(frames.places, item.nodeid)
        self.report.lost = self.report.lost or self.probe.lost
        if self._step is not None:
            tidy(recording, self.probe.observers)
        return recording

    def _applications(self, evidence: Evidence) -> bool:
        """Whether the application has a part in it: what a test alone does to its own rows is its own business."""
        if evidence.oracle in (Oracle.LOST_WRITE, Oracle.PARTIAL_COMMIT):
            return any([not _is_test(place.path) for place in evidence.places])
        return True

    # -------------------------------------------------------------------------------------------------------- faults

    def _explore(self, item: pytest.Function, nextitem: pytest.Item | None, first: Recording) -> None:
        tidy_first = [use for use in first.out if not use.exempt]
        plan = self._plan(item, first)
        if tidy_first:
            tidy(first, self.probe.observers)
        for step in plan[: self.config.option.session_lint_limit]:
            self._begin(step, first)
            with _time_limit(self.config.option.session_lint_timeout):
                _run_again(item)
            self.report.runs += 1
            if isinstance(self._error, TimedOutError):
                self.report.notes.append(f"{item.nodeid}: {step}: stopped after it took too long")
            self._end(item)
        if plan:
            with contextlib.suppress(Exception):
                item.session._setupstate.teardown_exact(nextitem)

    def _plan(self, item: pytest.Function, first: Recording) -> list[Step]:
        own = item.get_closest_marker("session_probe") is not None
        points = [o for o in first.operations[self._call_from : self._call_to] if o.kind in POINTS]
        plan = []
        for number, operation in enumerate(points):
            key = _key(operation, own=own)
            for fault in single_faults(operation) if key else ():
                if (fault, operation.kind, key) not in self._tried:
                    self._tried.add((fault, operation.kind, key))
                    plan.append(Step(number, fault, operation.kind, str(_place(operation.frames, own=own) or "")))
        return plan

    # -------------------------------------------------------------------------------------------------- end of the run

    @pytest.hookimpl
    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        """Python warns when a coroutine is dropped; where the warning points is where that happened."""
        text = str(warning_message.message)
        if "was never awaited" in text and is_users(warning_message.filename):
            place = Place(warning_message.filename, warning_message.lineno, "")
            first = text.splitlines()[0]
            self.report.add(Evidence(Oracle.NEVER_AWAITED, first, place, frozenset({place}), test=nodeid))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the report on: a worker to its controller, the others to a file."""
        self.probe.observers.close()
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["session_lint"] = json.dumps(self.report.as_dict())
            return
        file = self.config.option.session_lint_report
        if file:
            Path(file).write_text(json.dumps(self.report.as_dict(), indent=1) + "\n", encoding="utf-8")
        if self.report.evidence and session.exitstatus == 0 and not self.config.option.session_lint_exit_zero:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done."""
        text = getattr(node, "workeroutput", {}).get("session_lint")
        if text:
            self.report.merge(RunReport.from_dict(json.loads(text)))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What was found, one line for each, with the place that opened it."""
        write = terminalreporter.write_line
        terminalreporter.section("session-lint")
        for line in self.report.lines():
            write(line)


def _run_again(item: pytest.Function) -> None:
    """Once more, from the test's own fixtures to their teardown; the module's fixtures stay.

    No reports are made: to format a failure that is meant to be costs more than the run.
    """
    item._initrequest()
    ready = True
    for when in ("setup", "call", "teardown"):
        if when == "call" and not ready:
            continue
        hook = getattr(item.ihook, f"pytest_runtest_{when}")
        # To be torn down "for the sake of its parent" is what takes away the item and nothing above it.
        more = {"nextitem": item.parent} if when == "teardown" else {}
        call = pytest.CallInfo.from_call(
            lambda hook=hook, more=more: hook(item=item, **more),  # type: ignore[misc]
            when=when,
            reraise=(Exit, KeyboardInterrupt),
        )
        ready = ready and call.excinfo is None
    item._request = False  # type: ignore[assignment]
    item.funcargs = None  # type: ignore[assignment]


def _is_test(path: str) -> bool:
    name = Path(path).name
    return any([fnmatch.fnmatch(name, pattern) for pattern in ("test_*.py", "*_test.py", "conftest.py")])


def _key(operation: Operation, *, own: bool) -> tuple[tuple[str, int], ...]:
    """The application's lines that led to an operation; empty if it is the test's own."""
    return tuple([(path, line) for path, line in operation.frames.key if own or not _is_test(path)])


def _place(frames: Frames, *, own: bool) -> Place | None:
    return next((place for place in frames.places if own or not _is_test(place.path)), None)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop what takes longer. Only where signals can: in the main thread of a system that has them."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimedOutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimedOutError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
