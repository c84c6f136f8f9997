"""Who finishes a session that a function was given, as far as the project shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from session_lint.findings import Confidence
from session_lint.flow import result
from session_lint.flow.entry import LEAVING
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.values import Path
from session_lint.project.call_graph import Caller, open_ways
from session_lint.project.guards import helps_itself
from session_lint.project.modules import ClassRef, FunctionRef
from session_lint.project.profiles import Profile

if TYPE_CHECKING:
    from session_lint.project.link import Project

CLEANED = "cleaned"  # the owner rolls back or closes on every way out
EXPOSED = "exposed"  # the owner does not, and the finding is its own
KEPT = "kept"  # the session outlives the call and nobody cleans it
UNKNOWN = "unknown"

_PROCESS = "the process"
_ENDING = frozenset("close aclose dispose shutdown stop disconnect __del__".split())
"""Methods that give a lasting session up for good: whoever works with it before is not helped."""

_MAX_CHAIN = 300
"""How many callers up an owner is looked for: Python's own stack ends some time after that."""


class Owner(NamedTuple):
    """verdict: one of the constants above. commits: the owner commits when the function returns."""

    verdict: str
    text: str
    confidence: Confidence
    commits: bool = False
    provider: FunctionRef | None = None


_NOBODY = Owner(UNKNOWN, "who owns it can't be seen", Confidence.POSSIBLE)
_BADNESS = {CLEANED: 0, KEPT: 1, EXPOSED: 1, UNKNOWN: 2}


def _by_framework(profile: Profile) -> Owner:
    return Owner(CLEANED, profile.why, Confidence.LIKELY, profile.commits)


def _worst(owners: list[Owner]) -> Owner:
    worst = max(owners, key=lambda owner: (_BADNESS[owner.verdict], owner.confidence.rank))
    return worst._replace(commits=any([owner.commits for owner in owners]))


