"""Which files a run reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_lint.settings import Settings
from session_lint.source.discovery import SourceFile, UsageError, discover, excluded
from session_lint.source.gitignore import IgnorePatterns, Memory


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that the test stands in."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def make(*names: str, text: str = "") -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(*paths: str | Path, **given: object) -> list[str]:
    """The displayed names of what a run reads."""
    result = discover(paths or ["."], Settings(root=Path.cwd(), **given))  # type: ignore[arg-type]
    assert result.problems == []
    return [file.display for file in result.files]


# ---------------------------------------------------------------------------------------------- what is taken


def test_python_files_below_a_directory_in_order() -> None:
    make("b.py", "a/z.py", "a/b/c.py", "a.txt", "a/stub.pyi", "README.md", "script")
    assert found() == ["a/b/c.py", "a/z.py", "b.py"]
    assert found("a") == ["a/b/c.py", "a/z.py"]
    assert found("a", "b.py", "a/b") == ["a/b/c.py", "a/z.py", "b.py"]


def test_a_named_file_is_taken_whatever_its_name(project: Path) -> None:
    make("script", "stub.pyi", ".venv/lib.py")
    result = discover(["script", Path("stub.pyi"), ".venv/lib.py"], Settings(root=project))
    names = (".venv/lib.py", "script", "stub.pyi")
    real = project.resolve()
    assert result.files == [SourceFile(str(project / name), name, True, str(real / name)) for name in names]
    assert result.files[0].path == project / ".venv/lib.py"


def test_names_are_relative_to_the_working_directory_if_below_it(project: Path, tmp_path: Path) -> None:
    make("src/app.py", "../other/lib.py")
    other = (tmp_path / "other").as_posix()
    assert found("./src/../src", tmp_path / "other") == [f"{other}/lib.py", "src/app.py"]
    assert found(project / "src" / "app.py") == ["src/app.py"]
    assert found("../other/lib.py") == [f"{other}/lib.py"]


def test_a_walk_from_above_shows_the_working_directory_as_usual(tmp_path: Path) -> None:
    make("src/app.py", "../other/lib.py")
    assert found("..") == [f"{(tmp_path / 'other').as_posix()}/lib.py", "src/app.py"]


def test_each_file_is_read_once(project: Path) -> None:
    make("src/app.py")
    assert found("src", "src/app.py", project / "src", "./src//app.py") == ["src/app.py"]


def test_paths_that_do_not_exist() -> None:
    make("a.py")
    for path in ("nowhere.py", "a.py/inside", "sub/nowhere"):
        with pytest.raises(UsageError) as caught:
            found("a.py", path)
        assert str(caught.value) == f"no such file or directory: {path}"
    with pytest.raises(UsageError, match="null"):
        found("a\0b")


def test_an_empty_directory_has_no_files() -> None:
    assert found() == []


def test_names_that_are_not_text() -> None:
    name = os.fsdecode(b"caf\xe9.py")
    try:
        Path(name).write_text("")
    except OSError:
        pytest.skip("this file system takes only text for names")
    assert found() == [name]


# ---------------------------------------------------------------------------------------------- links


def links(*pairs: tuple[str, str]) -> None:
    for name, target in pairs:
        try:
            Path(name).symlink_to(target)
        except OSError:
            pytest.skip("no symbolic links here")


def test_loops_of_links_end() -> None:
    make("a/x.py")
    links(("a/loop", "../a"), ("a/up", ".."), ("self", "self"), ("a/dead.py", "nowhere.py"))
    assert found() == ["a/x.py"]


def test_a_linked_file_is_read_once_under_its_own_name() -> None:
    make("real/x.py", "../outside/y.py")
    links(("a_link.py", "real/x.py"), ("linked", "real"), ("out", "../outside"))
    assert found() in (["out/y.py", "real/x.py"], ["a_link.py", "out/y.py"])
    assert found("linked") == ["linked/x.py"]
    [file] = discover(["linked"], Settings(root=Path.cwd())).files
    assert (file.name, file.real) == (str(Path.cwd() / "linked/x.py"), str(Path("real/x.py").resolve()))
    assert found("a_link.py", "real/x.py") == ["a_link.py"]


def test_a_directory_called_like_a_module_is_walked() -> None:
    make("odd.py/inner.py")
    assert found() == ["odd.py/inner.py"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_only_regular_files_are_taken() -> None:
    make("a.py")
    os.mkfifo("pipe.py")
    assert found() == ["a.py"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions don't bind this user")
def test_an_unreadable_directory_is_a_problem_and_the_rest_goes_on(project: Path) -> None:
    make("a.py", "closed/b.py")
    Path("closed").chmod(0)
    try:
        result = discover(["."], Settings(root=project))
    finally:
        Path("closed").chmod(0o700)
    assert [file.display for file in result.files] == ["a.py"]
    assert result.problems == ["closed/: cannot read the directory: Permission denied"]


def test_a_directory_that_vanishes_is_a_problem_and_the_rest_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.py", "gone/b.py")
    scandir = os.scandir

    def vanishing(path: str) -> object:
        if path.endswith("gone"):
            raise FileNotFoundError(2, "No such file or directory")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    result = discover(["."], Settings(root=project))
    assert [file.display for file in result.files] == ["a.py"]
    assert result.problems == ["gone/: cannot read the directory: No such file or directory"]


# ---------------------------------------------------------------------------------------------- what is left out


def test_what_is_never_the_users_own_code() -> None:
    make("app.py", ".venv/a.py", "node_modules/a.py", "build/a.py", "src/__pycache__/a.py", ".git/a.py", "dist/a.py")
    make("env39/pyvenv.cfg", "env39/lib/a.py", "src/building.py", ".hidden/a.py")
    assert found() == [".hidden/a.py", "app.py", "src/building.py"]


def test_a_named_directory_is_walked_whatever_its_name() -> None:
    make("build/a.py", "build/build/b.py", "env/pyvenv.cfg", "env/c.py")
    assert found("build", "env") == ["build/a.py", "env/c.py"]


def test_excludes_are_patterns_of_gitignore_from_the_root() -> None:
    make("app.py", "old/a.py", "src/old/b.py", "src/gen_a.py", "src/keep/gen_b.py", "docs/conf.py", "src/docs/c.py")
    assert found(exclude=("old/", "gen_*.py", "!gen_b.py", "/docs")) == ["app.py", "src/docs/c.py", "src/keep/gen_b.py"]
    assert found("src", exclude=("/src/old",), extend_exclude=("gen_*",)) == ["src/docs/c.py"]


def test_an_exclude_can_bring_back_a_default_and_beats_gitignore() -> None:
    make("build/a.py", "dist/b.py", "logs/c.py", "data/d.py")
    make(".gitignore", text="build/\nlogs/\n!data/\n")
    assert found(exclude=("!build", "!logs", "data")) == ["build/a.py", "logs/c.py"]


def test_force_exclude_counts_for_named_files_too(project: Path) -> None:
    make("app.py", "old/deep/a.py", ".venv/b.py", "ignored.py")
    make(".gitignore", text="ignored.py\n")
    names = ["app.py", "old/deep/a.py", ".venv/b.py", "ignored.py"]
    assert found(*names, exclude=("old/",)) == sorted(names)
    assert found(*names, exclude=("old/",), force_exclude=True) == ["app.py"]
    assert found("old/deep", exclude=("old/",), force_exclude=True) == []
    assert found(".", force_exclude=True) == ["app.py", "old/deep/a.py"]
    settings = Settings(root=project, exclude=("old/",))
    assert excluded("old/not/there.py", settings)
    assert not excluded("new.py", settings)


# ---------------------------------------------------------------------------------------------- .gitignore


def test_gitignore_files_count_where_they_are_and_below() -> None:
    make("a.py", "skip.py", "src/skip.py", "src/keep.py", "src/inner/skip.py", "src/inner/local.py", "local.py")
    make(".gitignore", text="skip.py\n")
    make("src/.gitignore", text="!skip.py\n/inner/local.py\n")
    assert found() == ["a.py", "local.py", "src/inner/skip.py", "src/keep.py", "src/skip.py"]
    assert found("src/inner") == ["src/inner/skip.py"]
    assert len(found(respect_gitignore=False)) == 7


def test_gitignore_files_above_count_up_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("../.gitignore", text="*.py\n")
    make(".git/info/exclude", text="secret.py\n/src/top.py\n")
    make(".gitignore", text="skip.py\n")
    make("src/skip.py", "src/a.py", "src/secret.py", "src/top.py", "src/src/top.py")
    monkeypatch.chdir("src")
    assert found(".") == ["a.py", "src/top.py"]
    assert tmp_path.exists()


def test_what_is_inside_an_ignored_directory_cannot_come_back() -> None:
    make("data/a.py")
    make(".gitignore", text="data/\n!data/a.py\n")
    assert found() == []


def test_a_gitignore_that_is_no_text_is_read_as_far_as_it_goes() -> None:
    make("a.py", "b.py")
    Path(".gitignore").write_bytes(b"\xff\xfe\na.py\r\n[z-a]\n[unclosed\n\\\n")
    assert found() == ["b.py"]


# Small alphabets, so that patterns and paths meet.
_PART = st.text("ab.", min_size=1, max_size=3).filter(lambda part: part.strip(".") != "")
_PATH = st.lists(_PART, min_size=1, max_size=4).map("/".join)
# What pathspec 1.1 reads in another way than git is not among them: [!a], which takes "/" for a character, character
# classes such as [[:alpha:]], and spaces and stars without need ("a /", "****").
_PIECE = st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[a-b]", "\\a", "!", "#", " a", "\\ "])
_SEGMENT = st.lists(_PIECE, min_size=1, max_size=4).map("".join).filter(lambda segment: "**" not in segment)
_PATTERN = st.builds(
    lambda bang, start, segments, end: bang + start + "/".join(segments) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(_SEGMENT, min_size=1, max_size=3) | st.tuples(_SEGMENT, st.just("**"), _SEGMENT),
    st.sampled_from(["", "", "/", "/**"]),
)

# A directory that a nested file brings back is brought back with all that is in it. To git the file above may still
# leave out parts of it.
_NESTED = _PATTERN.filter(lambda pattern: not pattern.startswith("!")) | st.sampled_from(
    ["!*.py", "!/a/b.py", "!.a.py"]
)


def ignored_by_us(patterns: Iterable[str], path: str) -> bool:
    """As a walk decides: an ignored directory takes everything below it along."""
    compiled = IgnorePatterns(patterns)
    parts = path.split("/")
    return any(
        compiled.match("/".join(parts[: end + 1]), part, end < len(parts) - 1) is True for end, part in enumerate(parts)
    )


def ignored_by_git(paths: Iterable[str]) -> set[str]:
    """Those of the paths, in the working directory."""
    if not Path(".git").exists():
        subprocess.run(["git", "init", "-q", "."], check=True)
        subprocess.run(["git", "config", "core.excludesFile", os.devnull], check=True)
    command = ["git", "check-ignore", "--no-index", "--stdin", "-z"]
    checked = subprocess.run(command, input="\0".join(paths), capture_output=True, text=True, check=False)
    assert checked.returncode in (0, 1), checked.stderr
    return set(checked.stdout.split("\0")) - {""}


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


@needs_git
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=st.lists(_PATTERN, min_size=1, max_size=5), paths=st.lists(_PATH, min_size=1, max_size=8, unique=True))
def test_patterns_mean_what_they_mean_to_git(project: Path, patterns: list[str], paths: list[str]) -> None:
    (project / ".gitignore").write_text("\n".join(patterns) + "\n")
    assert {path for path in paths if ignored_by_us(patterns, path)} == ignored_by_git(paths)


@needs_git
@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(upper=st.lists(_PATTERN, max_size=4), lower=st.lists(_NESTED, max_size=4))
def test_nested_files_mean_what_they_mean_to_git(upper: list[str], lower: list[str]) -> None:
    names = [f"{top}/{middle}{name}.py" for top in "ab" for middle in ("", "a/", "b/a/") for name in ("a", "b", ".a")]
    make(*names)
    make(".gitignore", text="\n".join([*upper, "*.b"]))
    make("a/.gitignore", text="\n".join([*lower, ".*.py"]))
    assert set(found()) == set(names) - ignored_by_git(names)


def test_what_patterns_have_said_is_kept(project: Path) -> None:
    make("a.py", "src/b.py", "src/gen_c.py", "out/d.py")
    make(".gitignore", text="gen_*\n/out/\n")
    first = Memory()
    names = [file.display for file in discover(["."], Settings(root=project), first).files]
    assert names == ["a.py", "src/b.py"]
    assert first.learnt
    second = Memory(first.plain)
    assert [file.display for file in discover(["."], Settings(root=project), second).files] == names
    assert not second.learnt
    assert second.plain == first.plain
    make("src/gen_e.py")
    Path("out/d.py").unlink()
    Path("out").rmdir()
    third = Memory(second.plain)
    assert [file.display for file in discover(["."], Settings(root=project), third).files] == names
    assert third.learnt
    assert [sorted(answers) for answers in third.plain.values()] == [
        ["a.py", "src/", "src/b.py", "src/gen_c.py", "src/gen_e.py"]
    ]
    make(".gitignore", text="!gen_*\n")
    assert len(discover(["."], Settings(root=project), Memory(third.plain)).files) == 4


def test_pathspec_is_imported_for_patterns_that_are_new_only(project: Path) -> None:
    make("a.py", "skip.py")
    code = "import sys; from session_lint import cli; cli.main(['check', '-q']); print('pathspec' in sys.modules)"

    def imported() -> bool:
        done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
        return done.stdout.strip() == "True"

    assert not imported(), "there is no pattern"
    make(".gitignore", text="skip*\n")
    assert [imported(), imported()] == [True, False]
    make("b.py")
    assert [imported(), imported()] == [True, False]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.log", ["a.log", "x/a.log", ".log"], ["a.logs", "log"]),
        ("/a", ["a", "a/b"], ["x/a"]),
        ("a/b", ["a/b", "a/b/c"], ["x/a/b"]),
        ("a/", ["a/b", "x/a/b"], ["a", "x/a"]),
        ("**/a", ["a", "x/y/a"], ["ba"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "x/a/b"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/xb", "x/a/b"]),
        ("a*b", ["ab", "axxb"], ["a/b", "abc"]),
        ("a?b", ["axb"], ["ab", "a/b"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[!a]x", ["bx"], ["ax"]),
        ("[]-]x", ["]x", "-x"], ["ax"]),
        ("x[!a]", ["xb"], ["x", "xa", "x/a"]),
        ("*\n!/a\n!a/*.py", ["b.py", "a/b"], ["a/b.py"]),
        ("a/b\\ ", ["a/b "], ["a/b", "a/b\\"]),
        ("build/\n!src/", ["src/build/a", "build/a"], ["src/a"]),
        ("*\n!*/\n!*.py", ["a.txt", "a/b"], ["a/b/c.py"]),
        ("\\#a", ["#a"], ["a"]),
        ("\\!a", ["!a"], ["a"]),
        ("a\\ ", ["a "], ["a"]),
        ("a  ", ["a"], ["a  "]),
        ("# a", [], ["# a", "a"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_single_patterns(pattern: str, matching: list[str], others: list[str]) -> None:
    for path in matching:
        assert ignored_by_us(pattern.split("\n"), path), path
    for path in others:
        assert not ignored_by_us(pattern.split("\n"), path), path


def test_a_named_directory_is_read_whatever_leaves_it_out() -> None:
    make("src/a.py", "src/deep/b.py", "src/no.py", "src/build/c.py")
    for pattern in ("src/", "/src", "src", "/*", "*"):
        Path(".gitignore").write_text(f"{pattern}\n")
        assert found() == []
        assert found("src") == ["src/a.py", "src/deep/b.py", "src/no.py"], pattern
        assert found("src/deep") == ["src/deep/b.py"], pattern
        assert found("src", force_exclude=True) == []
    Path(".gitignore").write_text("no.py\n/src/deep\n")
    assert found("src") == ["src/a.py"]
