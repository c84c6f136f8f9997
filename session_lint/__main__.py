"""`python -m session_lint`."""

from session_lint.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
