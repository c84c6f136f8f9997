"""Where in the user's code something happened, found by a walk over frames that is cheap enough to make always.

SQLAlchemy's asyncio layer runs its synchronous core in a greenlet, whose frames end at the greenlet's first one.
The walk goes on in the greenlet that drives it, where the coroutines of the user wait.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

try:
    from greenlet import getcurrent  # type: ignore[import-untyped,unused-ignore]
except ImportError:  # SQLAlchemy without asyncio needs none
    getcurrent = None

_DEEPEST = 24
_LOOP = asyncio.Handle._run.__code__


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's code. function: its qualified name where Python knows it (3.11), else its name."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shown(self.path)}:{self.line} in {self.function}"


class Origin(NamedTuple):
    """Whoever called a coroutine function whose coroutine became a task of its own: his frame may be gone."""

    co_filename: str
    co_name: str


Code = CodeType | Origin
Raw = list[tuple[Code, int]]


class Frames:
    """The user's frames at one moment, innermost first; made into places only when somebody looks."""

    __slots__ = ("_places", "_raw", "through")

    def __init__(self, raw: Raw, through: str) -> None:
        """through: SQLAlchemy's function that was called from outside of it, such as `close` or `__exit__`."""
        self._raw = raw
        self._places: tuple[Place, ...] | None = None
        self.through = through

    @property
    def places(self) -> tuple[Place, ...]:
        if self._places is None:
            self._places = tuple(Place(c.co_filename, line, _function(c)) for c, line in self._raw)
        return self._places

    @property
    def first(self) -> Place | None:
        """The innermost one."""
        return self.places[0] if self._raw else None

    @property
    def key(self) -> tuple[tuple[str, int], ...]:
        """What is equal for two moments that were reached in the same way."""
        return tuple((code.co_filename, line) for code, line in self._raw)

    def __str__(self) -> str:
        return str(self.first) if self._raw else "(no code of the project)"


NOWHERE = Frames([], "")


_SQLALCHEMY = f"{os.sep}sqlalchemy{os.sep}"
_LIBRARY, _SQLALCHEMYS, _USERS = range(3)


class _Owners(dict[str, int]):
    """Whose file it is, worked out once for each."""

    def __missing__(self, name: str) -> int:
        # An absolute path even of a file that was named relatively; "<string>" and "<frozen ...>" are nobody's.
        library = name.startswith("<") or _installed(os.path.abspath(name))  # noqa: PTH100
        self[name] = owner = (_SQLALCHEMYS if _SQLALCHEMY in name else _LIBRARY) if library else _USERS
        return owner


def _installed(path: str) -> bool:
    return path.startswith(_LIBRARIES) or "site-packages" in path or "dist-packages" in path


