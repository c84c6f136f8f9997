"""What the methods of sessions, connections, queries and results do to a transaction. Data, not logic."""

from __future__ import annotations

READ, WRITE, ADD, FLUSH, COMMIT, ROLLBACK, CLOSE, BEGIN, SAVEPOINT, QUERY, NEUTRAL, REMOVE = (
    "read", "write", "add", "flush", "commit", "rollback", "close", "begin", "begin_nested", "query",
    "neutral", "remove",
)  # fmt: skip
EXECUTE = "execute"
"""Reads or writes, depending on the statement."""
LOAD = "load"
"""An expired object loads its attributes. Not asked for by any method."""

SESSION_METHODS: dict[str, str] = {
    "add": ADD,
    "add_all": ADD,
    "delete": ADD,
    "merge": WRITE,
    "bulk_save_objects": WRITE,
    "bulk_insert_mappings": WRITE,
    "bulk_update_mappings": WRITE,
    "execute": EXECUTE,
    "exec": EXECUTE,
    "exec_driver_sql": EXECUTE,
    "scalar": EXECUTE,
    "scalars": EXECUTE,
    "stream": EXECUTE,
    "stream_scalars": EXECUTE,
    "get": READ,
    "get_one": READ,
    "refresh": READ,
    "connection": READ,
    "run_sync": READ,
    "cursor": READ,
    "flush": FLUSH,
    "commit": COMMIT,
    "rollback": ROLLBACK,
    "close": CLOSE,
    "aclose": CLOSE,
    "close_all": CLOSE,
    "invalidate": CLOSE,
    "reset": CLOSE,
    "remove": REMOVE,
    "begin": BEGIN,
    "begin_nested": SAVEPOINT,
    "query": QUERY,
}
"""Methods that are not named here do nothing to the transaction (expunge, in_transaction, get_bind ...)."""

COROUTINES = frozenset(
    "execute exec scalar scalars stream stream_scalars get get_one refresh merge delete flush commit rollback close "
    "aclose connection run_sync invalidate reset remove close_all exec_driver_sql".split()
)
"""Methods of AsyncSession and AsyncConnection that must be awaited. add, add_all, expunge are plain methods."""

NEVER_AWAITED = ("dropped", "attribute", "iterated", "tested")
"""What becomes of a value (see `evaluate`) when a coroutine in its place can't be awaited any more."""

OF_COROUTINES = frozenset({"close", "send", "throw", "__await__", "cr_frame", "cr_running"})
"""What a coroutine itself has: who asks for these knows that it is one."""

QUERY_READS = frozenset(
    "all first one one_or_none scalar count get scalars iterator yield_per_all fetchall fetchone paginate exists_all "
    "first_or_404 one_or_404 get_or_404 one_or_none_or_404".split()
)
QUERY_WRITES = frozenset({"update", "delete", "insert"})
MAY_FIND_NOTHING = frozenset({"one", "scalar_one", "get_one", "first_or_404", "one_or_404", "get_or_404"})

ENDING = frozenset({"flush", "commit", "rollback", "close", "remove"})
"""Methods of which a helper may consist that does nothing but end somebody's transaction."""

CALM_FUNCTIONS = frozenset(
    "print len str repr bool list dict set tuple isinstance issubclass hasattr range enumerate zip sorted reversed "
    "super type id getattr setattr callable any all min max sum format vars locals globals partial cast "
    "capture_exception capture_message jsonify make_response".split()
)
"""Builtins and helpers that a reader does not expect to raise."""

CALM_OBJECTS = frozenset(
    {"logger", "log", "logging", "_logger", "LOG", "LOGGER", "_log", "structlog", "console", "click", "traceback"}
)
CALM_METHODS = frozenset(
    "append extend items keys values strip lower upper startswith endswith format join split replace add_done_callback "
    "info debug warning error exception critical warn bind where filter filter_by order_by limit offset options join "
    "outerjoin group_by having distinct with_for_update select_from returning on_conflict_do_nothing "
    "on_conflict_do_update desc asc in_ is_ label time monotonic perf_counter utcnow now uuid4 hex isoformat "
    "total_seconds copy update setdefault discard sleep scalars scalar all first scalar_one_or_none "
    "one_or_none fetchall "
    "fetchone mappings unique tuples rowcount values subquery alias options astext cast is_not isnot like ilike not_in "
    "notin_ between nulls_first nulls_last scalar_subquery cte union union_all correlate is_set "
    "capture_exception capture_message captureException captureMessage print_exc format_exc".split()
)
"""Methods of which nobody writes: "this may raise"."""
CONVERSIONS = frozenset(
    "dump dumps serialize model_dump model_dump_json model_copy model_validate parse_obj from_orm dict json to_dict "
    "as_dict asdict to_json capitalize title casefold lstrip rstrip encode decode count index pop splitlines".split()
)
"""Methods and functions that only make other data of what they are given."""
STATEMENT_FUNCTIONS = frozenset("select insert update delete text exists func and_ or_ not_ desc asc".split())
"""SQLAlchemy's functions that only build a statement."""

CLOSING_WORDS = ("close", "cleanup", "release", "dispose", "teardown", "remove_session")
"""A function that can't be seen and is called like this closes the session that it is given."""
