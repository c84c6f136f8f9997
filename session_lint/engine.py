"""The pipeline, from paths to a report.

    discover → prefilter → parse + lower (per file, cached, parallel) → link (whole project) → check → suppress → report

Findings depend on the whole project, whatever part of it is asked for: linting one file gives for that file
exactly what linting everything gives. Two things are kept for the next run: every file's IR by its content, and
the findings by the contents of all files that took part, so that nothing is parsed, and LibCST is not even
imported, when nothing has changed.
"""

# Done for every file of the project before anything else, so it works on strings:
# ruff: noqa: PTH100, PTH109, PTH110, PTH116, PTH118, PTH120

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from session_lint import __version__
from session_lint.cache import Cache
from session_lint.findings import (
    Affected,
    Confidence,
    Finding,
    Report,
    Severity,
    Span,
    Step,
    with_fingerprints,
)
from session_lint.settings import Settings
from session_lint.source import discovery, reading, suppressions
from session_lint.source.discovery import SourceFile
from session_lint.source.reading import Problem, Source
from session_lint.source.words import may_matter

if TYPE_CHECKING:
    import concurrent.futures

__all__ = ["Source", "check"]

Progress = Callable[[int, int], None]

_MARKERS = ("pyproject.toml", "session-lint.toml", "setup.cfg", "setup.py", ".git", "requirements.txt")
_IN_PROCESS = 24
"""Up to so many files are lowered in this process; more are worth starting workers for."""
_SETTLED = 2_000_000_000
"""Nanoseconds since its last change after which a file's time and size are believed: a second change at once
would leave both as they are."""
_SYNTAX_BUDGET = 1_000_000
"""Files that can't hold a session are checked for syntax if they are not more than so many bytes in all."""


@dataclass(slots=True)
class _File:
    """A file of the project. digest: of its content. matters: it may hold a session. data: if it was read."""

    source: SourceFile
    name: str
    is_package: bool
    wanted: bool
    data: bytes | None = None
    digest: str = ""
    matters: bool = False
    lines: int = 0
    has_comments: bool = False
    problem: Problem | None = None

    @property
    def path(self) -> str:
        return self.source.display

    @property
    def key(self) -> str:
        """What the file's IR depends on."""
        return f"{self.digest} {self.name} {self.is_package}"


def check(
    paths: Sequence[Path],
    settings: Settings,
    *,
    stdin: Source | None = None,
    progress: Progress | None = None,
    executor: concurrent.futures.Executor | None = None,
) -> Report:
    """Lint files and directories.

    stdin: text that stands for one of the files, such as an editor's unsaved buffer. progress: called with the
    numbers of files done and to do. executor: where files are parsed; a pool of processes by default.

    Raises:
        UsageError: a path does not exist.
    """
    report = Report()
    cache = Cache(settings.cache_directory, f"{__version__} {_own_digest()}")
    files = _discover(paths, settings, stdin, report)
    _read(files, cache)
    wanted = [file for file in files if file.wanted]
    project_key = _project_key(files, settings)
    results = cache.get("results", project_key)
    if not isinstance(results, dict):
        results = {}
    if any([file.matters and file.problem is None and file.path not in results for file in wanted]):
        results = {**results, **_analyse(files, settings, cache, report, progress, executor)}
        if stdin is None:
            cache.put("results", project_key, results)
    _report(report, wanted, results, settings, _preview(cache))
    report.notes += cache.notes
    return report


# ----------------------------------------------------------------------------------------------- discovering


