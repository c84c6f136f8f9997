"""What a run keeps for the next one.

Values are plain data (tuples, lists, dicts, str, bytes, int, float, bool, None), stored with `marshal`: on
8.6 MB of nested tuples it loads in 98 ms and JSON in 359 ms, or 534 ms with JSON's lists turned back into
tuples (Python 3.11, 2 cores). pickle needs 78 ms and would run whatever code a repository ships as its "cache".

A file is believed only if it carries a digest keyed with a secret of this user (kept outside every
repository): so neither a damaged file nor a cache that came with a repository is ever parsed, and a pull
request cannot hide its findings by bringing a cache along. Anything that is wrong with a file means that the
entry is absent; anything that prevents writing means no cache. Neither ever stops a run.

Two shapes: `get`/`put`, one file for one value; and `pack`, one file for the many entries of a namespace,
because opening 1,600 files costs more than reading them. A pack is a base file and a small file of what came
since, so that an edit of one source file does not rewrite megabytes.
"""

# A run opens this before anything else, so it works on strings:
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH111, PTH116, PTH117, PTH118, PTH123

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import re
import sys
import time
from pathlib import Path

from session_lint._hashing import blake2b

MAGIC = b"session-lint cache 1\n"
_DIGEST = 16
_HEADER = len(MAGIC) + _DIGEST
# marshal's format and the meaning of what it holds change with Python; so files of others are not even opened.
_PYTHON = f"{sys.implementation.cache_tag}-{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"

KEEP_DAYS = 30
MAX_PACK = 64 * 1024 * 1024
MAX_DIRECTORY = 256 * 1024 * 1024
_TEMPORARY = ".tmp"
_SUFFIX = ".cache"
# Only what looks exactly like ours is ever deleted: settings can point the cache at any directory.
_OURS = r"[a-z][a-z0-9_]*-[0-9a-f]{12}-[0-9a-f]{20}\.cache(?:\.\d+-[0-9a-f]+\.tmp)?"
_LEFTOVER_SECONDS = 3600
_PRUNE_SECONDS = 3600
_DAY = 86400

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of session-lint; it can be deleted.\n"


