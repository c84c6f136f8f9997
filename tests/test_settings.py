"""Settings: where they come from, what they mean, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_lint.findings import Confidence
from session_lint.settings import Settings, SettingsError, load, show


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project that the test stands in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    return tmp_path


def pyproject(directory: Path, table: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\n\n[tool.session-lint]\n{table}\n', encoding="utf-8")
    return path


def error_of(table: str, name: str = "pyproject.toml") -> str:
    """What is said of a settings file with this content."""
    text = f"[tool.session-lint]\n{table}\n" if name == "pyproject.toml" else table
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(Path())
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------- where they come from


def test_without_a_file_everything_has_its_default(project: Path) -> None:
    assert load(Path()) == Settings(root=project)


def test_all_keys(project: Path) -> None:
    path = pyproject(
        project,
        """
select = ["SES1", "SES201"]
extend-select = ["SES301"]
ignore = ["SES104"]
exclude = ["old/"]
extend-exclude = ["gen_*.py"]
force-exclude = true
respect-gitignore = false
min-confidence = "possible"
ownership = "local"
show-mitigated = true
session-types = ["app.db.MySession"]
async-session-types = ["app.db.MyAsyncSession"]
providers = ["app.db.session_scope"]
slow-calls = ["app.llm.complete"]
exceptions = ["app.db.DatabaseError"]
fastapi-version = "0.115.2"
cache-dir = "var/cache"
cache = false
jobs = 3