def _discover(paths: Sequence[Path], settings: Settings, stdin: Source | None, report: Report) -> list[_File]:
    """The files that are asked for, and the rest of the project that they belong to."""
    # The buffer's file need not exist yet.
    buffer = os.path.abspath(stdin.path) if stdin is not None else None
    asked: list[Path | str] = [path for path in paths if os.path.abspath(path) != buffer]
    found = discovery.discover(asked, settings)
    report.warnings += found.problems
    files = {os.path.realpath(file.name): _file(file, settings, True) for file in found.files}
    if stdin is not None:
        name = os.path.abspath(stdin.path)
        source = SourceFile(name, discovery.display_name(name), True)
        file = _file(source, settings, True)
        file.data = stdin.data
        files[os.path.realpath(name)] = file
    scope = _scope(settings, files)
    if scope is not None and not any([os.path.realpath(path) == os.path.realpath(scope) for path in asked]):
        for source in discovery.discover([scope], settings).files:
            files.setdefault(os.path.realpath(source.name), _file(source, settings, False))
    return sorted(files.values(), key=lambda file: file.path)


def _scope(settings: Settings, files: dict[str, _File]) -> Path | None:
    """The directory whose files decide about each other; None for loose files that belong to no project."""
    if any([os.path.exists(os.path.join(settings.root, marker)) for marker in _MARKERS]):
        return settings.root
    if len(files) == 1:
        # A file on its own: the packages that it lies in, and what lies beside it.
        directory = Path(next(iter(files))).parent
        while (directory / "__init__.py").exists():
            directory = directory.parent
        if not directory.is_dir() or directory in (Path(directory.anchor), Path.home()):
            return None
        return directory
    return None


def _file(source: SourceFile, settings: Settings, wanted: bool) -> _File:
    relative = os.path.relpath(os.path.abspath(source.name), settings.root)
    parts = [part for part in relative.replace(os.sep, "/").removesuffix(".py").split("/") if part not in (".", "..")]
    is_package = parts[-1] == "__init__"
    if is_package:
        parts = parts[:-1] or ["__init__"]
    return _File(source, ".".join([part.replace(".", "_") for part in parts]), is_package, wanted)


# --------------------------------------------------------------------------------------------------- reading


def _read(files: Sequence[_File], cache: Cache) -> None:
    """Find out which files matter. Unchanged files (by time and size) are not even opened."""
    index = cache.pack("index")
    for file in files:
        if file.data is not None:
            _examine(file, file.data)
            continue
        signature = _signature(file.source.name)
        known = index.get(file.source.name) if signature is not None else None
        if isinstance(known, tuple) and len(known) == 5 and known[0] == signature:
            _, file.digest, file.matters, file.lines, file.has_comments = known
            continue
        try:
            data = reading.read(file.source.name)
        except Problem as problem:
            file.problem = problem
            continue
        _examine(file, data)
        if file.problem is None and signature is not None and time.time_ns() - signature[0] > _SETTLED:
            index.put(file.source.name, (signature, file.digest, file.matters, file.lines, file.has_comments))
        if file.matters:
            file.data = data
    index.save()
    _check_syntax([file for file in files if file.wanted and not file.matters and file.problem is None])


def _signature(name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)


def _examine(file: _File, data: bytes) -> None:
    file.digest = blake2b(data, digest_size=16).hexdigest()
    file.matters = may_matter(data)
    file.lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    file.has_comments = suppressions.may_hold(data)
    if not file.matters:
        try:
            reading.decode(data)
        except Problem as problem:
            file.problem = problem


def _check_syntax(files: Sequence[_File]) -> None:
    """A broken file is worth a word even if it can't hold a session, as long as finding out costs little."""
    total = 0
    for file in files:
        size = len(file.data) if file.data is not None else _size(file.source.name)
        total += size
        if total > _SYNTAX_BUDGET:
            return
    for file in files:
        try:
            text = reading.decode(file.data if file.data is not None else reading.read(file.source.name))
            file.problem = _syntax_problem(text)
        except Problem as problem:
            file.problem = problem


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return 0


def _syntax_problem(text: str) -> Problem | None:
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except SyntaxError:
        from session_lint.syntax.lower import lower

        try:
            lower(text, "")
        except Problem as problem:
            return problem
    except (ValueError, RecursionError, MemoryError) as error:
        return reading.problem_of(error)
    return None


