"""The plugin in pytest itself, in a child process, on small projects: what it says, and what it leaves alone."""

from __future__ import annotations

import pytest
from children import Run

pytestmark = pytest.mark.postgres


def test_it_is_off_unless_asked_for(run: Run) -> None:
    ran = run(
        """
        import gc, sys
        def test_leak(engine):
            assert leaks(engine) == 1
            gc.collect()  # CPython 3.11 fails when it happens in the middle of somebody's ast.parse
        def test_nothing_is_imported():
            assert "session_lint.runtime.probe" not in sys.modules
        """,
        preloaded=False,
    )
    assert (ran.status, ran.report) == (0, {}), ran.output
    # The path of another plugin's warning may have it, depending on where the checkout lies.
    assert not [line for line in ran.output.splitlines() if "session-lint" in line and "site-packages" not in line]


def test_a_leak_is_reported_with_the_place_that_opened_it(run: Run) -> None:
    ran = run("def test_leak(engine):\n    assert leaks(engine) == 1\n", "--session-lint")
    assert ran.status == 1
    assert ran.oracles == ["leaked connection", "open transaction left behind"]
    evidence = ran.report["evidence"][0]
    assert (evidence["opened"]["path"], evidence["opened"]["function"]) == ("app.py", "leaks")
    assert (evidence["facts"]["state"], evidence["test"]) == ("idle in transaction", "test_it.py::test_leak")
    assert "leaked connection: Session left open" in ran.output
    assert "opened at app.py:15 in leaks" in ran.output
    assert "1 passed" in ran.output


@pytest.mark.parametrize("option", ["--session-lint", "--session-lint-faults"])
def test_a_report_that_cannot_be_written_is_said_before_the_tests(run: Run, option: str) -> None:
    ran = run(
        "def test_it():\n    print('it has run')\n", option, "-s", "--session-lint-report=no/such/x.json", last=True
    )
    assert ran.status == 4
    assert "ERROR: --session-lint-report: no/such/x.json: there is no such directory" in ran.output
    assert "it has run" not in ran.output
    ran = run("def test_it():\n    pass\n", option, "--session-lint-report=/dev/full", last=True)
    assert ran.status == 3
    assert "the report could not be written: " in ran.output


def test_the_run_can_end_as_it_would_without(run: Run) -> None:
    ran = run("def test_leak(engine):\n    assert leaks(engine) == 1\n", "--session-lint", "--session-lint-exit-zero")
    assert ran.status == 0
    assert ran.oracles


def test_good_code_shows_nothing_even_with_every_fault(run: Run) -> None:
    ran = run("def test_fine(engine):\n    assert closes(engine) == 1\n", "--session-lint-faults")
    assert (ran.status, ran.report["evidence"], ran.report["tests"]) == (0, [], 1)
    assert ran.report["runs"] == 2  # the statement refused, the backend terminated


def test_faults_show_what_a_test_alone_does_not(run: Run) -> None:
    test = "def test_it(engine):\n    closes_unless_it_fails(engine)\n"
    assert run(test, "--session-lint").report["evidence"] == []
    ran = run(test, "--session-lint-faults")
    assert ran.oracles == ["dead session", "leaked connection"]
    assert all(evidence["fault"] for evidence in ran.report["evidence"])
    assert ran.report["runs"] == 4
    assert "1 passed" in ran.output


def test_fixtures_begin_anew_for_every_run_and_wider_ones_stay(run: Run) -> None:
    ran = run(
        """
        made = []
        @pytest.fixture(scope="session")
        def widest():
            made.append("widest")
            yield "widest"
            made.append("widest gone")
        @pytest.fixture(scope="module")
        def wide(widest):
            made.append("wide")
            yield
            made.append("wide gone")
            print(made)
        @pytest.fixture
        def narrow():
            made.append("narrow")
            yield
            made.append("narrow gone")
        class TestIt:
            def test_it(self, engine, wide, narrow):
                closes(engine)
        def test_the_last_one(engine, widest, wide, narrow):
            assert made == ["widest", "wide", *["narrow", "narrow gone"] * (len(made) // 2 - 1), "narrow"]
            closes_unless_it_fails(engine)
        """,
        "--session-lint-faults",
        "--session-lint-exit-zero",
        "-s",
    )
    assert "2 passed" in ran.output, ran.output
    assert "'wide gone', 'wide'" not in ran.output
    assert ran.report["runs"] == 2 + 4  # of the SELECT; of the INSERT and the COMMIT
    assert {evidence["test"] for evidence in ran.report["evidence"]} == {"test_it.py::test_the_last_one"}


def test_a_teardown_that_fails_does_so_as_ever(run: Run) -> None:
    test = """
    @pytest.fixture(scope="module")
    def wide():
        yield
        print("wide gone")
    @pytest.fixture
    def narrow(wide):
        yield
        raise ValueError("in the teardown")
    def test_it(engine, narrow):
        closes(engine)
    def test_that_cannot_be_set_up_again(wide, engine):
        closes(engine)
    seen = set()
    @pytest.fixture(autouse=True)
    def only_once(request):
        if request.node.name in seen:
            raise LookupError("no more")
        seen.add(request.node.name)
    """
    ran = run(test, "--session-lint-faults", "-s")
    assert "2 passed, 1 error" in ran.output, ran.output
    assert "ValueError: in the teardown" in ran.output
    assert ran.output.count("wide gone") == 1
    (note,) = ran.report["notes"]
    assert note.endswith("test_that_cannot_be_set_up_again: cannot be set up once more: LookupError: no more")