class Ownership:
    """Judges the owners of sessions, along the callers to the roots. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._owners: dict[tuple[int, Path], Owner] = {}
        self._depth = 0

    def of(self, flow: FunctionFlow, info: SessionInfo) -> Owner:
        """Who finishes one of a function's sessions when the function fails."""
        key = (id(flow.reference.function), info.identity)
        if key not in self._owners:
            if self._depth >= _MAX_CHAIN:
                return _NOBODY
            # Who calls only itself is called by nobody.
            self._owners[key] = Owner(CLEANED, "its callers end it", Confidence.CERTAIN)
            self._depth += 1
            self._owners[key] = self._judge(flow, info)
            self._depth -= 1
        return self._owners[key]

    def _judge(self, flow: FunctionFlow, info: SessionInfo) -> Owner:
        keeper = _PROCESS if info.origin == result.SHARED else self._keeper(flow, info)
        if keeper:
            if self._project.kept.is_shared(flow, info):
                return Owner(EXPOSED, f"{info.name} is shared by all requests", Confidence.LIKELY)
            if self._is_cleaned_somewhere(flow, info, keeper == _PROCESS):
                return Owner(UNKNOWN, f"{info.name} is rolled back or closed elsewhere", Confidence.POSSIBLE)
            return Owner(KEPT, f"{info.name} lives as long as {keeper}", Confidence.LIKELY)
        job = self._job(flow, info) if info.origin == result.AMBIENT else None
        if job is not None:
            return Owner(EXPOSED, f"nobody removes {info.name} after {job.function.name}, a job", Confidence.LIKELY)
        if info.origin == result.AMBIENT and info.framework:
            return _by_framework(self._project.profiles.named(info.framework))
        if info.origin == result.INJECTED and info.provider is not None:
            owner = self._provider(info.provider)
            if info.provider.function.is_generator or not self._project.call_graph.callers(
                flow.reference, info.identity
            ):
                return owner
            # A decorator fills the parameter in only where the caller does not.
            return _worst([owner, self._callers(flow, info)])
        if info.origin == result.INJECTED and self._is_of_settings(flow, info):
            return Owner(CLEANED, "the settings name what provides and closes it", Confidence.LIKELY)
        if info.origin in result.OPENED_HERE:
            return Owner(CLEANED, "it is opened here", Confidence.CERTAIN)
        if info.origin == result.CAPTURED:
            return self._captured(flow, info)
        function = flow.reference.function
        if function.owner and function.name in LEAVING and info.identity == (function.parameters[0].name,):
            return Owner(KEPT, "nothing ends it after the with block", Confidence.LIKELY)
        profile = self._profile(flow, info)
        if profile is not None:
            return _by_framework(profile)
        if info.origin in (result.PARAMETER, result.ATTRIBUTE):
            return self._callers(flow, info)
        if info.origin == result.CURRENT:
            return Owner(UNKNOWN, "whoever has set the context variable ends it", Confidence.POSSIBLE)
        if info.origin == result.AMBIENT:
            return Owner(UNKNOWN, "a scoped session is removed by whoever ends its scope", Confidence.POSSIBLE)
        return _NOBODY

    def _job(self, flow: FunctionFlow, info: SessionInfo) -> FunctionRef | None:
        """The job of a worker that the function is part of, and after which nobody removes a scoped session."""
        if info.identity[0] != "~":
            return None  # A framework's own, which is no scoped_session.
        entry = self._project.scopes.jobs(info.identity[1:], bool(info.framework)).get(id(flow.reference.function))
        return entry.reference if entry is not None else None

    def _is_of_settings(self, flow: FunctionFlow, info: SessionInfo) -> bool:
        for parameter in flow.reference.function.parameters:
            if info.identity == (parameter.name,):
                _, dependency = self._project.parameter(flow.reference, parameter)
                return dependency is not None and self._project.profiles.is_dependency(dependency.provider)
        return False

    def _profile(self, flow: FunctionFlow, info: SessionInfo) -> Profile | None:
        """The framework that calls the function with the session, or that calls what ends it."""
        if info.origin == result.PARAMETER:
            return self._project.profiles.of_handler(flow.reference)
        if info.origin == result.ATTRIBUTE and len(info.identity) == 2:
            return self._project.profiles.of_object(flow.reference, info.identity[1])
        return None

    def _provider(self, reference: FunctionRef) -> Owner:
        provider = self._project.provider(reference)
        name = reference.function.qualname
        if not provider.seen:
            return Owner(UNKNOWN, f"what {name} does can't be seen", Confidence.POSSIBLE)
        if provider.ends_on_error:
            return Owner(CLEANED, f"{name} closes it", Confidence.CERTAIN, provider.commits, reference)
        return Owner(EXPOSED, f"{name} does not close it", Confidence.CERTAIN, provider.commits, reference)

    def _captured(self, flow: FunctionFlow, info: SessionInfo) -> Owner:
        """A session of the function around it is finished by whoever finishes it for that one."""
        enclosing = self._project.enclosing(flow.reference)
        outer = self._project.flow(enclosing) if enclosing is not None else None
        for known in outer.sessions.values() if outer is not None else ():
            if outer is not None and known.name == info.name:
                return self.of(outer, known)
        return _NOBODY

    # --------------------------------------------------------------------------------------------- callers

    def _callers(self, flow: FunctionFlow, info: SessionInfo) -> Owner:
        """The worst of what the callers do: one that cleans up does not help the others."""
        owners = [self._caller(caller) for caller in self._project.call_graph.callers(flow.reference, info.identity)]
        if not owners:
            return _NOBODY
        return _worst(owners)

    def _caller(self, caller: Caller) -> Owner:
        flow = self._project.flow(caller.reference)
        info = flow.sessions.get(caller.identity) if flow is not None else None
        if flow is None or info is None or flow.unresolved:
            return _NOBODY
        name = caller.reference.function.qualname
        if not open_ways(flow, caller.identity):
            return Owner(CLEANED, f"its caller {name} ends it", info.certainty)
        if info.origin in result.OPENED_HERE:
            return Owner(EXPOSED, f"its caller {name} does not end it", info.certainty)
        owner = self.of(flow, info)
        if owner.verdict == KEPT:
            # The caller that works with the lasting session is the one to be told.
            return Owner(EXPOSED, f"its caller {name} does not end it: {owner.text}", owner.confidence)
        return owner._replace(confidence=owner.confidence.at_most(info.certainty))

    def _keeper(self, flow: FunctionFlow, info: SessionInfo) -> str:
        """What keeps a session that its object's own class has opened; "" if that is no more than a call."""
        function, module = flow.reference.function, flow.reference.module
        definition = module.classes.get(function.owner or "")
        if info.origin != result.ATTRIBUTE or definition is None or len(info.identity) != 2:
            return ""
        reference = ClassRef(module, definition)
        self._project.statics.fields.of(reference)
        how = self._project.statics.fields.kept.get(id(definition), {}).get(info.identity[1])
        if how == "class" or (how == "instance" and self._project.lifetimes.outlives_calls(reference)):
            return _PROCESS
        if how == "instance" and not self._project.lifetimes.is_for_a_call(reference):
            return f"its {definition.name}"
        return ""

    def _is_cleaned_somewhere(self, flow: FunctionFlow, info: SessionInfo, lasts: bool) -> bool:
        """Whether some function of the module ends the transaction of that session, whenever that may be."""
        path = info.identity if info.origin == result.ATTRIBUTE else (info.name,)
        # A bot's handlers take turns: what one leaves failed, the next one finds, whatever it does for itself.
        turns = info.origin == result.SHARED and flow.reference.function.is_async and not info.type.is_async
        above = self._project.entry_points.above(flow.reference) if turns else set()
        return any(
            [
                self._project.statics.ends(reference, path)
                and not (
                    turns and id(reference.function) not in above and helps_itself(self._project.table, reference, path)
                )
                for reference in self._project.functions(flow.reference.module)
                if not (lasts and reference.function.owner and reference.function.name in _ENDING)
            ]
        )
