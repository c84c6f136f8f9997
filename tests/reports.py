"""Reports for the tests of reporters: one with everything in it, and helpers to vary it."""

from __future__ import annotations

from dataclasses import replace

from session_lint.findings import (
    Affected,
    Confidence,
    Finding,
    Report,
    Severity,
    Span,
    Step,
    Verdict,
    with_fingerprints,
)

ROUTES = """\
@router.put("/threads/{id}")
async def update(id: str, title: str, db: Annotated[AsyncSession, Depends(get_db)]):
    thread = await load(db, id)
    thread.title = title
    await db.commit()
    return thread
""".splitlines()

DATABASE = """\
async def get_db():
\tsession = Session()
\tyield session
\tawait session.close()
""".splitlines()

COMMIT = Finding(
    code="SES101",
    name="commit-without-rollback",
    message="if commit() fails, update lets the exception out without rolling back",
    path="app/routes.py",
    span=Span(5, 5, 5, 22),
    function="update",
    severity=Severity.ERROR,
    confidence=Confidence.CERTAIN,
    trail=(
        Step("app/db.py", 2, 12, "the session is opened here"),
        Step("app/routes.py", 4, 5, "written here"),
        Step("app/routes.py", 5, 11, "commit() may raise here"),
    ),
    statement=(5, 5),
)

YIELD = Finding(
    code="SES202",
    name="yield-without-finally",
    message="if the code that uses this session raises, it is never closed",
    path="app/db.py",
    span=Span(3, 2, 3, 15),
    function="get_db",
    severity=Severity.WARNING,
    confidence=Confidence.LIKELY,
    affects=(
        Affected("app/routes.py", 2, 1, "update", "its commit may fail"),
        Affected("app/routes.py", 12, 1, "Threads.remove", "its commit may fail"),
    ),
)

UNREADABLE = Finding(
    code="SES902",
    name="file-not-analysed",
    message="is not valid Python: invalid syntax",
    path="app/broken.py",
    span=Span(7, 3, 7, 4),
    function="",
    severity=Severity.INFO,
    confidence=Confidence.CERTAIN,
)

SOURCES = {"app/routes.py": ROUTES, "app/db.py": DATABASE}


def full_report(*extra: Finding) -> Report:
    """Findings of all severities, with trail, affected functions, and everything a summary can mention."""
    findings = with_fingerprints([COMMIT, YIELD, UNREADABLE, *extra], dict(SOURCES))
    return Report(
        findings=findings,
        held_back=[replace(COMMIT, confidence=Confidence.POSSIBLE), replace(YIELD, confidence=Confidence.POSSIBLE)],
        mitigated=[replace(COMMIT, span=Span(3, 20, 3, 32), verdict=Verdict.STATIC, trail=())],
        suppressed=3,
        files=40,
        files_analysed=12,
        lines=3456,
        functions=78,
        errors=1,
        sources=dict(SOURCES),
    )


HOSTILE = replace(
    COMMIT,
    message="50% of «a», b: c\r\n\x1b[31m<d> & \"e\" 'f' \u202e\ud800 ::error::x]]>\x00",
    path="dir, with: odd%/na\"me'<é>.py",
    function="f\n<lambda>",
    trail=(Step("other\nfile.py", 1, 1, "100%\nhere"),),
    affects=(Affected("x,y:z.py", 3, 4, "g", "a\r\nb"),),
)
"""A finding whose every text is awkward for some format."""
