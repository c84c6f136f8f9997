"""What call graphs of bad shapes cost: `python benchmarks/scale.py [--functions 10000] [--handlers 5000]`.

Three projects are written and linted from nothing: functions that all call each other in circles and hand one session
round, web handlers that all work through one repository, and nested functions that call each other in loops. Each is
measured in half its size as well: what grows in proportion to the lines takes about half as long.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import measure

ROOT = Path(__file__).resolve().parent.parent
PER_FILE = 100

Files = Iterator[tuple[str, str]]


def circles(number: int) -> Files:
    """Functions that call the next one and two others, far away: every one reaches every other."""
    for first in range(0, number, PER_FILE):
        lines = ["from sqlalchemy.orm import Session"]
        mine = range(first, min(first + PER_FILE, number))
        others = {at: sorted({(at + 1) % number, (7 * at + 3) % number, (number - at) % number}) for at in mine}
        away = sorted({other for group in others.values() for other in group} - set(mine))
        lines += [f"from app.part{other // PER_FILE} import step{other}" for other in away]
        for at, group in others.items():
            lines += ["", "", f"def step{at}(session: Session, depth: int) -> None:", "    if depth:"]
            lines += ["        session.add(object())"] if at % 3 == 0 else ["        session.commit()"]
            lines += [f"    step{other}(session, depth - 1)" for other in group]
        yield f"app/part{first // PER_FILE}.py", "\n".join(lines) + "\n"


def handlers(number: int) -> Files:
    """Handlers of a web application over one repository."""
    repository = (
        "from sqlalchemy import create_engine\n"
        "from sqlalchemy.orm import Session, sessionmaker\n\n"
        "SessionLocal = sessionmaker(create_engine('postgresql://'))\n\n\n"
        "def get_db():\n    db = SessionLocal()\n    yield db\n\n\n"
        "class Repository:\n    def __init__(self, session: Session) -> None:\n        self.session = session\n\n"
        "    def create(self, item):\n        self.session.add(item)\n        self.session.commit()\n\n"
        "    def rename(self, key, name):\n        self.get(key).name = name\n        self.session.commit()\n\n"
        "    def get(self, key):\n        return self.session.get(object, key)\n"
    )
    yield "app/db.py", repository
    for first in range(0, number, PER_FILE):
        lines = ["from fastapi import APIRouter, Depends", "from sqlalchemy.orm import Session"]
        lines += ["from app.db import Repository, get_db", "", "router = APIRouter()"]
        for at in range(first, min(first + PER_FILE, number)):
            lines += ["", "", f"@router.post('/{at}')", f"def handler{at}(item: dict, db: Session = Depends(get_db)):"]
            lines += ["    repository = Repository(db)", "    if repository.get(item['id']):"]
            lines += ["        repository.rename(item['id'], item['name'])", "    else:"]
            lines += ["        repository.create(item)", "    return item"]
        yield f"app/routes{first // PER_FILE}.py", "\n".join(lines) + "\n"


def closures(number: int) -> Files:
    """One function with nested ones that call those before them in loops, with branches on what they have found."""
    lines = ["from sqlalchemy.orm import Session", "", "", "def serve(session: Session, events):"]
    for at in range(number):
        lines += [f"    def step{at}(event, kept=None):", "        found = None", "        for part in event:"]
        lines += [f"            if part.kind == {at}:", "                found = session.get(object, part)"]
        lines += ["            elif found:", "                session.add(part)"]
        lines += [f"                step{earlier}(part, found)" for earlier in range(max(0, at - 3), at)]
        lines += ["        if found:", "            session.commit()", "        return found", ""]
    lines += ["    while True:", "        for event in events():"]
    lines += [f"            if event.kind == {at}:\n                step{at}(event)" for at in range(number)]
    yield "app/serve.py", "\n".join(lines) + "\n"


def lint(files: Files) -> tuple[int, str]:
    """The lines of a project, and what a run over it costs."""
    with tempfile.TemporaryDirectory() as directory:
        lines = 0
        for name, text in files:
            path = Path(directory, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            lines += text.count("\n")
        command = [sys.executable, "-m", "session_lint", "check", "--isolated", "--no-cache", "--exit-zero", directory]
        cost = measure(command, cwd=ROOT)
    return lines, f"{cost.seconds:7.1f} s {cost.processor:7.1f} s CPU {cost.megabytes:6.0f} MB"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", type=int, default=10_000)
    parser.add_argument("--handlers", type=int, default=5_000)
    parser.add_argument("--closures", type=int, default=20)
    options = parser.parse_args()
    shapes: dict[str, tuple[Callable[[int], Files], int]] = {
        "functions in circles": (circles, options.functions),
        "handlers over one repository": (handlers, options.handlers),
        "nested functions": (closures, options.closures),
    }
    for what, (make, number) in shapes.items():
        for size in (number // 2, number):
            lines, cost = lint(make(size))
            print(f"{size:6d} {what:30} {lines:7d} lines {cost}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
