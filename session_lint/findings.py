"""What the linter reports: findings with their trails, and the report of one run.

Every front end (command line, flake8, editors, CI) shows these objects and nothing else, so that all of
them tell the same story about the same file. Lines and columns are 1-based; columns count characters.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_lint.runtime.evidence import Evidence

DOCUMENTATION = "https://github.com/session-lint/session-lint/blob/main/rules"


class Severity(str, enum.Enum):
    """How bad it is when the finding is true."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Confidence(str, enum.Enum):
    """How sure the linter is that the finding is true.

    CERTAIN: the whole chain was seen. LIKELY: one step rests on a type or on a framework's convention.
    POSSIBLE: something that decides, such as the session's owner, could not be seen.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"

    @property
    def rank(self) -> int:
        """0 for the surest, growing with doubt."""
        return _CONFIDENCES.index(self)

    def at_most(self, other: Confidence) -> Confidence:
        """The weaker of the two: a chain is as sure as its weakest link."""
        return max(self, other, key=lambda confidence: confidence.rank)


_CONFIDENCES = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)


class Verdict(str, enum.Enum):
    """What a real PostgreSQL said of the finding."""

    STATIC = "static"
    CONFIRMED = "confirmed"
    NOT_REPRODUCED = "not reproduced"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of source: 1-based lines and columns, the end column is exclusive (as in SARIF)."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trail: opened here, written here, may raise here, leaves here."""

    path: str
    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class Affected:
    """A function that a provider's finding exposes."""

    path: str
    line: int
    column: int
    function: str
    message: str
    verdict: Verdict = Verdict.STATIC
    evidence: tuple[Evidence, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """One reported bug.

    path: relative to the working directory, with "/". function: qualified name ("Class.method",
    "outer.inner"), empty at module level. statement: first and last line of the statement that the finding
    points into; a suppression comment counts on any of them. evidence: what the verdict rests on.
    """

    code: str
    name: str
    message: str
    path: str
    span: Span
    function: str
    severity: Severity
    confidence: Confidence
    trail: tuple[Step, ...] = ()
    affects: tuple[Affected, ...] = ()
    verdict: Verdict = Verdict.STATIC
    statement: tuple[int, int] = (0, 0)
    fingerprint: str = ""
    evidence: tuple[Evidence, ...] = field(default=(), compare=False)

    @property
    def line(self) -> int:
        return self.span.line

    @property
    def column(self) -> int:
        return self.span.column

    @property
    def url(self) -> str:
        """The rule's page."""
        return f"{DOCUMENTATION}/{self.code}-{self.name}.md"

    @property
    def sort_key(self) -> tuple[str, Span, str]:
        return (self.path, self.span, self.code)


def with_fingerprints(findings: Iterable[Finding], lines_of: dict[str, Sequence[str]]) -> list[Finding]:
    """Give every finding an identity that survives edits elsewhere in the file.

    It is made of the code, the path, the function and the text of the line, never of line numbers; equal
    ones are told apart by their order.
    """
    import hashlib  # brings in OpenSSL, which a run without findings can do without

    seen: dict[str, int] = {}
    result = []
    for finding in sorted(findings, key=lambda finding: finding.sort_key):
        lines = lines_of.get(finding.path, ())
        text = lines[finding.line - 1].strip() if 0 < finding.line <= len(lines) else ""
        base = "\0".join((finding.code, finding.path, finding.function, text))
        number = seen[base] = seen.get(base, -1) + 1
        digest = hashlib.sha256(f"{base}\0{number}".encode("utf-8", "surrogatepass")).hexdigest()
        result.append(replace(finding, fingerprint=digest[:32]))
    return result


@dataclass(slots=True)
class Report:
    """The result of one run.

    findings: what is shown, in the order of files and lines. held_back: findings below the wanted
    confidence. mitigated: findings that someone on the way out cleans up after (shown with
    --show-mitigated). errors: files that could not be analysed (each is an SES902 finding too).
    notes: one line each, for --verbose: what could not be resolved and why. warnings: one line each, always
    said on standard error: what was left out, such as a directory that can't be read. noqa: how many
    `# noqa` comments name rules of ours (for the hint about Ruff, which would delete them).
    """

    findings: list[Finding] = field(default_factory=list)
    held_back: list[Finding] = field(default_factory=list)
    mitigated: list[Finding] = field(default_factory=list)
    suppressed: int = 0
    files: int = 0
    files_analysed: int = 0
    lines: int = 0
    functions: int = 0
    errors: int = 0
    notes: list[str] = field(default_factory=list)
    sources: dict[str, Sequence[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    noqa: int = 0

    def add(self, other: Report) -> None:
        """Take in what was found in other files."""
        for name in ("findings", "held_back", "mitigated"):
            setattr(self, name, sorted(getattr(self, name) + getattr(other, name), key=lambda each: each.sort_key))
        for name in ("suppressed", "files", "files_analysed", "lines", "functions", "errors", "noqa"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes
        self.warnings += [line for line in other.warnings if line not in self.warnings]
        self.sources.update(other.sources)