# ------------------------------------------------------------------------------------------------- analysing


def _project_key(files: Iterable[_File], settings: Settings) -> str:
    digest = blake2b(digest_size=20)
    digest.update(settings.analysis_fingerprint().encode())
    digest.update(os.getcwd().encode("utf-8", "surrogateescape"))
    for file in files:
        if file.matters:
            digest.update(f"{file.path}\0{file.key}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _analyse(
    files: Sequence[_File],
    settings: Settings,
    cache: Cache,
    report: Report,
    progress: Progress | None,
    executor: concurrent.futures.Executor | None,
) -> dict[str, Any]:
    """Findings of every wanted file by path, as plain data for the cache."""
    from session_lint.checks import all_rules
    from session_lint.checks.context import Context
    from session_lint.project.link import Project, allow_deep_recursion
    from session_lint.project.modules import Module

    allow_deep_recursion()
    trees, suppressed, problems = _lower_all(
        [file for file in files if file.matters], settings, cache, progress, executor
    )
    modules = {
        file.path: Module(file.path, file.name, file.is_package, trees[file.path])
        for file in files
        if file.path in trees
    }
    project = Project(list(modules.values()), settings)
    rules = all_rules().values()
    results: dict[str, Any] = {}
    for file in files:
        if not (file.wanted and file.matters):
            if file.path in problems and not file.wanted:
                report.notes.append(f"{file.path}: {problems[file.path].message}; judged without it")
            continue
        if file.path in problems:
            problem = problems[file.path]
            results[file.path] = ("problem", problem.message, problem.line, problem.column)
            continue
        module = modules[file.path]
        context = Context(project, module, settings)
        found: list[Finding] = []
        for rule in rules:
            context.code, context.name, context.severity = rule.code, rule.name, rule.severity
            found += rule.check(context)
        for reference, text in project.failures:
            if reference.module is module:
                line = reference.function.place[0]
                found.append(_not_analysed(file, Problem(f"internal error, please report it: {text}", line, 1)))
        results[file.path] = (
            "findings",
            tuple([_to_plain(finding) for finding in found]),
            tuple([(_to_plain(finding), reason) for finding, reason in context.held]),
            module.tree.lines,
            module.tree.functions,
            suppressed.get(file.path, ()),
        )
    report.notes += project.notes
    return results


def _lower_all(
    files: Sequence[_File],
    settings: Settings,
    cache: Cache,
    progress: Progress | None,
    executor: concurrent.futures.Executor | None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Problem]]:
    """The IR of every file, from the cache where it is known."""
    from session_lint import ir

    pack = cache.pack("ir")
    trees: dict[str, Any] = {}
    comments: dict[str, Any] = {}
    problems: dict[str, Problem] = {}
    todo: list[_File] = []
    for file in files:
        if file.problem is not None:
            problems[file.path] = file.problem
            continue
        known = pack.get(file.key)
        if isinstance(known, tuple) and len(known) == 2:
            trees[file.path], comments[file.path] = ir.from_plain(known[0]), known[1]
        else:
            todo.append(file)

    def store(file: _File, answer: Any) -> None:
        if isinstance(answer[0], str):
            problems[file.path] = Problem(*answer[1])
            file.problem = problems[file.path]
            return
        trees[file.path], comments[file.path] = ir.from_plain(answer[0]), answer[1]
        pack.put(file.key, answer)

    jobs = settings.jobs or os.cpu_count() or 1
    if executor is None and (jobs < 2 or len(todo) <= _IN_PROCESS):
        for done, file in enumerate(todo):
            store(file, _lower(file.source.name, file.data, file.name, file.is_package))
            if progress is not None:
                progress(done + 1, len(todo))
    elif todo:
        _lower_in_pool(todo, jobs, store, progress, executor)
    pack.save()
    return trees, comments, problems


