"""Link the project and run the rules over the files that are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from session_lint.checks import Rule, all_rules
from session_lint.checks.context import Context
from session_lint.project.link import Project
from session_lint.project.modules import Module
from session_lint.results import FileResult, not_analysed, to_plain
from session_lint.source import reading
from session_lint.source.reading import Problem

if TYPE_CHECKING:
    from session_lint.findings import Finding, Span
    from session_lint.settings import Settings
    from session_lint.source.inventory import File
    from session_lint.syntax.batch import Tree

FEW = 10
"""One file of so many is worth asking for the flows around it, rather than for all."""


def judge(
    files: Sequence[File], trees: dict[str, Tree], wanted: Iterable[str], settings: Settings
) -> dict[str, FileResult]:
    """The results of the wanted files by path.

    files: all of the project. trees: the IR by path of those that may hold sessions and could be read.
    """
    modules = {
        file.path: Module(file.path, file.name, file.is_package, trees[file.path].module)
        for file in files
        if file.path in trees
    }
    wanted = list(wanted)
    is_whole = len(wanted) * FEW > len(modules)
    packages = [file.name for file in files if file.is_package]
    project = Project(list(modules.values()), settings, [file.name for file in files], packages, is_whole)
    rules = list(all_rules().values())
    results = {path: _judge(project, modules[path], trees[path], rules, settings) for path in wanted}
    names = _Names(files, project)
    return {path: result._replace(notes=names.notes(modules[path])) for path, result in results.items()}


_RELATIVE = re.compile(rb"^[ \t]*from[ \t]+(\.+)[ \t]*([\w.]*)[ \t]+import\b", re.MULTILINE)


class _Names:
    """Says where a module's imports lead to nothing, or may lead to several files."""

    def __init__(self, files: Sequence[File], project: Project) -> None:
        self._project = project
        self._files = {file.path: file for file in files}
        packages = {file.name for file in files if file.is_package}
        # What an import may begin with that means this project, and not what is installed.
        self._own = {file.name.split(".")[0] for file in files}
        self._own |= {name.rpartition(".")[2] for name in packages if name.rpartition(".")[0] not in packages}
        self._all = "".join([f"\n.{file.name}." for file in files])
        self._is_there: dict[str, bool] = {}
        self._broken = [file for file in files if file.problem is not None]
        self._by_last: dict[str, list[Module]] = {}
        for module in project.table.modules:
            self._by_last.setdefault(module.name.rpartition(".")[2], []).append(module)

    def notes(self, module: Module) -> tuple[str, ...]:
        """Lines for --verbose."""
        notes = [note for note in self._project.notes if note.startswith(f"{module.path}: ")]
        said: set[str] = set()
        for dotted in [*module.targets, *module.stars]:
            # `from a.b import c`: c is a name in a.b or a module.
            for name in (dotted.rpartition(".")[0], dotted):
                if name and name not in said:
                    said.add(name)
                    notes += [f"{module.path}: imports {name}, {why}" for why in self._doubts(name, module)]
        missing = {name for name in [*(t.rpartition(".")[0] for t in module.targets), *module.stars] if name}
        missing = {name for name in missing if name.split(".")[0] in self._own and not self._exists(name)}
        notes += [f"{module.path}: imports {name}, which is no file of this project" for name in sorted(missing)]
        notes += [
            f"{module.path}: imports {name}, which is above the project's root" for name in self._above_root(module)
        ]
        return tuple(notes)

    def _exists(self, name: str) -> bool:
        """Whether a file or directory of the project may be meant."""
        known = self._is_there.get(name)
        if known is None:
            known = self._is_there[name] = f".{name}." in self._all
        return known

    def _above_root(self, module: Module) -> Iterator[str]:
        """Relative imports that leave the project, as they stand there."""
        file = self._files[module.path]
        depth = module.name.count(".") + module.is_package if module.name else 0
        try:
            data = file.data if file.data is not None else reading.read(file.source.name)
        except Problem:
            return
        if b"." * (depth + 1) not in data:
            return
        for dots, name in dict.fromkeys(_RELATIVE.findall(data)):
            text = name.decode("utf-8", "replace")
            if len(dots) > depth and not (text and self._exists(text)):
                yield f"{dots.decode()}{text}"

    def _doubts(self, name: str, near: Module) -> Iterator[str]:
        found = self._project.table.find_module(name, near)
        if found is None:
            for file in self._broken:
                if file.problem is not None and _ends(file.name, name):
                    yield f"but {file.path} {file.problem.message}"
            return
        best = _nearness(found, near)
        rivals = [
            each for each in self._by_last[name.rpartition(".")[2]] if _ends(each.name, name) and each is not near
        ]
        others = [each.path for each in rivals if each is not found and _nearness(each, near) == best]
        if others:
            yield f"which may be {' or '.join([found.path, *others])}; the first is taken"


def _ends(name: str, dotted: str) -> bool:
    return name == dotted or name.endswith(f".{dotted}")


def _nearness(module: Module, near: Module) -> tuple[int, int]:
    """How many directories two modules share, and how deep the first one lies."""
    ours, theirs = module.name.split("."), near.name.split(".")
    shared = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), len(ours))
    return shared, len(ours)


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once: of a nested function, and of the one that calls it in place, the surer one."""
    kept: dict[Span, list[Finding]] = {}
    for finding in findings:
        known = kept.setdefault(finding.span, [])
        twin = next((at for at, other in enumerate(known) if _is_twin(other, finding)), None)
        if twin is None:
            known.append(finding)
        else:
            # Of two that are as sure, the nested one names the function that is to be mended.
            known[twin] = min(known[twin], finding, key=lambda each: (each.confidence.rank, -len(each.function)))
    return [finding for known in kept.values() for finding in known]


def _is_twin(one: Finding, other: Finding) -> bool:
    """Whether two findings at one place say the same, or one of their functions stands in the other."""
    names = sorted([one.function, other.function], key=len)
    return names[1].startswith(f"{names[0]}.") or (names[0] == names[1] and one.message == other.message)


def _judge(project: Project, module: Module, tree: Tree, rules: Iterable[Rule], settings: Settings) -> FileResult:
    context = Context(project, module, settings)
    found: list[Finding] = []
    for rule in rules:
        context.code, context.name, context.severity = rule.code, rule.name, rule.severity
        found += _once(rule.check(context))
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
