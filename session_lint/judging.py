"""Link the project and run the rules over the files that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from session_lint.checks import all_rules
from session_lint.checks.context import Context
from session_lint.project.link import Project
from session_lint.project.modules import Module
from session_lint.results import FileResult, not_analysed, to_plain
from session_lint.source.reading import Problem

if TYPE_CHECKING:
    from session_lint.findings import Finding
    from session_lint.settings import Settings
    from session_lint.source.inventory import File
    from session_lint.syntax.batch import Tree


def judge(
    files: Sequence[File], trees: dict[str, Tree], wanted: Iterable[str], settings: Settings
) -> tuple[dict[str, FileResult], list[str]]:
    """The results of the wanted files by path, and lines for --verbose.

    files: all that may hold sessions. trees: their IR by path, but for those that could not be read.
    """
    modules = {
        file.path: Module(file.path, file.name, file.is_package, trees[file.path].module)
        for file in files
        if file.path in trees
    }
    project = Project(list(modules.values()), settings)
    results = {path: _judge(project, modules[path], trees[path], settings) for path in wanted}
    return results, project.notes


def _judge(project: Project, module: Module, tree: Tree, settings: Settings) -> FileResult:
    context = Context(project, module, settings)
    found: list[Finding] = []
    for rule in all_rules().values():
        context.code, context.name, context.severity = rule.code, rule.name, rule.severity
        found += rule.check(context)
    for reference, text in project.failures:
        if reference.module is module:
            problem = Problem(f"internal error, please report it: {text}", reference.function.place[0])
            found.append(not_analysed(module.path, problem))
    return FileResult(
        problem=None,
        left_out=tree.left_out,
        found=tuple([to_plain(finding) for finding in found]),
        held=tuple([(to_plain(finding), reason) for finding, reason in context.held]),
        functions=module.tree.functions,
        comments=tree.comments,
    )
