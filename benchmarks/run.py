"""What session-lint costs on a tree, as ratios measured in one run: `python benchmarks/run.py TREE`.

Seconds say more about the machine than about the program; ratios to what LibCST itself needs to parse the
same files, and to other linters on the same tree, can be compared between machines. Every row is a fresh
process; every command is run several times. Shown are the lowest and the median wall-clock time, the lowest
processor time (of all processes together: what counts on a busy machine), the ratio of the lowest wall-clock
times, and the memory of the largest process. Tools that are not installed in the environment of `--tools` (by
default: this one) are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure import Measurement, MeasurementError, measure, peak_of_all_processes
from tools import TOOLS, Tool

# The baseline is chosen without asking session-lint: text that mentions a session.
SESSION = re.compile(rb"[sS]ession")
SKIPPED = {".git", ".venv", "venv", "node_modules", "build", "dist", "__pycache__", ".tox", ".nox", ".eggs"}

# Runs in a process of its own; prints the seconds of parsing alone, without start-up, imports and reading.
PARSE = """
import sys, time, libcst
seconds = processor = 0.0
for path in sys.stdin.read().split("\\0"):
    data = open(path, "rb").read()
    begin, begin_processor = time.perf_counter(), time.process_time()
    try:
        libcst.parse_module(data)
    except Exception:
        pass
    seconds += time.perf_counter() - begin
    processor += time.process_time() - begin_processor
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
except ImportError:
    peak = 0.0
print(seconds, processor, peak)
"""


def python_files(tree: Path) -> list[Path]:
    """Every Python file below a directory, but for environments and build products."""
    found = []
    for directory, names, files in os.walk(tree):
        names[:] = sorted(name for name in names if name not in SKIPPED)
        found += [Path(directory, name) for name in sorted(files) if name.endswith(".py")]
    return found


def machine() -> str:
    """One line about where the figures come from."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count()
    system = f"{platform.system()} {platform.release()}"
    return f"{processor}, {cores} cores, {system}, {platform.python_implementation()} {platform.python_version()}"


class Table:
    """Rows as they come, with their ratio to the baseline, which is the first row."""

    def __init__(self) -> None:
        self.baseline = 0.0
        print(f"{'':<44} {'min s':>9} {'median s':>9} {'cpu s':>9} {'x parse':>9} {'MB':>7}")

    def row(self, label: str, measured: Sequence[Measurement], note: str = "") -> None:
        times = [measurement.seconds for measurement in measured]
        low = min(times)
        self.baseline = self.baseline or low
        processor = min(measurement.processor for measurement in measured)
        megabytes = max(measurement.megabytes for measurement in measured)
        ratio = low / self.baseline if self.baseline else 0.0
        figures = f"{low:9.3f} {statistics.median(times):9.3f} {processor:9.3f} {ratio:9.2f} {megabytes:7.0f}"
        print(f"{label:<44} {figures}  {note}".rstrip(), flush=True)

    def left_out(self, label: str, why: str) -> None:
        print(f"{label:<44} {why}", flush=True)


def parse_baseline(python: str, files: Sequence[Path], repeat: int) -> list[Measurement]:
    """LibCST parses the files, one after the other in one process, several times."""
    names = "\0".join(map(str, files))
    measured = []
    for _ in range(repeat if files else 0):
        done = subprocess.run([python, "-c", PARSE], input=names, capture_output=True, text=True, check=True)
        seconds, processor, megabytes = map(float, done.stdout.split())
        measured.append(Measurement(seconds, processor, megabytes))
    return measured or [Measurement(0.0, 0.0, 0.0)]


class SessionLint:
    """The commands whose cost is measured. Their cache lies in a directory of their own."""

    def __init__(self, tree: Path, scratch: Path, options: Sequence[str]) -> None:
        self.tree = tree
        self.cache = scratch / "cache"
        self.settings = scratch / "session-lint.toml"
        self.settings.write_text(f"cache-dir = {json.dumps(str(self.cache))}\n", encoding="utf-8")
        self.options = list(options)

    def command(self, *arguments: str) -> list[str]:
        base = [sys.executable, "-m", "session_lint", "check", "--config", str(self.settings), "--exit-zero"]
        return [*base, *self.options, *arguments]

    def forget(self) -> None:
        """Empty the cache."""
        if self.cache.exists():
            self.cache.rename(self.cache.with_name(f"cache-{time.monotonic_ns()}"))

    def cold(self, jobs: int | None = None) -> Measurement:
        self.forget()
        return self.run(str(self.tree), *(("--jobs", str(jobs)) if jobs else ()))

    def warm(self) -> Measurement:
        return self.run(str(self.tree))

    def one_file(self, path: Path) -> Measurement:
        return self.run(str(path))

    def buffer(self, path: Path, text: str) -> Measurement:
        """An editor's unsaved text."""
        return measure(self.command("--stdin-filename", str(path), "-"), cwd=self.tree, text=text)

    def run(self, *arguments: str) -> Measurement:
        return measure(self.command(*arguments), cwd=self.tree)

    def summary(self) -> dict[str, int]:
        command = self.command("--output-format", "json", str(self.tree))
        done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, check=True)
        summary: dict[str, int] = json.loads(done.stdout)["summary"]
        return summary