[tool.session-lint.per-file-ignores]
"tests/" = ["SES2", "SES101"]
"migrations/**" = ["ALL"]
""",
    )
    assert load(Path()) == Settings(
        root=project,
        source=path,
        select=("SES1", "SES201"),
        extend_select=("SES301",),
        ignore=("SES104",),
        per_file_ignores=(("tests/", ("SES2", "SES101")), ("migrations/**", ("ALL",))),
        exclude=("old/",),
        extend_exclude=("gen_*.py",),
        force_exclude=True,
        respect_gitignore=False,
        min_confidence=Confidence.POSSIBLE,
        ownership="local",
        show_mitigated=True,
        session_types=("app.db.MySession",),
        async_session_types=("app.db.MyAsyncSession",),
        providers=("app.db.session_scope",),
        slow_calls=("app.llm.complete",),
        exceptions=("app.db.DatabaseError",),
        fastapi_version="0.115.2",
        cache_dir=project / "var/cache",
        cache=False,
        jobs=3,
    )


def test_the_nearest_file_with_our_table_counts(project: Path) -> None:
    outer = pyproject(project, "jobs = 1")
    inner = pyproject(project / "services" / "billing", "jobs = 2")
    (project / "services" / "billing" / "src").mkdir()
    (project / "services" / "billing" / "src" / "pyproject.toml").write_text('[project]\nname = "session-lint-user"\n')
    (project / "services" / "chat").mkdir()
    assert load(Path("services/billing/src")).source == inner
    assert load(Path("services/billing/src")).root == inner.parent
    assert load(Path("services/billing/src/app.py")).jobs == 2
    assert load(Path("services/chat")).source == outer


def test_the_own_file_has_no_prefix_and_beats_pyproject_beside_it(project: Path) -> None:
    pyproject(project, "jobs = 1")
    own = project / "session-lint.toml"
    own.write_text("jobs = 2\n")
    assert (load(Path()).source, load(Path()).jobs) == (own, 2)


def test_an_empty_table_ends_the_search(project: Path) -> None:
    pyproject(project, "jobs = 1")
    inner = pyproject(project / "inner", "")
    assert load(Path("inner")) == Settings(root=inner.parent, source=inner)


def test_pyproject_files_of_others_are_not_even_parsed(project: Path) -> None:
    (project / "pyproject.toml").write_text("this is not TOML = = =")
    assert load(Path()) == Settings(root=project)


def test_the_root_without_a_settings_file_is_the_nearest_project(project: Path) -> None:
    (project / "inner" / "src").mkdir(parents=True)
    (project / "inner" / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert load(Path("inner/src")).root == project / "inner"
    assert load(Path()).root == project


def test_isolated_reads_no_file(project: Path) -> None:
    pyproject(project, "jobs = 1")
    assert load(Path(), isolated=True) == Settings(root=project)


def test_a_named_file_may_lie_anywhere(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pyproject(project, "jobs = 1")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "lint.toml"
    elsewhere.write_text('jobs = 7\ncache-dir = "cache"\n')
    settings = load(Path(), config=elsewhere)
    assert (settings.jobs, settings.source, settings.root) == (7, elsewhere, project)
    inner = pyproject(project / "conf", "jobs = 8")
    assert load(Path("conf"), config=inner).root == project / "conf"


def test_named_files_that_cannot_be_used(project: Path) -> None:
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n')
    for path, message in [
        (Path("nowhere.toml"), "nowhere.toml: cannot read the settings: No such file or directory"),
        (project, f"{project.as_posix()}: cannot read the settings: Is a directory"),
        (Path("pyproject.toml"), "pyproject.toml: has no table [tool.session-lint]"),
    ]:
        with pytest.raises(SettingsError) as caught:
            load(Path(), config=path)
        assert str(caught.value).replace("..: ", f"{project.as_posix()}: ") in (
            message,
            message.replace(project.as_posix(), "."),
        )
    with pytest.raises(SettingsError, match="--isolated and --config exclude each other"):
        load(Path(), config=Path("pyproject.toml"), isolated=True)


# ---------------------------------------------------------------------------------------------- the command line


def test_options_win_over_the_file(project: Path) -> None:
    pyproject(project, 'jobs = 1\nownership = "local"\nexclude = ["a"]\nextend-exclude = ["b"]\ncache-dir = "x"')
    settings = load(
        Path(),
        overrides={"jobs": 2, "min-confidence": "certain", "exclude": ["c"], "extend_exclude": ["d"], "cache": None},
    )
    assert (settings.jobs, settings.ownership, settings.min_confidence) == (2, "local", Confidence.CERTAIN)
    assert (settings.exclude, settings.extend_exclude) == (("c",), ("b", "d"))
    assert settings.cache


def test_select_on_the_command_line_replaces_the_files_choice(project: Path) -> None:
    pyproject(project, 'select = ["SES2"]\nextend-select = ["SES301"]\nignore = ["SES101"]')
    settings = load(Path(), overrides={"select": ["SES101"]})
    assert (settings.select, settings.extend_select, settings.ignore) == (("SES101",), (), ())
    settings = load(Path(), overrides={"ignore": ["SES104"], "extend_select": ["SES113"]})
    assert (settings.extend_select, settings.ignore) == (("SES301", "SES113"), ("SES101", "SES104"))


def test_wrong_options_are_called_by_their_names() -> None:
    with pytest.raises(SettingsError, match=r"^--jobs must be a whole number from 1, not 0$"):
        load(Path(), overrides={"jobs": 0})
    with pytest.raises(SettingsError, match=r'^--select: unknown rule "SES-101"; did you mean "SES101"\?$'):
        load(Path(), overrides={"select": ["SES-101"]})
    with pytest.raises(SettingsError, match=r'^settings: unknown key "job"; did you mean "jobs"\?$'):
        load(Path(), overrides={"job": 0})


def test_directories_of_options_are_relative_to_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyproject(project, 'cache-dir = "from-file"')
    (project / "sub").mkdir()
    monkeypatch.chdir(project / "sub")
    assert load(Path()).cache_directory == project / "from-file"
    assert load(Path(), overrides={"cache_dir": Path("here")}).cache_directory == project / "sub" / "here"


def test_the_cache_lies_in_the_root_unless_it_is_off(project: Path) -> None:
    assert load(Path()).cache_directory == project / ".session-lint-cache"
    assert load(Path(), overrides={"cache": False}).cache_directory is None


# ---------------------------------------------------------------------------------------------- wrong ones


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('selct = ["SES101"]', 'unknown key "selct"; did you mean "select"?'),
        ('min_confidence = "likely"', 'unknown key "min_confidence"; did you mean "min-confidence"?'),
        ("xyzzy = 1", 'unknown key "xyzzy"'),
        ("select = []", 'select names no rule; leave it out for every rule that is not preview, or write "ALL"'),
        ('select = ["all"]', 'select: unknown rule "all"; did you mean "ALL"?'),
        ('ignore = ["session-never-closed"]', 'ignore: unknown rule "session-never-closed"; did you mean "SES201"?'),
        ('select = ["SES101x"]', 'select: unknown rule "SES101x"; did you mean "SES101"?'),
        ('ignore = ["ses101"]', 'ignore: unknown rule "ses101"; did you mean "SES101"?'),
        ('extend-select = ["E501"]', 'extend-select: unknown rule "E501"'),
        ('select = "SES101"', 'select must be a list of rule codes, not "SES101"'),
        ("select = [101]", "select must be a list of rule codes, not 101"),
        ('select = [""]', 'select must be a list of rule codes, not ""'),
        (
            'per-file-ignores = ["SES101"]',
            'per-file-ignores must be a table of file patterns and rule codes, not ["SES101"]',
        ),
        (
            'per-file-ignores = {"a.py" = ["SES-101"]}',
            'per-file-ignores."a.py": unknown rule "SES-101"; did you mean "SES101"?',
        ),
        ('exclude = "build"', 'exclude must be a list of file patterns, not "build"'),
        ('min-confidence = "high"', 'min-confidence must be one of "certain", "likely", "possible", not "high"'),
        ('ownership = "mine"', 'ownership must be one of "project", "local", not "mine"'),
        ('show-mitigated = "yes"', 'show-mitigated must be true or false, not "yes"'),
        (
            'session-types = ["app/db.py"]',
            'session-types: "app/db.py" is not a dotted name such as "app.database.Session"',
        ),
        ("providers = {}", "providers must be a list of dotted names, not a table"),
        ('fastapi-version = ">=0.100"', 'fastapi-version must be a version such as "0.115.2", not ">=0.100"'),
        ("cache-dir = 1", "cache-dir must be a directory, not 1"),
        ('jobs = "4"', 'jobs must be a whole number from 1, not "4"'),
        ("jobs = true", "jobs must be a whole number from 1, not true"),
    ],
)
def test_wrong_values_are_named_with_file_and_key(table: str, message: str) -> None:
    assert error_of(table).startswith(f"pyproject.toml: {message}")
    Path("pyproject.toml").unlink()
    assert error_of(table, "session-lint.toml").startswith(f"session-lint.toml: {message}")


def test_files_that_are_no_toml(project: Path) -> None:
    assert error_of("jobs = ").startswith("pyproject.toml: is not valid TOML: Invalid value (at line 2")
    (project / "pyproject.toml").unlink()
    (project / "session-lint.toml").write_bytes(b"# \xff")
    with pytest.raises(SettingsError) as caught:
        load(Path())
    assert str(caught.value) == "session-lint.toml: is not UTF-8 text: byte 0xff at 2"


@pytest.mark.parametrize("name", ["tool.session_lint", "tool.sessionlint", "tool.Session-Lint", "session-lint"])
def test_a_misspelt_table_is_no_table_of_ours(project: Path, name: str) -> None:
    (project / "pyproject.toml").write_text(f"[{name}]\njobs = 1\n")
    with pytest.raises(SettingsError) as caught:
        load(Path())
    assert str(caught.value) == f"pyproject.toml: unknown table [{name}]; did you mean [tool.session-lint]?"


def test_our_name_must_be_a_table(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool]\nsession-lint = 1\n")
    with pytest.raises(SettingsError, match=r"^pyproject.toml: tool.session-lint must be a table, not 1$"):
        load(Path())


# ---------------------------------------------------------------------------------------------- what they mean


@pytest.mark.parametrize(
    ("select", "extend", "ignore", "expected"),
    [
        ((), (), (), "stable"),
        (("SES101",), (), (), "SES101"),
        (("SES1",), (), (), "SES101 SES104"),
        (("ALL",), (), (), "SES101 SES104 SES201 PREVIEW"),
        (("SES",), (), (), "stable"),
        ((), (), ("SES1",), "SES201"),
        ((), (), ("ALL",), ""),
        (("SES101",), (), ("SES1",), "SES101"),
        (("SES1",), (), ("SES1",), ""),
        (("SES1",), (), ("SES101",), "SES104"),
        (("SES1",), ("SES201",), (), "SES101 SES104 SES201"),
        ((), ("SES399",), (), "stable PREVIEW"),
        ((), ("SES3",), (), "stable"),
        (("SES399",), (), (), "PREVIEW"),
    ],
)
def test_the_longest_selector_decides(
    select: tuple[str, ...], extend: tuple[str, ...], ignore: tuple[str, ...], expected: str
) -> None:
    settings = Settings(root=Path(), select=select, extend_select=extend, ignore=ignore)
    enabled = {code for code in ("SES101", "SES104", "SES201") if settings.enabled(code, preview=False)}
    if settings.enabled("SES399", preview=True):
        enabled.add("PREVIEW")
    assert enabled == set(expected.replace("stable", "SES101 SES104 SES201").split())


def test_files_that_cannot_be_judged_are_reported_whatever_is_selected() -> None:
    assert Settings(root=Path(), select=("SES101",)).enabled("SES902", preview=False)
    assert not Settings(root=Path(), ignore=("SES902",)).enabled("SES902", preview=False)
    assert not Settings(root=Path(), select=("SES101",)).enabled("SES901", preview=False)


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("tests/test_a.py", {"SES2", "SES101"}),
        ("app/tests/deep/test_a.py", {"SES2", "SES101"}),
        ("app/main.py", set()),
        ("migrations/0001.py", {"SES"}),
        ("app/migrations/0001.py", set()),
        ("app/gen_models.py", {"SES104"}),
    ],
)
def test_per_file_ignores_are_patterns_as_in_gitignore(project: Path, path: str, codes: set[str]) -> None:
    settings = Settings(
        root=project,
        per_file_ignores=(("tests/", ("SES2", "SES101")), ("/migrations/", ("ALL",)), ("gen_*.py", ("SES104",))),
    )
    assert settings.ignored_for(Path(path)) == codes
    assert settings.ignored_for(project / path) == codes


def test_patterns_may_begin_with_a_dot_and_a_slash(project: Path) -> None:
    pyproject(
        project,
        'exclude = ["./gen", "!./gen/kept"]\nextend-exclude = ["a/./b"]\nper-file-ignores = {"./tests/" = ["SES2"]}',
    )
    settings = load(Path())
    assert (settings.exclude, settings.extend_exclude) == (("/gen", "!/gen/kept"), ("a/./b",))
    assert settings.ignored_for(Path("tests/test_a.py")) == {"SES2"}
    assert settings.ignored_for(Path("app/tests/test_a.py")) == set()


def test_the_fingerprint_changes_with_what_the_analysis_depends_on_only() -> None:
    plain = load(Path()).analysis_fingerprint()
    for overrides in (
        {"ownership": "local"},
        {"session_types": ["a.B"]},
        {"async_session_types": ["a.B"]},
        {"providers": ["a.b"]},
        {"slow_calls": ["a.b"]},
        {"exceptions": ["a.b"]},
        {"fastapi_version": "0.106"},
    ):
        assert load(Path(), overrides=overrides).analysis_fingerprint() != plain, overrides
    other: dict[str, object] = {"min_confidence": "possible", "exclude": ["x"], "jobs": 1, "show_mitigated": True}
    assert load(Path(), overrides=other).analysis_fingerprint() == plain


def test_what_is_shown_can_be_read_back(project: Path) -> None:
    pyproject(
        project,
        'ignore = ["SES104"]\nexclude = ["a\\"b\\\\c"]\njobs = 3\nmin-confidence = "possible"\n'
        'per-file-ignores = {"tests/*" = ["SES1"]}',
    )
    settings = load(Path())
    text = show(settings)
    (project / "pyproject.toml").unlink()
    own = project / "session-lint.toml"
    own.write_text(text)
    again = load(Path())
    assert again == Settings(
        root=project,
        source=own,
        ignore=("SES104",),
        exclude=('a"b\\c',),
        jobs=3,
        min_confidence=Confidence.POSSIBLE,
        per_file_ignores=(("tests/*", ("SES1",)),),
        cache_dir=project / ".session-lint-cache",
    )
    assert "# fastapi-version is not set" in text
    assert "# select is not set" in text
    assert f"# settings file: {project / 'pyproject.toml'}" in text
