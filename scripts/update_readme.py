"""Write the parts of README.md anew that the program itself prints: the output at the top and the rules' table.

`python scripts/update_readme.py`; tests/test_readme.py fails while they are not current.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from session_lint.rulebook import rules_table

CHECKOUT = Path(__file__).resolve().parent.parent
README = CHECKOUT / "README.md"

# Of all findings, the one that the story begins with.
SHOWN = "handle_update_thread_request"


def excerpt(command: str) -> str:
    """One finding and the last line of what `session-lint <command>` prints; "..." stands for the rest."""
    done = subprocess.run(
        [sys.executable, "-m", "session_lint", *command.split()],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 1:
        raise SystemExit(f"session-lint {command}: exit status {done.returncode}: {done.stderr.strip()}")
    findings = done.stdout.split("\n\n")
    (shown,) = [finding for finding in findings if re.search(rf"^ +--> .* in {SHOWN} ", finding, re.MULTILINE)]
    return f"...\n{shown}\n...\n{findings[-1]}"


def replaced(text: str, begin: str, end: str, content: str) -> str:
    """The text with what stands between two strings replaced."""
    head, found, rest = text.partition(begin)
    _, closing, tail = rest.partition(end)
    if not (found and closing):
        raise SystemExit(f"README.md has no {begin!r} ... {end!r}")
    return head + found + content + closing + tail


def main() -> None:
    text = README.read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- output of: session-lint (.*?) -->", text)
    text = replaced(text, f"<!-- output of: session-lint {command} -->\n```text\n", "```\n", excerpt(command))
    marker = "rules: session-lint rules --output-format markdown"
    text = replaced(text, f"<!-- begin {marker} -->\n", "<!-- end rules -->", rules_table("markdown"))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