def own_rows(table: Table, lint: SessionLint, touched: Sequence[Path], repeat: int) -> None:
    """Rows of session-lint itself."""
    table.row("session-lint, cold, all cores", [lint.cold() for _ in range(repeat)])
    table.row("session-lint, cold, one process", [lint.cold(jobs=1) for _ in range(repeat)])
    lint.cold()
    table.row("session-lint, warm", [lint.warm() for _ in range(repeat)])
    if touched:
        by_size = sorted(touched, key=lambda path: path.stat().st_size)
        for label, path in (("middle", by_size[len(by_size) // 2]), ("largest", by_size[-1])):
            text = path.read_text(encoding="utf-8", errors="replace")
            note = f"{path.relative_to(lint.tree)}, {text.count(chr(10))} lines"
            lint.one_file(path)
            table.row(f"session-lint, the {label} file, warm", [lint.one_file(path) for _ in range(repeat)], note)
            # Another comment at the end each time: the cache has the rest of the project, but not this text.
            edited = [lint.buffer(path, f"{text}\n# {number}\n") for number in range(repeat)]
            table.row(f"session-lint, the {label} file, being edited", edited, note)
    start = [measure([sys.executable, "-c", "pass"], cwd=lint.tree) for _ in range(repeat)]
    table.row("(starting Python)", start)


def other_rows(table: Table, tree: Path, python: str, wanted: Sequence[Tool], repeat: int, timeout: float) -> None:
    """Rows of the other linters that are installed."""
    for tool in wanted:
        version = tool.version(python)
        if version is None:
            table.left_out(tool.label, "not installed, left out")
            continue
        try:
            measured = [measure(tool.command(python, tree), cwd=tree, timeout=timeout) for _ in range(repeat)]
        except MeasurementError as failure:
            table.left_out(tool.label, str(failure))
            continue
        table.row(tool.label, measured, version)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tree", type=Path, metavar="TREE")
    parser.add_argument("--repeat", type=int, default=5, help="times that each command of session-lint is run (5)")
    parser.add_argument("--tool-repeat", type=int, default=1, help="times that each other tool is run (1)")
    parser.add_argument("--tools", default=sys.executable, metavar="PYTHON", help="Python that has the other tools")
    parser.add_argument("--only", action="append", choices=[tool.name for tool in TOOLS], help="only this other tool")
    parser.add_argument("--no-tools", action="store_true", help="measure session-lint only")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that another tool may take (1800)")
    parser.add_argument("option", nargs="*", help="after --: options for session-lint, e.g. --ownership local")
    options = parser.parse_args(arguments)
    tree = options.tree.resolve()
    if not tree.is_dir():
        parser.error(f"not a directory: {options.tree}")

    # Reading every file also puts it into the system's cache, so that the first command has no handicap.
    contents = {path: path.read_bytes() for path in python_files(tree)}
    touched = [path for path, data in contents.items() if SESSION.search(data)]
    lines = sum(data.count(b"\n") for data in contents.values())
    touched_lines = sum(contents[path].count(b"\n") for path in touched)
    print(f"machine     {machine()}")
    print(f"tree        {tree.name}: {len(contents)} Python files, {lines} lines")
    print(f"baseline    LibCST parses the {len(touched)} files ({touched_lines} lines) that mention sessions")
    del contents

    with tempfile.TemporaryDirectory(prefix="session-lint-benchmark-") as scratch:
        lint = SessionLint(tree, Path(scratch), options.option)
        summary = lint.summary()
        keys = ("files", "files_analysed", "lines", "functions", "findings", "errors")
        print("report      " + ", ".join(f"{summary[key]} {key.replace('_', ' ')}" for key in keys if key in summary))
        parse = parse_baseline(sys.executable, touched, options.repeat)
        table = Table()
        table.row("LibCST parse alone, one process", parse)
        own_rows(table, lint, touched, options.repeat)
        lint.forget()
        total = peak_of_all_processes(lint.command(str(tree)), cwd=tree)
        if total is not None:
            print(f"{'all processes of a cold run together':<44} {'':39} {total:7.0f}")
    if not options.no_tools:
        wanted = [tool for tool in TOOLS if not options.only or tool.name in options.only]
        other_rows(table, tree, options.tools, wanted, options.tool_repeat, options.timeout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
