"""The cache: never a wrong value, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from session_lint import cache as module
from session_lint.cache import Cache, Pack

SECRET = b"s" * 32
VALUE = ("seq", (1, 2.5, None, True, "naïve", b"\0\xff"), {"key": [1, (2, 3)]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache directory of this test's own."""
    directory = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    monkeypatch.setenv("LOCALAPPDATA", str(directory))
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "project" / ".session-lint-cache"


def open_cache(directory: Path, version: str = "1", secret: bytes = SECRET) -> Cache:
    return Cache(directory, version, secret=secret)


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.cache"))


def filled_pack(directory: Path, **values: object) -> Pack:
    pack = open_cache(directory).pack("ir")
    for key, value in values.items():
        pack.put(key, value)
    pack.save()
    return open_cache(directory).pack("ir")


def as_other_user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 1


needs_permissions = pytest.mark.skipif(
    as_other_user() == 0 or os.name == "nt", reason="permissions don't bind this user"
)


# ---------------------------------------------------------------------------------------------- single values


def test_a_value_comes_back_as_it_was(directory: Path) -> None:
    open_cache(directory).put("report", "key", VALUE)
    assert open_cache(directory).get("report", "key") == VALUE


def test_unknown_keys_and_namespaces_are_absent(directory: Path) -> None:
    cache = open_cache(directory)
    cache.put("report", "key", VALUE)
    assert cache.get("report", "other") is None
    assert cache.get("ir", "key") is None


def test_keys_may_be_any_text(directory: Path) -> None:
    cache = open_cache(directory)
    for key in ("", "../../etc/passwd", "a\0b", "x" * 5000, "\udcff"):
        cache.put("report", key, key.encode("utf-8", "surrogatepass"))
        assert cache.get("report", key) == key.encode("utf-8", "surrogatepass")
    assert {path.parent for path in directory.parent.rglob("*") if path.is_file()} == {directory}


def test_nothing_but_plain_data_is_taken(directory: Path) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        open_cache(directory).put("report", "key", object())
    with pytest.raises(ValueError, match="unmarshallable"):
        open_cache(directory).pack("ir").put("key", (1, {"deep": [Path("x")]}))


def test_without_a_directory_nothing_is_stored() -> None:
    cache = Cache(None, "1")
    cache.put("report", "key", 1)
    pack = cache.pack("ir")
    pack.put("key", 1)
    pack.save()
    assert cache.get("report", "key") is None
    assert not cache.enabled
    assert cache.notes == []