class Cache:
    """A directory of values that can be computed again.

    directory: None for no cache. version_key: whatever the values' meaning depends on besides their keys (the
    tool's version, settings); another version_key sees another cache. notes: why it doesn't work, for
    --verbose.
    """

    def __init__(self, directory: Path | str | None, version_key: str, *, secret: bytes | None = None) -> None:
        self.notes: list[str] = []
        self._directory = None if directory is None else os.fspath(directory)
        self._version = f"{_PYTHON} {version_key}".encode()
        self._name = blake2b(self._version, digest_size=6).hexdigest()
        self._secret = b""
        self._prepared = False
        if self._directory is not None:
            secret = secret if secret is not None else _user_secret()
            if secret is None:
                self._off("no cache: no place in this user's home for the key that protects it")
            else:
                self._secret = secret

    @property
    def enabled(self) -> bool:
        """False once it is known that nothing can be stored."""
        return self._directory is not None

    def get(self, namespace: str, key: str) -> object | None:
        """The value, None if there is none."""
        payload = self._read(self._path(namespace, key), f"{namespace}\0{key}")
        return None if payload is None else loads(payload)

    def put(self, namespace: str, key: str, value: object) -> None:
        """Store a value. Raises ValueError if it is not plain data; failing to store it is no error."""
        if self._directory is not None:
            self._write(self._path(namespace, key), f"{namespace}\0{key}", dumps(value))

    def pack(self, namespace: str) -> Pack:
        """The entries of a namespace, read when the first one is asked for."""
        return Pack(self, namespace)

    def prune(self) -> None:
        """Delete what nobody has used for a month, what is too much, and what killed runs left.

        Cheap: one look at a time stamp, and at most once an hour one at the directory. Called by the first `put`.
        """
        directory = self._directory
        if directory is None:
            return
        now = time.time()
        try:
            stamp = os.path.join(directory, "CACHEDIR.TAG")
            if now - os.stat(stamp).st_mtime < _PRUNE_SECONDS:
                return
            os.utime(stamp)
            with os.scandir(directory) as entries:
                ours = [
                    entry
                    for entry in entries
                    if re.fullmatch(_OURS, entry.name) and entry.is_file(follow_symlinks=False)
                ]
            total = 0
            for status, entry in sorted(
                ((entry.stat(follow_symlinks=False), entry) for entry in ours), key=lambda pair: -pair[0].st_mtime
            ):
                age = now - status.st_mtime
                total += status.st_size
                limit = _LEFTOVER_SECONDS if entry.name.endswith(_TEMPORARY) else KEEP_DAYS * _DAY
                if age > limit or total > MAX_DIRECTORY:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
        except OSError:
            return

    # ---------------------------------------------------------------------------------------------- files

    def _path(self, namespace: str, key: str) -> str:
        # Keys may be any text; a file's name may not.
        name = blake2b(f"{namespace}\0{key}".encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return os.path.join(self._directory or "", f"{namespace}-{self._name}-{name}{_SUFFIX}")

    def _digest(self, label: str, payload: bytes | memoryview) -> bytes:
        state = blake2b(key=self._secret, digest_size=_DIGEST)
        state.update(self._version + b"\0" + label.encode("utf-8", "surrogatepass") + b"\0")
        state.update(payload)
        return state.digest()

    def _read(self, path: str, label: str) -> memoryview | None:
        if self._directory is None:
            return None
        try:
            with open(path, "rb") as file:
                data = file.read()
                age = time.time() - os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        payload = memoryview(data)[_HEADER:]
        if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : _HEADER] != self._digest(label, payload):
            return None
        if age > _DAY:
            with contextlib.suppress(OSError):
                os.utime(path)  # used: see prune()
        return payload

    def _write(self, path: str, label: str, payload: bytes) -> None:
        if self._directory is None or not self._prepare():
            return
        temporary = f"{path}.{os.getpid()}-{time.monotonic_ns():x}{_TEMPORARY}"
        try:
            try:
                with open(temporary, "xb") as file:
                    file.write(MAGIC + self._digest(label, payload))
                    file.write(payload)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            self._off(f"no cache: cannot write {path}: {error.strerror or error}")

    def _prepare(self) -> bool:
        """Make the directory when the first value is stored, so that a run without any leaves nothing behind."""
        directory = self._directory
        if directory is None or self._prepared:
            return self._prepared
        try:
            os.makedirs(directory, exist_ok=True)
            for name, text in ((".gitignore", "*\n"), ("CACHEDIR.TAG", _TAG)):
                path = os.path.join(directory, name)
                if not os.path.exists(path):
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(text)
        except OSError as error:
            self._off(f"no cache: cannot write {directory}: {error.strerror or error}")
            return False
        self._prepared = True
        self.prune()
        return True

    def _off(self, note: str) -> None:
        self._directory = None
        self.notes.append(note)


# An entry of a pack: the day it was last used and its bytes.
_Entry = tuple[int, memoryview]
_Part = dict[str, _Entry]

_REFRESH_DAYS = 7
_SMALL = 256 * 1024


