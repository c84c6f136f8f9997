"""Who finishes a session that a function was given, as far as the project shows it."""

from __future__ import annotations

from typing import NamedTuple

from session_lint.findings import Confidence
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.values import Instance
from session_lint.project.link import Project
from session_lint.project.modules import ClassRef, FunctionRef

CLEANED = "cleaned"  # the owner rolls back or closes on every way out
EXPOSED = "exposed"  # the owner does not: its own finding (SES202) tells
KEPT = "kept"  # the session outlives the call and nobody cleans it
UNKNOWN = "unknown"


class Owner(NamedTuple):
    """verdict: one of the constants above. commits: the owner commits when the function returns."""

    verdict: str
    text: str
    confidence: Confidence
    commits: bool = False
    provider: FunctionRef | None = None


def owner_of(project: Project, flow: FunctionFlow, info: SessionInfo) -> Owner:
    """Judge the owner of one of a function's sessions."""
    if info.origin == result.SHARED or _is_kept(project, flow, info):
        if _is_cleaned_somewhere(project, flow, info):
            return Owner(UNKNOWN, f"{info.name} is rolled back or closed elsewhere", Confidence.POSSIBLE)
        return Owner(KEPT, f"{info.name} lives as long as the process", Confidence.LIKELY)
    if info.origin == result.AMBIENT:
        if info.framework == "flask":
            return Owner(CLEANED, "Flask-SQLAlchemy removes its session after every request", Confidence.LIKELY)
        if info.framework == "pyramid":
            return Owner(CLEANED, "the transaction manager ends it with the request", Confidence.LIKELY, commits=True)
        return Owner(UNKNOWN, "a scoped session is removed by whoever ends its scope", Confidence.POSSIBLE)
    if info.origin == result.INJECTED and info.provider is not None:
        provider = project.provider(info.provider)
        name = info.provider.function.qualname
        if not provider.seen:
            return Owner(UNKNOWN, f"what {name} does can't be seen", Confidence.POSSIBLE)
        if provider.ends_on_error:
            return Owner(CLEANED, f"{name} closes it", Confidence.CERTAIN, provider.commits, info.provider)
        return Owner(EXPOSED, f"{name} does not close it", Confidence.CERTAIN, provider.commits, info.provider)
    if info.origin in (result.LOCAL, result.PROVIDED, result.ITERATED):
        return Owner(CLEANED, "it is opened here", Confidence.CERTAIN)
    return Owner(UNKNOWN, "who owns it can't be seen", Confidence.POSSIBLE)


def _is_kept(project: Project, flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether the session is opened by its object's own class, and the object (or class) lives with the process."""
    function, module = flow.reference.function, flow.reference.module
    definition = module.classes.get(function.owner or "")
    if info.origin != result.ATTRIBUTE or definition is None or len(info.identity) != 2:
        return False
    reference = ClassRef(module, definition)
    project.statics.fields.of(reference)
    how = project.statics.fields.kept.get(id(definition), {}).get(info.identity[1])
    if how == "instance":
        made = [project.statics.name(module, (name,)) for name in module.variables]
        return any([isinstance(value, Instance) and value.reference == reference for value in made])
    return how == "class"


def _is_cleaned_somewhere(project: Project, flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether some function of the module ends the transaction of that session, whenever that may be."""
    path = info.identity if info.origin == result.ATTRIBUTE else (info.name,)
    for reference in project.functions(flow.reference.module):
        seen = project.statics.usage(reference).get(path)
        if seen is not None and seen.methods & {"rollback", "close", "remove", "aclose", "reset"}:
            return True
    return False
