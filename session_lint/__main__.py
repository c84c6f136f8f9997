"""The command in a process of its own: `session-lint`, `python -m session_lint`."""

# With nothing but what Python has loaded by itself:
# ruff: noqa: PTH100, PTH109, PTH120

import os
import sys


def _leave_working_directory() -> None:
    """`python -m` looks for modules there first, where the locale.py of a project would run instead of Python's."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        here = os.getcwd()
    except OSError:
        return  # it is gone
    if sys.path[:1] == [here] and here != package:
        del sys.path[0]


if __name__ == "__main__":
    _leave_working_directory()

import signal  # noqa: E402


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)  # with the name: Ctrl-C has none, and is for children too


def run() -> int:
    """Run the command and return the exit status."""
    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
                signal.signal(number, _interrupt)  # ends like Ctrl-C: workers and servers go, too
        from session_lint._process import short_lived
        from session_lint.cli import main

        short_lived()
        return main()
    except KeyboardInterrupt:  # main() has not begun, or is over
        print("session-lint: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(run())
