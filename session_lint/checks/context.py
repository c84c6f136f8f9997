"""What a check sees: a module, the flows of its functions, and the means to make findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from session_lint import ir
from session_lint.findings import Affected, Confidence, Finding, Severity, Span, Step
from session_lint.flow.result import Event, FunctionFlow, SessionInfo
from session_lint.flow.state import Mark, SessionState
from session_lint.project.link import Project
from session_lint.project.modules import FunctionRef, Module
from session_lint.settings import Settings

_NOT_DONE = frozenset({"SES106", "SES107", "SES108", "SES301"})
"""Rules about writes that are never made: the code refuses, forgets or drops them."""


class Context:
    """One rule's view of one module. code, name, severity: those of the rule that runs."""

    def __init__(self, project: Project, module: Module, settings: Settings) -> None:
        self.project = project
        self.module = module
        self.settings = settings
        self.code, self.name, self.severity = "", "", Severity.ERROR
        self.held: list[tuple[Finding, str]] = []
        self._flows: list[FunctionFlow] | None = None

    def mitigated(self, finding: Finding, reason: str) -> None:
        """It would be a bug, but someone on the way out cleans up."""
        self.held.append((finding, reason))

    @property
    def local(self) -> bool:
        """Whether every function is judged by itself."""
        return self.settings.ownership == "local"

    def flows(self) -> Sequence[FunctionFlow]:
        """The flows of the module's functions, in the order of the source."""
        if self._flows is None:
            found = [self.project.flow(reference) for reference in self.project.functions(self.module)]
            self._flows = [flow for flow in found if flow is not None]
        return self._flows

    def events(self, *kinds: str) -> Iterator[tuple[FunctionFlow, Event]]:
        """Events of these kinds in all functions, each place once."""
        for flow in self.flows():
            for event in flow.events:
                if event.kind in kinds:
                    yield flow, event

    def finding(
        self,
        flow: FunctionFlow | None,
        place: ir.Place,
        message: str,
        confidence: Confidence,
        trail: Iterable[Mark | Step | None] = (),
        affects: Iterable[Affected] = (),
    ) -> Finding:
        """A finding of the running rule at a place of this module."""
        if place == ir.NOWHERE and flow is not None:
            place = flow.reference.function.place
        return Finding(
            code=self.code,
            name=self.name,
            message=message,
            path=self.module.path,
            span=span(place),
            function=flow.name if flow is not None else "",
            severity=self.severity,
            confidence=confidence.at_most(self.habitat(self.module)),
            trail=tuple([self._step(step) for step in trail if step is not None]),
            affects=tuple(affects),
            statement=statement_lines(self.module, place),
        )

    def _step(self, step: Mark | Step) -> Step:
        if isinstance(step, Step):
            return step
        return step_at(self.module, step.place, step.text)

    def habitat(self, module: Module) -> Confidence:
        """Tests, migrations, examples and commands end with their process: most of what they leave does no harm.

        But what a command does not do, or not as it was meant, is not done by its end.
        """
        is_harmless = module.is_trial if self.code in _NOT_DONE else module.is_short_lived
        return Confidence.POSSIBLE if is_harmless else Confidence.CERTAIN

    def line(self, module: Module, place: ir.Place) -> str:
        """A place in words that fit into a message about this module."""
        file = "" if module is self.module else f"{module.path}, "
        return f"{file}line {place[0]}"

    def affected(self, reference: FunctionRef, message: str) -> Affected:
        place = reference.function.place
        return Affected(reference.module.path, place[0], place[1], reference.function.qualname, message)


def step_at(module: Module, place: ir.Place, text: str) -> Step:
    """A step of a trail that may stand in another module than the finding."""
    return Step(module.path, place[0], place[1], text)


def span(place: ir.Place) -> Span:
    return Span(max(place[0], 1), max(place[1], 1), max(place[2], 1), max(place[3], 1))


def history(session: SessionState, *names: str) -> list[Mark | Step]:
    """The marks of a session's witness, in the order of the source; what failed in callees after the call."""
    trail: list[Mark | Step] = []
    for name in names:
        mark = getattr(session.witness, name)
        if mark is not None and mark.place != ir.NOWHERE:
            trail.append(mark)
            if name == "failed":
                trail += [
                    Step(cause.path, cause.place[0], cause.place[1], cause.text) for cause in session.witness.causes
                ]
    return trail


def causes(session: SessionState) -> list[Affected]:
    """The functions in which it fails: the other places where the bug can be mended."""
    return [
        Affected(
            cause.path,
            cause.place[0],
            cause.place[1],
            cause.function,
            f"{cause.text.removesuffix(' here')}, and {cause.function.rpartition('.')[2]} does not roll back",
        )
        for cause in session.witness.causes
    ]


def failed_operation(session: SessionState) -> str:
    """What broke the session, in the words of the code."""
    failed = session.witness.failed
    return failed.text.removesuffix(" here").removesuffix(" may fail") if failed else "an operation"


def happens(text: str, verb: str = "raises") -> str:
    """What may go wrong, after an "if": of an operation that it raises or fails, of `raise X` that X is raised."""
    what, _, raised = text.partition(" ")
    if what != "raise":
        return f"{text} {verb}"
    return f"{raised} is raised" if raised else "the error is raised"


def certainty(info: SessionInfo, *others: Confidence) -> Confidence:
    """The weakest link."""
    result = info.certainty
    for other in others:
        result = result.at_most(other)
    return result


def statement_lines(module: Module, place: ir.Place) -> tuple[int, int]:
    """First and last line of the statement around a place; of a compound statement its header."""
    best = (place[0], place[0])
    body: tuple[ir.Stmt, ...] = module.tree.body
    while True:
        around = next((statement for statement in body if _holds(statement, place)), None)
        if around is None:
            return best
        blocks = [block for block in ir.blocks(around) if block]
        if isinstance(around, ir.Define):
            blocks = [around.definition.body]
        inside = next((block for block in blocks for inner in block if _holds(inner, place)), None)
        if inside is None:
            first = min([block[0].place[0] for block in blocks if block], default=0)
            last = around.place[2] if not blocks or not first else max(first - 1, around.place[0])
            return (around.place[0], last)
        body = inside


def _holds(statement: ir.Stmt, place: ir.Place) -> bool:
    return ir.within(place, statement.place)
