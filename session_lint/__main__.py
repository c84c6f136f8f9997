"""The command in a process of its own: `session-lint`, `python -m session_lint`."""

from session_lint._process import short_lived
from session_lint.cli import main


def run() -> int:
    """Run the command and return the exit status."""
    short_lived()
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
