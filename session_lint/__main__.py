"""The command in a process of its own: `session-lint`, `python -m session_lint`."""

import signal
import sys


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
