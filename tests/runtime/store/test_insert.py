"""Many rows in few statements: the same rows, in the same order."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from treewarden.store.insert import ROWS_AT_ONCE, Insert

NOTE = Insert("INSERT INTO note (key, value) VALUES (?, ?)")
KEEP = Insert(
    "INSERT INTO note (key, value) VALUES (?, ?)",
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
)


@pytest.mark.parametrize("rows", [0, 1, 2, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 200])
def test_all_rows_are_inserted_in_their_order(rows: int) -> None:
    wanted = [(key, f"{key}") for key in range(rows, 0, -1)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE note (key INTEGER UNIQUE, value TEXT)")
        NOTE.run(connection, wanted)
        found = connection.execute("SELECT key, value FROM note ORDER BY rowid")
        assert found.fetchall() == wanted


@pytest.mark.parametrize(
    ("rows", "count"),
    [(1, 1), (100, 3), (ROWS_AT_ONCE - 1, 6), (100 * ROWS_AT_ONCE, 100)],
)
def test_rows_go_in_powers_of_two_at_a_time(rows: int, count: int) -> None:
    statements: list[str] = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE note (key INTEGER UNIQUE, value TEXT)")
        connection.set_trace_callback(statements.append)
        NOTE.run(connection, [(key, "") for key in range(rows)])
    assert len(statements) == count


def test_what_follows_the_values_holds_for_all_rows() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE note (key INTEGER UNIQUE, value TEXT)")
        rows = range(ROWS_AT_ONCE + 3)
        KEEP.run(connection, [(key, "before") for key in rows])
        KEEP.run(connection, [(key, "after") for key in rows])
        found = connection.execute("SELECT DISTINCT value, count(*) FROM note")
        assert found.fetchall() == [("after", len(rows))]