def _lower_in_pool(
    todo: Sequence[_File],
    jobs: int,
    store: Callable[[_File, Any], None],
    progress: Progress | None,
    executor: concurrent.futures.Executor | None,
) -> None:
    import concurrent.futures

    pool = executor or concurrent.futures.ProcessPoolExecutor(min(jobs, len(todo)))
    done = 0
    # The largest first, a few at a time: no worker is left alone with a giant at the end.
    ordered = sorted(todo, key=lambda file: -file.lines)
    groups = [ordered[start :: max(len(ordered) // 8, 1)] for start in range(max(len(ordered) // 8, 1))]
    try:
        futures = {}
        for group in groups:
            job = [(file.source.name, file.data, file.name, file.is_package) for file in group]
            futures[pool.submit(_lower_group, job)] = group
        for future in concurrent.futures.as_completed(futures):
            try:
                answers = future.result()
            except concurrent.futures.BrokenExecutor:
                # Some file has killed its worker, and the pool with it.
                answers = [_lower_alone(file) for file in futures[future]]
            for file, answer in zip(futures[future], answers, strict=True):
                store(file, answer)
                done += 1
            if progress is not None:
                progress(done, len(todo))
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)


def _lower_alone(file: _File) -> Any:
    """A file that may kill the process that reads it gets one of its own."""
    import concurrent.futures

    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        try:
            return pool.submit(_lower, file.source.name, file.data, file.name, file.is_package).result()
        except concurrent.futures.BrokenExecutor:
            return ("problem", ("cannot be analysed: it crashes the parser", 1, 1))


def _lower_group(job: Sequence[tuple[str, bytes | None, str, bool]]) -> list[Any]:
    return [_lower(*item) for item in job]


def _lower(name: str, data: bytes | None, module: str, is_package: bool) -> Any:
    """A file's IR and its suppression comments as plain data, or ("problem", its words and place)."""
    from session_lint import ir
    from session_lint.syntax.lower import lower

    try:
        data = data if data is not None else reading.read(name)
        text = reading.decode(data)
        tree = ir.to_plain(lower(text, module, is_package))
    except Problem as problem:
        return ("problem", (problem.message, problem.line, problem.column))
    except Exception as error:  # noqa: BLE001 - a bug of ours in one file must not cost the others their findings
        return ("problem", (f"could not be analysed: {type(error).__name__}: {error}", 1, 1))
    comments = suppressions.parse(text).to_plain() if suppressions.may_hold(data) else ()
    return (tree, comments)


# ------------------------------------------------------------------------------------------------- reporting


def _preview(cache: Cache) -> dict[str, bool]:
    """Every rule's code and whether it is a preview. Kept, because asking the rules means to import them all."""
    known = cache.get("rules", "preview")
    if isinstance(known, dict):
        return known
    from session_lint.checks import all_rules

    preview = {code: rule.preview for code, rule in all_rules().items()}
    cache.put("rules", "preview", preview)
    return preview


def _report(
    report: Report, wanted: Sequence[_File], results: dict[str, Any], settings: Settings, preview: dict[str, bool]
) -> None:
    """Suppress, filter and sort what was found."""
    shown: list[Finding] = []

    def enabled(code: str) -> bool:
        return settings.enabled(code, preview.get(code, False))

    for file in wanted:
        report.files += 1
        report.lines += file.lines
        found, held, comments = _of_file(file, results, report)
        ignored = tuple(settings.ignored_for(file.source.name)) if settings.per_file_ignores else ()
        found = [item for item in found if enabled(item.code) and not (ignored and item.code.startswith(ignored))]
        report.noqa += comments.noqa_codes
        applied = suppressions.apply(found, comments, enabled=enabled, known=preview)
        report.suppressed += applied.suppressed
        kept = list(applied.kept)
        if enabled("SES901") and not (ignored and "SES901".startswith(ignored)):
            kept += [unused.finding(file.path) for unused in applied.unused]
        held = [pair for pair in held if enabled(pair[0].code)]
        for finding in kept:
            (report.held_back if finding.confidence.rank > settings.min_confidence.rank else shown).append(finding)
        report.mitigated += [finding for finding, _ in held]
    report.errors = sum([finding.code == "SES902" for finding in shown])
    report.sources = _sources(wanted, [*shown, *(report.mitigated if settings.show_mitigated else ())])
    report.findings = with_fingerprints(shown, report.sources)


def _of_file(
    file: _File, results: dict[str, Any], report: Report
) -> tuple[list[Finding], list[tuple[Finding, str]], suppressions.Suppressions]:
    if file.problem is not None:
        return [_not_analysed(file, file.problem)], [], suppressions.NONE
    result = results.get(file.path)
    if result is None:
        report.files_analysed += 1
        comments = suppressions.NONE
        if file.has_comments:
            comments = suppressions.parse(reading.decode(file.data or reading.read(file.source.name)))
        return [], [], comments
    if result[0] == "problem":
        return [_not_analysed(file, Problem(*result[1:]))], [], suppressions.NONE
    _, found, held, _, functions, comments_plain = result
    report.files_analysed += 1
    report.functions += functions
    return (
        [_from_plain(plain) for plain in found],
        [(replace(_from_plain(plain)), reason) for plain, reason in held],
        suppressions.Suppressions.from_plain(comments_plain),
    )


def _not_analysed(file: _File, problem: Problem) -> Finding:
    return Finding(
        code="SES902",
        name="file-not-analysed",
        message=problem.message,
        path=file.path,
        span=Span(problem.line, problem.column, problem.line, problem.column + 1),
        function="",
        severity=Severity.ERROR,
        confidence=Confidence.CERTAIN,
        statement=(problem.line, problem.line),
    )


def _sources(files: Sequence[_File], findings: Iterable[Finding]) -> dict[str, Sequence[str]]:
    """The lines of every file that a finding or its trail points into."""
    needed = {finding.path for finding in findings}
    needed |= {step.path for finding in findings for step in finding.trail}
    by_path = {file.path: file for file in files}
    sources: dict[str, Sequence[str]] = {}
    for path in needed:
        file = by_path.get(path)
        try:
            data = file.data if file is not None and file.data is not None else reading.read(path)
            sources[path] = reading.lines_of(reading.decode(data))
        except Problem:
            continue
    return sources


def _to_plain(finding: Finding) -> tuple[Any, ...]:
    span = finding.span
    return (
        finding.code,
        finding.name,
        finding.message,
        finding.path,
        (span.line, span.column, span.end_line, span.end_column),
        finding.function,
        finding.severity.value,
        finding.confidence.value,
        tuple([(step.path, step.line, step.column, step.message) for step in finding.trail]),
        tuple([(item.path, item.line, item.column, item.function, item.message) for item in finding.affects]),
        finding.statement,
    )


def _from_plain(plain: tuple[Any, ...]) -> Finding:
    code, name, message, path, span, function, severity, confidence, trail, affects, statement = plain
    return Finding(
        code=code,
        name=name,
        message=message,
        path=path,
        span=Span(*span),
        function=function,
        severity=Severity(severity),
        confidence=Confidence(confidence),
        trail=tuple([Step(*step) for step in trail]),
        affects=tuple([Affected(*item) for item in affects]),
        statement=tuple(statement),
    )


def _own_digest() -> str:
    """Changes with this program's own code, so that nothing older than a change of it is believed."""
    digest = blake2b(digest_size=8)
    top = os.path.dirname(os.path.abspath(__file__))
    for directory, names, files in os.walk(top):
        names[:] = sorted(
            [name for name in names if not name.startswith((".", "_")) and name not in ("runtime", "rules")]
        )
        for name in sorted(files):
            if name.endswith(".py"):
                status = os.stat(os.path.join(directory, name))
                digest.update(f"{name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