# With the separator: `/usr/lib/python3.11` must not claim `/usr/lib/python3.11-project`.
_OURS = str(Path(__file__).resolve().parent) + os.sep
_PLUGIN = str(Path(__file__).resolve().parent.parent / "plugins") + os.sep
_LIBRARIES = tuple(
    {
        *(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")),
        *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")),
        _OURS,
        _PLUGIN,
    }
)
_owners = _Owners()


def is_users(path: str) -> bool:
    """Whether this file is the user's: not the standard library, nothing that is installed, not the shim."""
    return _owners[path] == _USERS


def here(skip: int = 1, deepest: int = _DEEPEST) -> Frames:
    """The user's frames now. skip: frames of the shim itself. deepest: look for that many of the user's."""
    return _outwards(sys._getframe(skip), deepest)


def _outwards(frame: FrameType | None, deepest: int, through: str = "", greenlet: Any = None) -> Frames:
    """The user's frames from this one on. greenlet: that of the frame; none is the one that runs."""
    found: Raw = []
    owners = _owners
    while True:
        while frame is not None:
            code = frame.f_code
            if code is _LOOP:  # what started the event loop has not called this
                return Frames(found + _origin() if deepest > 1 else found, through)
            owner = owners[code.co_filename]
            if owner == _USERS:
                if deepest == 1:
                    return _alone(frame, through)
                found.append((code, frame.f_lineno))
                if len(found) == deepest:
                    return Frames(found, through)
            elif owner == _SQLALCHEMYS and not found:
                through = code.co_name
            frame = frame.f_back
        if getcurrent is None:
            break
        greenlet = (greenlet or getcurrent()).parent
        if greenlet is None:
            break
        frame = greenlet.gr_frame
    return Frames(found, through)


_lines: dict[tuple[int, int, str], Frames] = {}


def _alone(frame: FrameType, through: str) -> Frames:
    """One frame of the user's. The same instruction always gives the same object, which keeps its code alive."""
    code = frame.f_code
    key = id(code), frame.f_lasti, through
    return _lines.get(key) or _lines.setdefault(key, Frames([(code, frame.f_lineno)], through))


class Site:
    """A hook that asks for the user's innermost frame; its way through SQLAlchemy is mostly as long as last time.

    A look at the depth of last time costs a fraction of a walk, for which Python has to make an object of every frame.
    """

    __slots__ = ("_beyond", "_calls", "_codes", "_depth")

    def __init__(self) -> None:
        self._depth = 1
        self._beyond = 0
        """How far out the user's code is in the greenlet that drives this one."""
        self._calls: dict[tuple[int, int, int], Frames] = {}
        """By the function of SQLAlchemy that was called, the user's function and its instruction."""
        self._codes: dict[int, CodeType] = {}
        """Whose address stands in a key must not go away."""

    def nearest(self) -> Frames:
        try:
            inner = sys._getframe(self._depth)
            outer = inner.f_back
            if outer is None:  # a greenlet ends here
                if _owners[inner.f_code.co_filename] == _USERS:
                    return self._look()
                inner = getcurrent().parent.gr_frame
                for _ in range(self._beyond):
                    inner = inner.f_back
                outer = inner.f_back
            return self._calls[id(inner.f_code), id(outer.f_code), outer.f_lasti]
        except (KeyError, AttributeError, TypeError, ValueError):  # never seen, no such frame, no greenlets
            return self._look()

    def _look(self) -> Frames:
        start = sys._getframe(2)
        inner, self._depth = _to_users(start)
        self._depth += 1
        if inner.f_back is None:
            beyond = getattr(getcurrent().parent, "gr_frame", None) if getcurrent is not None else None
            if beyond is None:
                return _outwards(start, 1)
            inner, self._beyond = _to_users(beyond)
        frames, outer, code = _outwards(start, 1), inner.f_back, inner.f_code
        if outer is not None and (_owners[code.co_filename] == _SQLALCHEMYS or code.co_filename.startswith(_OURS)):
            self._codes[id(code)] = code
            self._codes[id(outer.f_code)] = outer.f_code
            self._calls[id(code), id(outer.f_code), outer.f_lasti] = frames
        return frames


def _to_users(frame: FrameType) -> tuple[FrameType, int]:
    """The frame that the user's code has called, and how far out it is; else the outermost one."""
    depth = 0
    while (outer := frame.f_back) is not None and _owners[outer.f_code.co_filename] != _USERS:
        frame, depth = outer, depth + 1
    return frame, depth


def _origin() -> Raw:
    """Who made this task's coroutine; Python knows if `sys.set_coroutine_origin_tracking_depth()` was asked to."""
    task = asyncio.current_task()
    made = getattr(task.get_coro(), "cr_origin", None) if task is not None else None
    return [(Origin(name, function), line) for name, line, function in made or () if is_users(name)]


def about_to_call(error: BaseException) -> Frames:
    """The functions, as yet not called, of the dependencies and the handler in FastAPI's frames of an exception."""
    found: Raw = []
    trace = error.__traceback__
    while trace is not None:
        for value in tuple(trace.tb_frame.f_locals.values()):
            if type(value).__name__ == "Dependant":
                code = getattr(inspect.unwrap(value.call), "__code__", None) if callable(value.call) else None
                if code is not None and is_users(code.co_filename):
                    found.append((code, code.co_firstlineno))
        trace = trace.tb_next
    return Frames(found[::-1], "")


def raised(error: BaseException) -> Frames:
    """The user's frames that an exception has passed, innermost first."""
    found: Raw = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code.co_filename):
            found.append((code, trace.tb_lineno))
        trace = trace.tb_next
    return Frames(found[::-1], "")


def waiting(task: Any) -> tuple[Frames, bool]:
    """The user's frames in which a suspended task waits, innermost first, and whether it waits for SQLAlchemy."""
    found: list[FrameType] = []
    owners = _owners
    library = False
    for frame in _suspended(task.get_coro()):
        owner = owners[frame.f_code.co_filename]
        if owner == _USERS:
            found.append(frame)
            library = False
        elif owner == _SQLALCHEMYS:
            library = True
    return (NOWHERE if library else Frames([(frame.f_code, frame.f_lineno) for frame in found[::-1]], "")), library


def _suspended(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine that waits, outermost first, as far as Python lets see."""
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        else:  # an asynchronous generator, or what another compiler than Python's has made
            frame, awaited = _attribute(awaited, "frame"), _attribute(awaited, "await", "yieldfrom")
        if frame is None:
            return
        yield frame


def is_within(instance: object, thread: int, task: Any) -> bool:
    """Whether the task, or else the thread, runs or waits in a method of this object of SQLAlchemy's."""
    frames = _threads_frames(thread) if task is None else _suspended(task.get_coro())
    for frame in frames:
        if _owners[frame.f_code.co_filename] == _SQLALCHEMYS:
            known = frame.f_locals
            if known.get("self") is instance:
                return True
            if task is not None:  # what SQLAlchemy's asyncio layer has sent into a greenlet waits there
                inner = getattr(known.get("context"), "gr_frame", None)
                if any(each.f_locals.get("self") is instance for each in _outer(inner)):
                    return True
    return False


def _threads_frames(thread: int) -> Iterator[FrameType]:
    return _outer(sys._current_frames().get(thread))


def _outer(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _attribute(awaited: Any, *names: str) -> Any:
    found = [getattr(awaited, f"{prefix}_{name}", None) for prefix in ("cr", "gi", "ag") for name in names]
    return next((each for each in found if each is not None), None)


def shown(path: str) -> str:
    """The path for people: relative to the working directory where it lies below it."""
    try:
        return _shown(path, os.getcwd())  # noqa: PTH109 - asked for every line of every run
    except (ValueError, OSError):
        return path


@functools.lru_cache(maxsize=4096)
def _shown(path: str, directory: str) -> str:
    return Path(path).resolve().relative_to(Path(directory).resolve()).as_posix()


def _function(code: Code) -> str:
    return getattr(code, "co_qualname", code.co_name).replace(".<locals>", "")