def test_the_directory_appears_with_the_first_value_and_keeps_itself_out_of_git(directory: Path) -> None:
    cache = open_cache(directory)
    assert cache.get("report", "key") is None
    assert not directory.exists()
    cache.put("report", "key", 1)
    assert (directory / ".gitignore").read_text() == "*\n"
    assert (directory / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_another_version_sees_nothing_and_destroys_nothing(directory: Path) -> None:
    open_cache(directory, "1").put("report", "key", "old")
    newer = open_cache(directory, "2")
    assert newer.get("report", "key") is None
    newer.put("report", "key", "new")
    assert open_cache(directory, "1").get("report", "key") == "old"
    assert open_cache(directory, "2").get("report", "key") == "new"


def test_another_python_sees_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(directory).put("report", "key", "old")
    monkeypatch.setattr(module, "_PYTHON", "cpython-399-3.99.0")
    assert open_cache(directory).get("report", "key") is None


# ---------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("shape", ["value", "pack"])
def test_no_damage_is_ever_read(directory: Path, shape: str) -> None:
    """Every truncation and a flip of every byte of a small file: the value is there as it was or not at all."""

    def read() -> object | None:
        cache = open_cache(directory)
        return cache.get("report", "key") if shape == "value" else cache.pack("report").get("key")

    if shape == "value":
        open_cache(directory).put("report", "key", (1, "two"))
    else:
        pack = open_cache(directory).pack("report")
        pack.put("key", (1, "two"))
        pack.save()
    [path] = entries(directory)
    whole = path.read_bytes()
    assert read() == (1, "two")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read() is None
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
        assert read() is None
    path.write_bytes(whole + b"more")
    assert read() is None
    path.write_bytes(whole)
    assert read() == (1, "two")


def test_a_file_under_another_entrys_name_is_not_read(directory: Path) -> None:
    cache = open_cache(directory)
    cache.put("report", "one", "first")
    [first] = entries(directory)
    cache.put("report", "two", "second")
    [second] = [path for path in entries(directory) if path != first]
    first.replace(second)
    assert cache.get("report", "two") is None


def test_a_directory_in_a_files_place_is_not_read(directory: Path) -> None:
    cache = open_cache(directory)
    cache.put("report", "key", 1)
    [path] = entries(directory)
    path.unlink()
    path.mkdir()
    assert cache.get("report", "key") is None
    cache.put("report", "key", 2)
    assert not cache.enabled
    assert "no cache: cannot write" in cache.notes[0]


def test_a_cache_that_came_with_the_repository_is_not_believed(directory: Path) -> None:
    open_cache(directory, secret=b"a" * 32).put("report", "key", "poisoned")
    pack = open_cache(directory, secret=b"a" * 32).pack("ir")
    pack.put("key", "poisoned")
    pack.save()
    cache = open_cache(directory, secret=b"b" * 32)
    assert cache.get("report", "key") is None
    assert cache.pack("ir").get("key") is None


# ---------------------------------------------------------------------------------------------- the user's key


def test_the_key_is_made_once_and_only_its_user_can_read_it(directory: Path, home: Path) -> None:
    Cache(directory, "1").put("report", "key", VALUE)
    [key] = home.rglob("cache-key")
    assert len(key.read_bytes()) == 32
    if os.name != "nt":
        assert key.stat().st_mode & 0o077 == 0
    assert Cache(directory, "1").get("report", "key") == VALUE
    assert list(key.parent.iterdir()) == [key]


def test_an_unusable_key_is_replaced(directory: Path, home: Path) -> None:
    Cache(directory, "1").put("report", "key", VALUE)
    [key] = home.rglob("cache-key")
    key.write_bytes(b"short")
    cache = Cache(directory, "1")
    assert cache.get("report", "key") is None
    cache.put("report", "key", VALUE)
    assert Cache(directory, "1").get("report", "key") == VALUE


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_without_a_home_there_is_no_cache_but_a_note(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    cache = Cache(directory, "1")
    cache.put("report", "key", 1)
    assert cache.get("report", "key") is None
    assert cache.notes == ["no cache: no place in this user's home for the key that protects it"]
    assert not directory.exists()


# ---------------------------------------------------------------------------------------------- unwritable places


def test_a_file_where_the_directory_should_be_means_no_cache(directory: Path) -> None:
    directory.parent.mkdir(parents=True)
    directory.write_text("not a directory")
    cache = open_cache(directory)
    cache.put("report", "key", 1)
    pack = cache.pack("ir")
    pack.put("key", 1)
    pack.save()
    assert not cache.enabled
    assert len(cache.notes) == 1
    assert cache.notes[0].startswith("no cache: cannot write ")
    assert directory.read_text() == "not a directory"


@needs_permissions
def test_a_read_only_directory_can_still_be_read(directory: Path) -> None:
    open_cache(directory).put("report", "key", 1)
    directory.chmod(0o500)
    try:
        cache = open_cache(directory)
        assert cache.get("report", "key") == 1
        cache.put("report", "other", 2)
        assert "Permission denied" in cache.notes[0]
    finally:
        directory.chmod(0o700)


def test_a_full_disk_means_no_cache_and_leaves_no_half_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(directory)
    cache.put("report", "key", "before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put("report", "key", "after")
    monkeypatch.undo()
    assert cache.notes[0].endswith("No space left on device")
    assert len(list(directory.iterdir())) == 3
    assert open_cache(directory).get("report", "key") == "before"


# ---------------------------------------------------------------------------------------------- packs


def test_a_pack_keeps_many_entries_in_one_file(directory: Path) -> None:
    pack = filled_pack(directory, **{f"k{number}": (number, VALUE) for number in range(500)})
    assert all(pack.get(f"k{number}") == (number, VALUE) for number in range(500))
    assert "k7" in pack
    assert "k500" not in pack
    assert pack.get("k500") is None
    assert len(entries(directory)) == 1


def test_what_is_put_can_be_had_at_once_but_is_stored_by_save(directory: Path) -> None:
    pack = open_cache(directory).pack("ir")
    pack.put("key", 1)
    assert pack.get("key") == 1
    assert open_cache(directory).pack("ir").get("key") is None
    pack.save()
    assert pack.get("key") == 1
    assert open_cache(directory).pack("ir").get("key") == 1


def test_the_last_value_of_a_key_wins(directory: Path) -> None:
    pack = filled_pack(directory, key="first", other=1)
    pack.put("key", "second")
    assert pack.get("key") == "second"
    pack.save()
    pack = open_cache(directory).pack("ir")
    assert (pack.get("key"), pack.get("other")) == ("second", 1)


def test_a_run_that_changes_nothing_writes_nothing(directory: Path) -> None:
    pack = filled_pack(directory, key=VALUE)
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert pack.get("key") == VALUE
    pack.save()
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_a_small_change_does_not_rewrite_a_big_pack(directory: Path) -> None:
    big = {f"k{number}": "x" * 10_000 + str(number) for number in range(100)}
    pack = filled_pack(directory, **big)
    [base] = entries(directory)
    written = base.stat().st_mtime_ns, base.stat().st_ino
    pack.put("k5", "changed")
    pack.save()
    assert (base.stat().st_mtime_ns, base.stat().st_ino) == written
    assert len(entries(directory)) == 2
    pack = open_cache(directory).pack("ir")
    assert pack.get("k5") == "changed"
    assert pack.get("k6") == big["k6"]
    # Enough of them are folded into the base again.
    for number in range(60):
        pack.put(f"k{number}", "y" * 10_000)
    pack.save()
    assert entries(directory) == [base]
    assert open_cache(directory).pack("ir").get("k59") == "y" * 10_000


def test_what_another_run_stored_meanwhile_is_kept(directory: Path) -> None:
    first, second = open_cache(directory).pack("ir"), open_cache(directory).pack("ir")
    assert first.get("a") is None
    assert second.get("a") is None
    first.put("a", 1)
    second.put("b", 2)
    first.save()
    second.save()
    pack = open_cache(directory).pack("ir")
    assert (pack.get("a"), pack.get("b")) == (1, 2)


def at_day(monkeypatch: pytest.MonkeyPatch, day: float) -> None:
    now = 1_800_000_000.0 + day * 86400
    monkeypatch.setattr(time, "time", lambda: now)


def test_entries_that_nobody_uses_for_a_month_go(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_day(monkeypatch, 0)
    filled_pack(directory, used="x" * 300_000, unused="y" * 300_000)
    for day in range(1, 40, 3):
        at_day(monkeypatch, day)
        pack = open_cache(directory).pack("ir")
        assert pack.get("used") is not None
        pack.save()
    pack = open_cache(directory).pack("ir")
    assert "used" in pack
    assert "unused" not in pack


def test_a_pack_does_not_grow_without_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PACK", 1_000_000)
    for number in range(30):
        at_day(monkeypatch, number / 10)
        pack = open_cache(directory).pack("ir")
        pack.put(f"k{number}", "x" * 300_000)
        pack.save()
    assert sum(path.stat().st_size for path in entries(directory)) < 1_600_000
    assert "k29" in open_cache(directory).pack("ir")


# ---------------------------------------------------------------------------------------------- other processes

WRITER = """
import sys
from session_lint.cache import Cache
directory, who, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    cache = Cache(directory, "1", secret=b"s" * 32)
    cache.put("report", "shared", ("x" * 50_000, who))
    found = cache.get("report", "shared")
    assert found is None or (len(found[0]) == 50_000 and found[1] in "ab"), found
    pack = cache.pack("ir")
    for key in ("a", "b"):
        value = pack.get(key)
        assert value is None or value == (key, "y" * 2_000), value
    pack.put(who, (who, "y" * 2_000))
    pack.put(f"{who}{number}", (number, "z" * 5_000))
    pack.save()
    assert not cache.notes, cache.notes
print("done")
"""


def writer(directory: Path, who: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), who, str(rounds)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_write_at_once(directory: Path) -> None:
    processes = [writer(directory, who, 150) for who in "ab"]
    assert [process.communicate()[0].strip() for process in processes] == ["done", "done"]
    assert [process.returncode for process in processes] == [0, 0]
    pack = open_cache(directory).pack("ir")
    stored = [f"{who}{number}" for who in "ab" for number in range(150) if f"{who}{number}" in pack]
    # Nearly all of it: of two that save in the same instant the later one wins.
    assert len(stored) > 150
    assert all(pack.get(key) == (int(key[1:]), "z" * 5_000) for key in stored)
    assert not list(directory.glob("*.tmp"))


def test_a_killed_run_leaves_the_last_whole_state(directory: Path) -> None:
    filled_pack(directory, key=VALUE)
    for number in range(5):
        before = directory.stat().st_mtime_ns
        process = writer(directory, "a", 100_000)
        while directory.stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.005)  # however long it takes to start
        time.sleep(0.1 + number * 0.013)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    pack = open_cache(directory).pack("ir")
    assert pack.get("key") == VALUE
    assert pack.get("a") in (("a", "y" * 2_000), None), "whole, or not yet written when it was killed"


# ---------------------------------------------------------------------------------------------- old files


def make_old(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_old_files_and_leftovers_are_deleted_now_and_then(directory: Path) -> None:
    cache = open_cache(directory)
    cache.put("report", "old", 1)
    [old] = entries(directory)
    cache.put("report", "young", 2)
    make_old(old, 31)
    name = old.name
    leftovers = [directory / f"{name}.123-abc.tmp", directory / f"{name}.124-abd.tmp"]
    for leftover in leftovers:
        leftover.write_text("half")
    make_old(leftovers[0], 0.1)
    foreign = [directory / "notes.tmp", directory / "data.cache", directory / ".gitignore"]
    for path in foreign:
        path.write_text("mine")
        make_old(path, 100)

    open_cache(directory).put("report", "another", 3)
    assert old.exists(), "the directory was looked through less than an hour ago"

    make_old(directory / "CACHEDIR.TAG", 0.05)
    open_cache(directory).put("report", "another", 3)
    assert not old.exists()
    assert not leftovers[0].exists()
    assert leftovers[1].exists(), "perhaps another run is just writing it"
    assert all(path.exists() for path in foreign)
    assert cache.get("report", "young") == 2


def test_the_directory_does_not_grow_without_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIRECTORY", 100_000)
    cache = open_cache(directory)
    for number in range(20):
        cache.put("report", str(number), "x" * 10_000)
    for age, path in enumerate(sorted(entries(directory), key=lambda path: -path.stat().st_mtime_ns)):
        make_old(path, age / 100)
    make_old(directory / "CACHEDIR.TAG", 1)
    cache.prune()
    assert len(entries(directory)) == 9
    assert [number for number in range(20) if cache.get("report", str(number)) is not None] == list(range(11, 20))


def test_what_is_read_now_and_then_is_not_old(directory: Path) -> None:
    cache = open_cache(directory)
    cache.put("report", "key", 1)
    [path] = entries(directory)
    make_old(path, 29)
    assert cache.get("report", "key") == 1
    assert time.time() - path.stat().st_mtime < 60


def test_pruning_needs_no_directory(directory: Path) -> None:
    open_cache(directory).prune()
    Cache(None, "1").prune()
    assert not directory.exists()
