"""What runs later or elsewhere: the calls that start tasks, threads and jobs, and whether somebody waits for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.flow.result import Frame
from session_lint.flow.values import Path
from session_lint.ir_queries import bound_names, bound_paths, own_expressions, path_of

BACKGROUND = "background task"  # runs after the response
TASK = "task"  # runs on, in the event loop
THREAD = "thread"
JOB = "job of an executor"
QUEUED = "queued job"  # runs in another process
SCHEDULED = "scheduled job"  # runs when its time has come


class Start(NamedTuple):
    """A call that starts something. function: what is to run, or the call that makes the coroutine."""

    kind: str
    function: ir.Expr


_BACKGROUND_NAME = re.compile(r"background|(^|_)(bg|tasks?)(_|$)", re.IGNORECASE)
_EXECUTOR_NAME = re.compile(r"executor|pool$", re.IGNORECASE)
_OF_TASKS = ("name", "context", "label", "loop", "eager_start")
_WAITING = frozenset("join result gather wait wait_for as_completed shutdown shield run_until_complete".split())
_OF_THREADS = ("limiter", "cancellable", "abandon_on_cancel", "executor")
_COLLECTING = frozenset("append add insert extend put put_nowait update".split())
_TASK_MAKERS = ("ensure_future", "run_coroutine_threadsafe")
_STARTERS = frozenset(
    "Thread Timer delay apply_async start_soon BackgroundTask add_task submit run_in_executor add_job "
    "call_later call_at call_soon call_soon_threadsafe".split()
) | set(_TASK_MAKERS)


def started_by(node: ir.Call) -> Start | None:
    """What a call starts, judged by what it is called and by the form of its arguments."""
    path = path_of(node.function)
    if not path:
        return None
    last = path[-1]
    if last not in _STARTERS and not last.endswith("create_task"):
        return None
    positional = [argument.value for argument in node.arguments if argument.name is None]
    named = {argument.name: argument.value for argument in node.arguments if argument.name not in (None, "*", "**")}
    function = positional[0] if positional else named.get("func") or named.get("fn") or named.get("coro")
    if last in ("Thread", "Timer"):
        target = named.get("target") or named.get("function") or (positional[1] if len(positional) > 1 else None)
        return Start(THREAD, target) if target is not None else None
    if last in ("delay", "apply_async") and len(path) > 1:
        return Start(QUEUED, ir.Name(path[:-1]))
    if function is None:
        return None
    if last == "add_job":
        return Start(SCHEDULED, function) if _may_be_function(function) else None
    if last.startswith("call_"):
        later = positional[1] if last in ("call_later", "call_at") and len(positional) > 1 else function
        is_method = len(path) > 1 or isinstance(node.function, ir.Attribute)
        return Start(SCHEDULED, later) if is_method and _may_be_function(later) else None
    if last.endswith("create_task") or last in _TASK_MAKERS:
        # `create_task(db, item)` makes a row in many applications; a task is made of a coroutine.
        alone = len(positional) <= (2 if last == "run_coroutine_threadsafe" else 1)
        options = all([name in _OF_TASKS or name == "coro" for name in named])
        return Start(TASK, function) if isinstance(function, ir.Call) and alone and options else None
    if last == "start_soon":
        return Start(TASK, function)
    if last == "BackgroundTask" or (last == "add_task" and len(path) > 1 and _BACKGROUND_NAME.search(path[-2])):
        return Start(BACKGROUND, function) if _may_be_function(function) else None
    if last == "submit" and len(path) > 1:
        return Start(JOB, function) if _may_be_function(function) else None
    if last == "run_in_executor" and len(positional) > 1:
        return Start(JOB, positional[1])
    return None


def in_a_thread(node: ir.Call) -> ir.Call | None:
    """`run_in_threadpool(f, x)` as the call `f(x)`: who awaits it waits for the function, which runs in a thread."""
    path = path_of(node.function)
    arguments = [argument for argument in node.arguments if argument.name not in _OF_THREADS]
    if isinstance(node.function, ir.Call):
        # `sync_to_async(f)(x)`
        if path_of(node.function.function)[-1:] != ("sync_to_async",) or not node.function.arguments:
            return None
        return ir.Call(node.function.arguments[0].value, node.arguments, node.place)
    if path[-1:] == ("run_in_executor",):
        arguments = arguments[1:]
    elif path[-1:] not in (("run_in_threadpool",), ("to_thread",)) and path[-2:] != ("to_thread", "run_sync"):
        return None
    if not arguments or arguments[0].name is not None or not _may_be_function(arguments[0].value):
        return None
    return ir.Call(arguments[0].value, tuple(arguments[1:]), node.place)


def is_executor(path: Path) -> bool:
    """Whether the owner of a `submit` is called what executors are called."""
    return len(path) > 1 and _EXECUTOR_NAME.search(path[-2]) is not None


def _may_be_function(node: ir.Expr) -> bool:
    return isinstance(node, (ir.Name, ir.Attribute, ir.Lambda)) or (
        isinstance(node, ir.Call) and path_of(node.function)[-1:] == ("partial",)
    )


def group_of(path: Path, frames: list[Frame]) -> tuple[ir.With, ir.WithItem] | None:
    """The with block that waits for what its group or executor has started."""
    for frame in reversed(frames):
        if isinstance(frame.node, ir.With):
            for item in frame.node.items:
                if item.target == ir.Name(path[:-1]):
                    return frame.node, item
    return None


def is_waited_for(function: ir.Function, statement: ir.Stmt | None, node: ir.Call) -> bool:
    """Whether the function itself waits for what a call starts, or gives it to somebody who may."""
    if statement is None:
        return False
    if any([_waits(part) and _mentions(part, node) for part in own_expressions(statement)]):
        return True
    if isinstance(statement, ir.Return):
        return True
    names = {(name,) for name in bound_names(statement)} | set(_collectors(statement, lambda part: part == node))
    names |= {path for target in getattr(statement, "targets", ()) for path in bound_paths(target)}
    return bool(names) and _is_waited_for_by_name(function.body, names)


def _is_waited_for_by_name(body: tuple[ir.Stmt, ...], names: set[Path]) -> bool:
    """Follow the names from one statement to the next."""

    def known(part: ir.Expr) -> bool:
        return isinstance(part, ir.Name) and any([part.path[: len(name)] == name for name in names])

    for statement in ir.statements(body):
        if isinstance(statement, ir.Define) and isinstance(statement.definition, ir.Function):
            if _is_waited_for_by_name(statement.definition.body, set(names)):
                return True
            continue
        expressions = list(own_expressions(statement))
        if isinstance(statement, ir.Return) and any([known(part) for part in expressions]):
            return True
        for part in expressions:
            if _waits(part) and any([known(inner) for inner in ir.expressions(part)]):
                return True
            if isinstance(part, ir.Comprehension):
                for generator in part.generators:
                    if any([known(inner) for inner in ir.expressions(generator.iterable)]):
                        names |= set(bound_paths(generator.target))
        names |= set(_collectors(statement, known))
        if isinstance(statement, ir.Assign) and statement.value is not None:
            if any([known(part) for part in ir.expressions(statement.value)]):
                names |= {path for target in statement.targets for path in bound_paths(target)}
        elif isinstance(statement, ir.For) and any([known(part) for part in ir.expressions(statement.iterable)]):
            names |= set(bound_paths(statement.target))
            if statement.is_async:
                return True
    return False


def _waits(part: ir.Expr) -> bool:
    if isinstance(part, ir.Await):
        return True
    return isinstance(part, ir.Call) and path_of(part.function)[-1:] != () and path_of(part.function)[-1] in _WAITING


def _mentions(part: ir.Expr, node: ir.Call) -> bool:
    return any([inner == node for inner in ir.expressions(part)])


def _collectors(statement: ir.Stmt, known: Callable[[ir.Expr], bool]) -> Iterator[Path]:
    """`tasks.append(x)`: who waits for the list waits for x."""
    for part in own_expressions(statement):
        path = path_of(part.function) if isinstance(part, ir.Call) else ()
        if isinstance(part, ir.Call) and len(path) > 1 and path[-1] in _COLLECTING:
            for argument in part.arguments:
                if any([known(inner) for inner in ir.expressions(argument.value)]):
                    yield path[:-1]