def test_what_a_wider_fixture_holds_is_not_left_behind_by_a_test(run: Run) -> None:
    ran = run("def test_it(long_lived):\n    assert long_lived.scalar(text('SELECT 1')) == 1\n", "--session-lint")
    assert (ran.status, ran.report["evidence"]) == (0, [])


def test_an_outer_transaction_that_is_rolled_back_is_understood(run: Run) -> None:
    ran = run(
        """
        @pytest.fixture
        def session(engine):
            with engine.connect() as connection, connection.begin() as transaction:
                modes = {} if IS_SQLALCHEMY_1 else {"join_transaction_mode": "create_savepoint"}
                with Session(connection, **modes) as session:
                    yield session
                transaction.rollback()
        def test_it(session):
            session.add(User(name="a"))
            session.commit()
            assert session.scalar(text("SELECT count(*) FROM users")) == 1
        """,
        "--session-lint",
    )
    assert (ran.status, ran.report["evidence"]) == (0, [])


def test_the_tests_own_operations_fail_where_the_marker_says_so(run: Run) -> None:
    test = """
    MARK
    def test_it(engine, session_probe):
        session = Session(engine)
        session.scalar(text("SELECT 1"))
        assert [o.kind.value for o in session_probe.recording.operations][-1] == "statement"
        session.close()
    """
    assert run(test.replace("MARK", ""), "--session-lint-faults").report["runs"] == 0
    ran = run(test.replace("MARK", "@pytest.mark.session_probe"), "--session-lint-faults")
    assert ran.report["runs"] == 2
    assert "leaked connection" in ran.oracles


def test_runs_at_the_same_time_and_what_they_prove(run: Run) -> None:
    ran = run(
        """
        def test_two(engine, session_probe):
            def reset():
                with engine.begin() as connection:
                    connection.execute(text("TRUNCATE users"))
            (evidence,) = session_probe.interleave(lambda: add_once(engine), reset)
            assert evidence.facts["at once"] == "users 2 rows"
        """,
        "--session-lint-faults",
    )
    assert "1 passed" in ran.output, ran.output
    assert (ran.oracles, ran.report["runs"]) == (["duplicate row"], 0)
    assert ran.report["evidence"][0]["test"] == "test_it.py::test_two"


def test_workers_of_xdist_hand_on_what_they_saw(run: Run) -> None:
    tests = "".join(f"def test_{n}(engine):\n    leaks(engine)\n" for n in range(4))
    ran = run(tests, "--session-lint", "-n", "2")
    assert ran.report["tests"] == 4
    assert ran.oracles == ["leaked connection", "open transaction left behind"]
    assert ran.status == 1


ASYNC = """
@pytest.fixture
def async_engine(engine):
    return create_async_engine(engine.url.set(drivername="postgresql+asyncpg"))
@pytest.fixture
def anyio_backend():
    return "asyncio"
@pytest.mark.{mark}
async def test_leaks(async_engine):
    assert await leaks_async(async_engine) == 1
@pytest.mark.{mark}
async def test_closes_unless_it_fails(async_engine):
    await closes_async_unless_it_fails(async_engine)
"""


@pytest.mark.parametrize("mark", ["anyio", "asyncio"])
def test_async_tests(mark: str, run: Run) -> None:
    ran = run(ASYNC.format(mark=mark), "--session-lint-faults", "--session-lint-exit-zero")
    assert (ran.status, "2 passed" in ran.output) == (0, True), ran.output
    assert "Exception terminating" not in ran.output
    assert "RuntimeWarning" not in ran.output  # what failing runs leave to the garbage collector is not the user's
    assert ran.report["runs"] == 3 + 6  # of the SELECT; of the INSERT and the COMMIT: refused, terminated, cancelled
    shown = {(e["test"].split("::")[1], e["fault"].split(" in ")[0], e["oracle"]) for e in ran.report["evidence"]}
    assert ("test_leaks", "", "leaked connection") in shown
    assert ("test_closes_unless_it_fails", "unique violation", "dead session") in shown
    assert not [test for test, fault, _ in shown if test == "test_closes_unless_it_fails" and not fault]


def test_a_coroutine_that_is_never_awaited(run: Run) -> None:
    ran = run(
        """
        from sqlalchemy.ext.asyncio import AsyncSession
        def test_it():
            AsyncSession().commit()
        """,
        "--session-lint",
    )
    assert ran.oracles == ["coroutine never awaited"]
    assert ran.report["evidence"][0]["places"][0]["path"] == "test_it.py"


def test_a_failing_test_fails_as_ever(run: Run) -> None:
    ran = run("def test_it(engine):\n    assert closes(engine) == 2\n", "--session-lint-faults")
    assert ran.status == 1
    assert "assert 1 == 2" in ran.output
    assert ran.report["runs"] == 0
