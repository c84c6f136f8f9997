"""Many files to IR: from the cache where they are known, else by parsing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from session_lint import cache as caching
from session_lint import ir
from session_lint.source.reading import Problem
from session_lint.syntax.work import Job, PlainProblem, work

if TYPE_CHECKING:
    import concurrent.futures

    from session_lint.cache import Cache
    from session_lint.source.inventory import File

Progress = Callable[[int, int], None]

_IN_PROCESS = 4_000
"""Files of up to so many lines are lowered in this process; more are worth starting workers for."""
_CHECK_ONLY = 15
"""So many times less than lowering it costs to check a file's syntax."""


class Tree(NamedTuple):
    """comments: plain suppression comments. left_out: parts of the file that are not in the IR, and why."""

    module: ir.Module
    comments: tuple[Any, ...]
    left_out: tuple[PlainProblem, ...]


def lower_all(
    files: Sequence[File],
    unchecked: Sequence[File],
    cache: Cache,
    jobs: int | None,
    progress: Progress | None,
    executor: concurrent.futures.Executor | None,
) -> dict[str, Tree]:
    """The IR of the files by path; what is wrong with one becomes its `problem`.

    unchecked: files of which only the syntax is to be checked. progress: called with the numbers of files done and
    to do. executor: where files are parsed; a pool of processes by default.
    """
    pack = cache.pack("ir")
    trees: dict[str, Tree] = {}
    todo: dict[str, File] = {}
    for file in files:
        if file.problem is not None:
            continue
        known = pack.get(file.key)
        if isinstance(known, tuple) and known and known[0] == "tree":
            trees[file.path] = _tree(known)
        else:
            todo[file.source.name] = file
    todo.update({file.source.name: file for file in unchecked})
    items = [(_job(file), _cost(file)) for file in todo.values()]
    for done, (job, data) in enumerate(_answers(items, jobs, executor), 1):
        file = todo[job.path]
        answer = caching.loads(data)
        if not isinstance(answer, tuple):
            raise TypeError("a worker gave an answer that is none")
        if answer[0] in ("problem", "died"):
            file.problem = Problem(*answer[1])
            file.passing = answer[0] == "died"
        elif answer[0] == "tree":
            trees[file.path] = _tree(answer)
            if file.signature is not None:  # a file, not what an editor has of one with each key pressed
                pack.put_dumped(file.key, data)
        file.checked = True
        if progress is not None:
            progress(done, len(todo))
    pack.save()
    return trees


def _answers(items: list[tuple[Job, int]], jobs: int | None, executor: concurrent.futures.Executor | None) -> Any:
    if executor is None and (jobs == 1 or sum([cost for _, cost in items]) <= _IN_PROCESS):
        return ((job, work([job])[0]) for job, _ in items)
    from session_lint.syntax import workers

    jobs = jobs or workers.processors()
    if executor is None and (jobs < 2 or not workers.may_have_children()):
        return ((job, work([job])[0]) for job, _ in items)
    return workers.answers(items, jobs, executor)


def _tree(answer: tuple[Any, ...]) -> Tree:
    module = ir.from_plain(answer[1])
    if not isinstance(module, ir.Module):
        raise TypeError("this is no module's IR")
    return Tree(module, answer[2], answer[3])


def _cost(file: File) -> int:
    return file.lines + 1 if file.matters else file.lines // _CHECK_ONLY + 1


def _job(file: File) -> Job:
    return Job(file.source.name, file.data, file.name, file.is_package, file.matters, file.words)
