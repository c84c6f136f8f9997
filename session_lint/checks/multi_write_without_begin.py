"""SES103: two commits where the second write needs the first: an error between them leaves half."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, within
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark


@rule("SES103", "multi-write-without-begin", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        told = set()
        for event in sorted(flow.events, key=lambda event: event.place):
            if event.kind != result.COMMITTED or event.session is None or event.identity in told:
                continue
            commits = event.session.commits - (event.detail is not None)
            if commits < 1 or not (event.session.dirty or event.detail) or _looped(event):
                continue
            earlier = _writes(flow, event, before=True)
            later = _writes(flow, event, before=False)
            if not earlier or not later:
                continue
            told.add(event.identity)
            info = flow.sessions[event.identity]
            depends = _names(flow, earlier) & _names(flow, later)
            # Only an author who rolls back around both believes that they are one unit of work; else it may be meant.
            believed = depends and _is_rolled_back(event)
            confidence = certainty(info, Confidence.LIKELY if believed else Confidence.POSSIBLE)
            message = (
                f"{flow.reference.function.name} commits twice: if {later[-1].text} or the second commit fails, "
                f"{earlier[0].text} stays committed"
            )
            if depends:
                message += f" although {', '.join(sorted(depends))} belongs to both"
            message += "; use flush() for the first step and commit once, or one begin() block"
            trail = [Mark(earlier[0].place, f"{earlier[0].text} writes here")]
            first = _commit_between(flow, event, earlier[0], later[-1])
            if first is not None and first.place != earlier[0].place:
                trail.append(Mark(first.place, f"{first.text} commits here"))
            trail.append(Mark(later[-1].place, f"{later[-1].text} writes here"))
            yield context.finding(flow, event.place, message, confidence, trail)


def _is_rolled_back(event: Event) -> bool:
    """Whether a handler around the second commit rolls back: it can't take back the first one."""
    for frame in event.frames:
        if frame.kind == "try" and isinstance(frame.node, ir.Try):
            for handler in frame.node.handlers:
                for statement in ir.statements(handler.body):
                    for part in ir.expressions(statement):
                        if isinstance(part, ir.Call) and isinstance(part.function, ir.Name):
                            if part.function.path[-1] == "rollback":
                                return True
    return False


def _looped(event: Event) -> bool:
    return any([frame.kind in ("for", "while", "except") for frame in event.frames])


def _writes(flow: FunctionFlow, commit: Event, before: bool) -> list[Event]:
    """The writes before the first commit, or those between it and the second."""
    commits = sorted(
        other.place for other in flow.events if other.kind == result.COMMITTED and other.identity == commit.identity
    )
    first = commits[0]
    # A function that commits what it was handed has written it: one event stands for both.
    writes = [
        other
        for other in flow.events
        if other.identity == commit.identity
        and (other.kind == result.WROTE or (other.kind == result.COMMITTED and other.detail is not None))
    ]
    if before:
        return [write for write in writes if write.place <= first]
    return [write for write in writes if first < write.place <= commit.place]


def _commit_between(flow: FunctionFlow, commit: Event, earlier: Event, later: Event) -> Event | None:
    for other in flow.events:
        if other.kind == result.COMMITTED and other.identity == commit.identity and earlier.place <= other.place < later.place:
            return other
    return None


def _names(flow: FunctionFlow, writes: list[Event]) -> set[str]:
    """The variables that the written objects are made of or kept in, but for the function's own parameters."""
    known = {parameter.name for parameter in flow.reference.function.parameters}
    made: dict[str, set[str]] = {}
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Assign) and statement.value is not None:
            for target in statement.targets:
                if isinstance(target, ir.Name) and len(target.path) == 1:
                    made.setdefault(target.path[0], set()).update(_roots(statement.value))
    found: set[str] = set()
    for statement in ir.statements(flow.reference.function.body):
        for part in ir.expressions(statement) if isinstance(statement, (ir.Expression, ir.Assign, ir.Return)) else ():
            if isinstance(part, ir.Call) and any([within(part.place, write.place) for write in writes]):
                if isinstance(statement, ir.Assign):
                    found |= {target.path[0] for target in statement.targets if isinstance(target, ir.Name)}
                for argument in part.arguments:
                    for name in _roots(argument.value):
                        found.add(name)
                        found |= made.get(name, set())
    return {name for name in found if name in made and name not in known}


def _roots(node: ir.Expr) -> set[str]:
    names = {part.path[0] for part in ir.expressions(node) if isinstance(part, ir.Name)}
    called = {part.function.path[0] for part in ir.expressions(node) if isinstance(part, ir.Call) and isinstance(part.function, ir.Name)}
    return names - called
