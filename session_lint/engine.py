"""The pipeline, from paths to a report.

    discover → prefilter → parse + lower (per file, cached, parallel) → link (whole project) → check → suppress → report

Findings depend on the whole project, whatever part of it is asked for: linting one file gives for that file
exactly what linting everything gives. Two things are kept for the next run: every file's IR by its content, and
the findings by the contents of all files that took part, so that nothing is parsed, and LibCST is not even
imported, when nothing has changed.
"""

# Done before anything else in every run, so it works on strings:
# ruff: noqa: PTH100, PTH109, PTH110, PTH116, PTH118, PTH120

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from session_lint import __version__
from session_lint._hashing import blake2b
from session_lint._process import prepared
from session_lint.cache import Cache
from session_lint.findings import Finding, Report, with_fingerprints
from session_lint.project.versions import Versions
from session_lint.results import FileResult, from_plain, not_analysed
from session_lint.settings import Settings
from session_lint.source import discovery, inventory, reading, suppressions
from session_lint.source.inventory import File
from session_lint.source.reading import Problem, Source

if TYPE_CHECKING:
    import concurrent.futures

    from session_lint.source.gitignore import Memory

__all__ = ["Source", "check"]

Progress = Callable[[int, int], None]


def check(
    paths: Sequence[Path],
    settings: Settings,
    *,
    stdin: Source | None = None,
    progress: Progress | None = None,
    executor: concurrent.futures.Executor | None = None,
    suppress: bool = True,
) -> Report:
    """Lint files and directories.

    stdin: text that stands for one of the files, such as an editor's unsaved buffer. progress: called with the
    numbers of files done and to do. executor: where files are parsed; a pool of processes by default. suppress:
    False to pass over the comments that silence findings, and to say nothing about them. Files that have a nearer
    settings file are judged by that, as they would be if they were asked for alone.

    Raises:
        UsageError: a path does not exist.
        SettingsError: a nearer settings file is wrong.
    """
    with prepared():
        cache = Cache(settings.cache_directory, f"{__version__} {_own_digest()}")
        taken = inventory.take(paths, settings, stdin, cache)
        files = taken.files
        key = _project_key(files, settings)
        results = _known_results(cache, key)
        wanted = [file for file in files if file.wanted]
        missing = [file for file in wanted if file.matters and file.path not in results]
        unchecked = inventory.unchecked(files)
        if missing or unchecked:
            taken.changed = True
            added = _analyse(files, missing, unchecked, settings, cache, progress, executor)
            results = {**results, **added}
            if stdin is None and added and not any([file.passing for file in files]):
                cache.put("results", key, {path: tuple(result) for path, result in results.items()})
        report = Report(warnings=taken.problems, notes=list(_unjudged(files, results)))
        _report(report, wanted, results, settings, _preview(cache), taken.memory, suppress)
        inventory.remember(taken, cache)
        report.notes += cache.notes
        for nearer, group in taken.nearer:
            report.notes.append(f"settings of {len(group)} of the files: {nearer.source}")
            names = [Path(name) for name in discovery.included(group, nearer)]
            if names:
                report.add(check(names, nearer, progress=progress, executor=executor, suppress=suppress))
        return report


# ----------------------------------------------------------------------------------------------------- analysing


