"""What the README says is what the program does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from session_lint import __version__
from session_lint.rulebook import rules_table
from session_lint.settings import load

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def session_lint(*arguments: str, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "session_lint", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)


def between(begin: str, end: str) -> str:
    """The README's text between two markers."""
    match = re.search(rf"<!-- begin {begin} -->\n(.*?)<!-- end {end} -->", README, re.DOTALL)
    assert match is not None, begin
    return match[1]


def first_cells(table: str) -> list[str]:
    """The first cells of a table's rows, without its head."""
    return [row.split("|")[1].strip() for row in table.splitlines()[2:] if row.startswith("|")]


def block_after(marker: str) -> str:
    """The code block that follows a comment."""
    match = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```\n", README, re.DOTALL)
    assert match is not None, marker
    return match[1]


def options_in_help() -> set[str]:
    help_text = session_lint("check", "--help").stdout
    return {
        name for line in re.findall(r"^ +(-.*)", help_text, re.MULTILINE) for name in re.findall(r"--[a-z-]+", line)
    }


@pytest.mark.parametrize("marker", ["lint command", "test command"])
def test_each_of_the_two_commands_is_one_line(marker: str) -> None:
    (line,) = block_after(marker).splitlines()
    assert line.startswith("python3 -m venv ")


def test_the_output_at_the_top_is_real() -> None:
    (command,) = re.findall(r"<!-- output of: session-lint (.*?) -->", README)
    assert f".venv/bin/session-lint {command}\n" == block_after("lint command").split("&& ")[-1]
    done = session_lint(*command.split())
    assert done.returncode == 1, done.stderr
    position = 0
    # "..." stands for what is left out; the rest stands in the output word for word, in this order.
    parts = [part for part in block_after(f"output of: session-lint {command}").split("...\n") if part]
    assert len(parts) == 2, "run: python scripts/update_readme.py"
    for part in parts:
        assert part in done.stdout[position:], "run: python scripts/update_readme.py"
        position = done.stdout.index(part, position) + len(part)


NAMED_BY_THE_REPORT = {
    "SES116 handle_list_threads_request",
    "SES101 handle_create_thread_request",
    "SES116 handle_get_thread_request",
    "SES101 handle_update_thread_request",
    "SES101 handle_delete_thread_request",
    "SES101 handle_auto_rename_request",
}
ITS_OWN_FIX = {
    f"SES111 handle_{name}_request"
    for name in (
        "list_threads",
        "create_thread",
        "get_thread",
        "update_thread",
        "delete_thread",
        "get_messages",
        "auto_rename",
        "send_message",
    )
}
DEPENDENCY = {"SES202 get_db"}


@pytest.mark.parametrize(
    ("state", "ownership", "expected"),
    [
        ("before", "local", NAMED_BY_THE_REPORT | DEPENDENCY),
        ("before", "project", DEPENDENCY),
        ("after", "local", ITS_OWN_FIX | DEPENDENCY),
        ("after", "project", DEPENDENCY),
        ("guarded", "local", NAMED_BY_THE_REPORT),
        ("guarded", "project", set()),
        ("recommended", "local", set()),
        ("recommended", "project", set()),
    ],
)
def test_the_story_of_the_thread_handlers(state: str, ownership: str, expected: set[str]) -> None:
    done = session_lint(
        "check", "--ownership", ownership, "--output-format", "json", f"fixtures/thread_handlers/{state}"
    )
    findings = json.loads(done.stdout)["findings"]
    assert sorted(f"{finding['code']} {finding['function']}" for finding in findings) == sorted(expected)


def test_every_option_is_in_the_table_and_no_other() -> None:
    table = {name for cell in first_cells(between("options", "options")) for name in re.findall(r"--[a-z-]+", cell)}
    assert table == options_in_help() - {"--help"}


def test_every_option_that_is_used_anywhere_exists() -> None:
    used = {
        option
        for line in re.findall(r"session-lint check ([^`\n]*)", README)
        for option in re.findall(r"(?<!\S)--[a-z-]+", line)
    }
    assert len(used) >= 5
    assert used <= options_in_help()


def test_every_setting_is_in_the_table_with_its_default(tmp_path: Path) -> None:
    shown = session_lint("check", "--isolated", "--show-settings", cwd=tmp_path).stdout
    defaults = dict(re.findall(r"^([a-z-]+) = (.*)$", shown, re.MULTILINE))
    unset = set(re.findall(r"^# ([a-z-]+) is not set$", shown, re.MULTILINE))
    rows = [row.split("|")[1:3] for row in between("settings", "settings").splitlines()[2:]]
    table = {key.strip().strip("`"): value.strip() for key, value in rows}
    assert list(table) == list(dict.fromkeys(table))
    assert set(table) == set(defaults) | unset | {"per-file-ignores"}
    for key, value in table.items():
        if key in unset:
            assert not value.startswith("`"), key
        elif value.startswith("`") and key not in ("per-file-ignores", "cache-dir"):
            assert value.strip("`") == defaults[key], key
    assert defaults["cache-dir"].strip('"') == str(tmp_path / table["cache-dir"].strip("`").strip('"'))


def test_the_settings_example_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(\[tool\.session-lint\].*?)```", README, re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(example, encoding="utf-8")
    settings = load(tmp_path)
    assert settings.source == tmp_path / "pyproject.toml"
    assert settings.providers == ("app.database.session_scope",)


def test_flake8s_options_exist() -> None:
    (example,) = re.findall(r"```ini\n\[flake8\]\n(.*?)```", README, re.DOTALL)
    help_text = subprocess.run(
        [sys.executable, "-m", "flake8", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in re.findall(r"^(?:# )?([a-z0-9-]+) =", example, re.MULTILINE):
        assert f"--{option}" in help_text


def test_the_rules_table_is_current() -> None:
    table = between("rules: session-lint rules --output-format markdown", "rules")
    assert table == rules_table("markdown"), "run: python scripts/update_readme.py"


def test_versions_are_current() -> None:
    assert re.findall(r"rev: v(\S+)", README) == [__version__]
    assert set(re.findall(r"session-lint@v([\d.]+)", README)) == {__version__}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if not target.startswith("http"):
            assert (CHECKOUT / target).exists(), target