class Pack:
    """Many entries in one file. `save` stores what was put; without it nothing is kept."""

    def __init__(self, cache: Cache, namespace: str) -> None:
        self._cache = cache
        self._namespace = namespace
        self._today = int(time.time() // _DAY)
        self._loaded: tuple[object, object] | None = None
        self._base: _Part = {}
        self._recent: _Part = {}
        self._used: set[str] = set()
        self._new: dict[str, bytes] = {}

    def get(self, key: str) -> object | None:
        """The value, None if there is none."""
        payload: bytes | memoryview | None = self._new.get(key)
        if payload is None:
            self._load()
            entry = self._recent.get(key) or self._base.get(key)
            if entry is None:
                return None
            self._used.add(key)
            payload = entry[1]
        return loads(payload)

    def __contains__(self, key: str) -> bool:
        self._load()
        return key in self._new or key in self._recent or key in self._base

    def put(self, key: str, value: object) -> None:
        """Keep a value until `save`. Raises ValueError if it is not plain data."""
        self._new[key] = dumps(value)

    def put_dumped(self, key: str, data: bytes) -> None:
        """Keep a value that another process has put into bytes with `dumps`."""
        self._new[key] = data

    def save(self) -> None:
        """Write what is new. What another process stored meanwhile is kept, or at worst computed once more."""
        if not self._cache.enabled:
            return
        self._load()
        stale = [key for key in self._used if self._day(key) < self._today - _REFRESH_DAYS]
        if not self._new and not stale:
            return
        if self._signatures() != self._loaded:
            self._loaded = None
            self._load()
        recent = {**self._recent, **{key: (self._today, memoryview(data)) for key, data in self._new.items()}}
        if not stale and _size(recent) <= max(_SMALL, _size(self._base) // 4):
            self._store("recent", recent)
        else:
            merged = {**self._base, **recent}
            for key in self._used.intersection(merged):
                merged[key] = (self._today, merged[key][1])
            self._store("base", self._pruned(merged))
            # In this order: a run killed in between leaves entries twice, never not at all.
            with contextlib.suppress(OSError):
                os.unlink(self._path("recent"))
        self._loaded = None
        self._new.clear()

    def _day(self, key: str) -> int:
        entry = self._recent.get(key) or self._base.get(key)
        return self._today if entry is None else entry[0]

    def _pruned(self, entries: _Part) -> _Part:
        """Without what nobody has used for a month, and the oldest ones if it is still too much."""
        kept = {key: entry for key, entry in entries.items() if entry[0] >= self._today - KEEP_DAYS}
        excess = _size(kept) - MAX_PACK
        if excess > 0:
            for key in sorted(kept, key=lambda key: kept[key][0]):
                if excess <= 0:
                    break
                if key not in self._used and key not in self._new:
                    excess -= len(kept.pop(key)[1])
        return kept

    def _path(self, part: str) -> str:
        return self._cache._path(self._namespace, f"\0{part}")

    def _signatures(self) -> tuple[object, object]:
        return _signature(self._path("base")), _signature(self._path("recent"))

    def _load(self) -> None:
        if self._loaded is None and self._cache.enabled:
            # The signatures first: a file that is replaced in between is then read again before it is rewritten.
            self._loaded = self._signatures()
            self._base = self._part("base")
            self._recent = self._part("recent")

    def _part(self, part: str) -> _Part:
        payload = self._cache._read(self._path(part), f"{self._namespace}\0pack {part}")
        if payload is None:
            return {}
        end = 8 + int.from_bytes(payload[:8], "little")
        index: dict[str, tuple[int, int, int]] = marshal.loads(payload[8:end])
        blob = payload[end:]
        return {key: (day, blob[start : start + length]) for key, (day, start, length) in index.items()}

    def _store(self, part: str, entries: _Part) -> None:
        index: dict[str, tuple[int, int, int]] = {}
        start = 0
        for key, (day, data) in entries.items():
            index[key] = (day, start, len(data))
            start += len(data)
        head = marshal.dumps(index)
        blob = b"".join([len(head).to_bytes(8, "little"), head, *(data for _, data in entries.values())])
        self._cache._write(self._path(part), f"{self._namespace}\0pack {part}", blob)


def _size(entries: _Part) -> int:
    return sum(len(data) for _, data in entries.values())


def _signature(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def dumps(value: object) -> bytes:
    """Plain data as bytes. Raises ValueError for other data, and for what is nested too deeply."""
    return marshal.dumps(value)  # type: ignore[arg-type]


def loads(payload: bytes | memoryview) -> object | None:
    """The inverse of `dumps`; None for bytes that it did not make. Only for bytes that are known to be ours."""
    # The collector would look through everything built so far, again and again: a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        value: object = marshal.loads(payload)
    except (EOFError, ValueError, TypeError):
        return None
    finally:
        if collecting:
            gc.enable()
    return value


def _user_secret() -> bytes | None:
    """32 random bytes of this user's, made when they are first needed. None if they can't be kept."""
    if os.name == "nt":
        home = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or ""
        home = home if os.path.isabs(home) else os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(home):
        return None
    directory = os.path.join(home, "session-lint")
    path = os.path.join(directory, "cache-key")
    secret = _secret_in(path)
    if secret is not None:
        return secret
    temporary = f"{path}.{os.getpid()}-{time.monotonic_ns():x}{_TEMPORARY}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(os.urandom(_SECRET))
            # Of two runs that get here at once the first one's stays. An unusable file is replaced.
            if os.path.exists(path):
                os.replace(temporary, path)
            else:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass
                except OSError:  # a file system without links
                    os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    except OSError:
        return None
    return _secret_in(path)


_SECRET = 32


def _secret_in(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            secret = file.read(_SECRET + 1)
    except OSError:
        return None
    return secret if len(secret) == _SECRET else None