def _project_key(files: Sequence[File], settings: Settings) -> str:
    """Changes with whatever the findings of any of the files may depend on."""
    digest = blake2b(digest_size=20)
    digest.update(settings.analysis_fingerprint().encode())
    digest.update(os.getcwd().encode("utf-8", "surrogateescape"))
    lines = [f"{file.path}\0{file.key}\n" for file in files if file.matters]
    digest.update("".join(lines).encode("utf-8", "surrogatepass"))
    versions = Versions(settings).fingerprint([file.path for file in files if file.matters])
    digest.update(versions.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _known_results(cache: Cache, key: str) -> dict[str, FileResult]:
    value = cache.get("results", key)
    return {path: FileResult(*plain) for path, plain in value.items()} if isinstance(value, dict) else {}


def _analyse(
    files: Sequence[File],
    missing: Sequence[File],
    unchecked: Sequence[File],
    settings: Settings,
    cache: Cache,
    progress: Progress | None,
    executor: concurrent.futures.Executor | None,
) -> dict[str, FileResult]:
    """The results of the missing files by path."""
    from session_lint.syntax.batch import lower_all

    matter = [file for file in files if file.matters] if missing else []
    trees = lower_all(matter, unchecked, cache, settings.jobs, progress, executor)
    broken = {
        file.path: FileResult((file.problem.message, file.problem.line, file.problem.column))
        for file in matter
        if file.problem is not None
    }
    paths = [file.path for file in missing if file.path in trees]
    if not paths:
        return broken
    from session_lint.judging import judge

    return {**broken, **judge(files, trees, paths, settings)}


def _unjudged(files: Iterable[File], results: dict[str, FileResult]) -> Iterator[str]:
    """What the findings do without, for --verbose."""
    for file in files:
        result = results.get(file.path)
        if result is None:
            continue
        if file.wanted:
            yield from result.notes
        elif result.problem is not None:  # nobody has asked for it, but others may import it
            yield f"{file.path}: {result.problem[0]}; judged without it"


# ----------------------------------------------------------------------------------------------------- reporting


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
    report: Report,
    wanted: Sequence[File],
    results: dict[str, FileResult],
    settings: Settings,
    preview: dict[str, bool],
    memory: Memory,
    suppress: bool,
) -> None:
    """Suppress, filter and sort what was found."""
    on = {code: settings.enabled(code, is_preview) for code, is_preview in preview.items()}
    enabled = on.__getitem__
    shown: list[Finding] = []
    for file in wanted:
        report.files += 1
        report.lines += file.lines
        found, held, comments = _of_file(file, results.get(file.path), report)
        comments = comments if suppress else suppressions.NONE
        if not found and not held and not comments:
            continue
        ignored = tuple(settings.ignored_for(file.source.name, memory)) if settings.per_file_ignores else ()
        found = [item for item in found if on[item.code] and not (ignored and item.code.startswith(ignored))]
        report.noqa += comments.noqa_codes
        applied = suppressions.apply(found, comments, enabled=enabled, known=preview)
        report.suppressed += applied.suppressed
        kept = list(applied.kept)
        if on["SES901"] and not (ignored and "SES901".startswith(ignored)):
            kept += [unused.finding(file.path) for unused in applied.unused]
        for finding in kept:
            (report.held_back if finding.confidence.rank > settings.min_confidence.rank else shown).append(finding)
        report.mitigated += [finding for finding in held if on[finding.code]]
    report.errors = len({finding.path for finding in shown if finding.code == "SES902"})
    report.sources = _sources(wanted, [*shown, *(report.mitigated if settings.show_mitigated else ())])
    report.findings = with_fingerprints(shown, report.sources)


def _of_file(
    file: File, result: FileResult | None, report: Report
) -> tuple[list[Finding], list[Finding], suppressions.Suppressions]:
    """What was found, what somebody cleans up after, and the comments that silence."""
    if file.problem is not None:
        return [not_analysed(file.path, file.problem)], [], suppressions.NONE
    if result is not None and result.problem is not None:
        return [not_analysed(file.path, Problem(*result.problem))], [], suppressions.NONE
    report.files_analysed += 1
    if result is None:
        comments = file.comments
        return [], [], suppressions.Suppressions.from_plain(comments) if comments else suppressions.NONE
    report.functions += result.functions
    found = [from_plain(plain) for plain in result.found]
    found += [not_analysed(file.path, Problem(*problem)) for problem in result.left_out]
    held = [from_plain(plain) for plain, _ in result.held]
    comments = result.comments
    return found, held, suppressions.Suppressions.from_plain(comments) if comments else suppressions.NONE


def _sources(files: Sequence[File], findings: Iterable[Finding]) -> dict[str, Sequence[str]]:
    """The lines of every file that a finding or its trail points into."""
    needed = {finding.path for finding in findings}
    needed |= {step.path for finding in findings for step in finding.trail}
    by_path = {file.path: file for file in files} if needed else {}
    sources: dict[str, Sequence[str]] = {}
    for path in needed:
        file = by_path.get(path)
        try:
            data = file.data if file is not None and file.data is not None else reading.read(path)
            sources[path] = reading.lines_of(reading.decode(data))
        except Problem:
            continue
    return sources


def _own_digest() -> str:
    """Changes with this program's own code and what it asks, so that nothing older than a change is believed."""
    import importlib.machinery

    found: list[str] = []
    _stat_sources(os.path.dirname(os.path.abspath(__file__)), found)
    for library in ("libcst", "pathspec"):
        spec = importlib.machinery.PathFinder.find_spec(library)
        if spec is None or spec.origin is None:
            continue
        for name in (spec.origin, os.path.join(os.path.dirname(spec.origin), "_version.py")):
            if os.path.exists(name):
                status = os.stat(name)
                found.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return blake2b("\n".join(found).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


_NO_ANALYSIS = frozenset(("__pycache__", "runtime", "rules", "reporters", "plugins"))


def _stat_sources(directory: str, found: list[str]) -> None:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                status = entry.stat()
                found.append(f"{entry.path} {status.st_size} {status.st_mtime_ns}")
            elif entry.name not in _NO_ANALYSIS and entry.is_dir():
                _stat_sources(entry.path, found)
