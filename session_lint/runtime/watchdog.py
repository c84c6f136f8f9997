"""The shell that owns a PostgreSQL server of ours, so that the server cannot outlive this process.

It waits on a pipe whose other end only this process holds. When the pipe closes, for whatever reason (SIGKILL
among them), it stops the server and removes the data. It makes the directory too, so that there is no moment
at which a killed process leaves something behind.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

# $1 our directory, $2 where the binaries are, $3 the port; the rest are options of the server.
# Standard output tells us of each step by a line, and of the server's end by its own end: once the server
# runs, only the server holds it.
_SCRIPT = r"""
base=$1 bin=$2 port=$3; shift 3
server=
umask 077
finish() {
    trap '' HUP INT TERM PIPE
    if [ -n "$server" ]; then
        # TERM for a server so young that it has no signal handlers yet, QUIT for the immediate shutdown.
        kill -TERM "$server" 2>/dev/null
        kill -QUIT "$server" 2>/dev/null
        wait "$server" 2>/dev/null
    fi
    rm -rf -- "$base"
    exit 0
}
trap finish HUP INT TERM PIPE  # PIPE: nobody is there any more to hear what is said below
mkdir -- "$base" || exit 1
echo made
read -r line || finish
if ! "$bin/initdb" -D "$base/data" -U postgres -A scram-sha-256 --pwfile="$base/password" -E UTF8 --locale=C \
    --no-sync >"$base/initdb.log" 2>&1 </dev/null; then
    echo failed
    read -r line
    finish
fi
rm -f -- "$base/password"
"$bin/postgres" -D "$base/data" -h 127.0.0.1 -p "$port" -k "$base" "$@" 2>"$base/log" </dev/null &
server=$!
exec >/dev/null
read -r line
finish
"""

# PGDATA, PGOPTIONS and their like would change the server; secrets are none of its business.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_STOP_SECONDS = 20


class Watchdog:
    """The shell and our end of its pipe. Raises OSError when the shell cannot be started as that account."""

    def __init__(self, base: Path, arguments: Sequence[str], account: pwd.struct_passwd | None) -> None:
        self.base = base
        self._lock = threading.Lock()
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "session-lint-postgres", str(base), *arguments],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            start_new_session=True,  # Ctrl-C in a terminal is for us, not for the server
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        self._process = process
        # At the interpreter's normal end; an abnormal one closes the pipe, which does the same.
        self._finalizer = weakref.finalize(self, _stop, process, base, os.getpid())
        _watchdogs.add(self)

    def expect(self, seconds: float) -> str | None:
        """The shell's next line; "" when it and the server are gone; None when nothing is said in time."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return ""
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not poll.poll(seconds * 1000):
            return None
        return os.read(self._process.stdout.fileno(), 100).decode().strip()

    def go(self) -> None:
        """Everything is in its place: make the data directory and start the server."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # expect() will tell
            os.write(self._process.stdin.fileno(), b"go\n")

    def stop(self) -> None:
        """Stop the server, remove the directory and wait until both are gone."""
        with self._lock:
            self._finalizer()

    def forget(self) -> None:
        """In a forked child: let go of the pipe, or the server would live as long as the child."""
        self._finalizer.detach()
        _close(self._process)


_watchdogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _forget_all() -> None:
    for watchdog in list(_watchdogs):
        watchdog.forget()


os.register_at_fork(after_in_child=_forget_all)


def environment() -> dict[str, str]:
    """What the server and its tools see of our environment."""
    return {"LC_ALL": "C", "TZ": "UTC", **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}}


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _stop(process: subprocess.Popen[bytes], base: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    _close(process)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode == 1 or not base.exists():  # 1: it could not even make the directory, so it is not ours
        return
    # Someone killed the shell, which leaves its work to us.
    with contextlib.suppress(OSError, ValueError, IndexError):
        os.kill(int((base / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
    shutil.rmtree(base, ignore_errors=True)
