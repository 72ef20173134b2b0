"""Whose fault an exception is, and what its message says."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from treewarden.store.failures import broken, is_of_the_row, refused

STATEMENTS = [
    "INSERT INTO t VALUES (1)",
    "INSERT INTO t VALUES (NULL)",
    "INSERT INTO t VALUES ('not a number')",
    "INSERT INTO t SELECT zeroblob(2000000000)",
    "INSERT INTO nowhere VALUES (1)",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_sqlite_refuses_of_a_row_is_the_rows_fault(statement: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a INTEGER NOT NULL UNIQUE) STRICT")
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.Error) as caught:
            connection.execute(statement)
    assert is_of_the_row(caught.value)


@pytest.mark.parametrize("value", [1 << 80, "\ud800", object()])
def test_what_cannot_be_bound_is_the_rows_fault(value: object) -> None:
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises((sqlite3.Error, OverflowError, UnicodeEncodeError)) as caught,
    ):
        connection.execute("SELECT ?", (value,))
    assert is_of_the_row(caught.value)


def test_a_full_database_is_the_worlds_fault_and_says_what_to_do() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("PRAGMA max_page_count = 2").fetchall()
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("INSERT INTO t SELECT zeroblob(100000)")
    assert not is_of_the_row(caught.value)
    message = str(broken(caught.value, "/var/x.db"))
    assert message.startswith("cannot write /var/x.db: database or disk is full: ")
    assert message.endswith("writing resumes by itself when the cause is gone")


def test_no_memory_is_nobodys_fault() -> None:
    assert not is_of_the_row(MemoryError())


def test_an_error_of_our_own_is_not_taken_for_a_bad_row() -> None:
    assert not is_of_the_row(AttributeError("a bug"))
    assert "please report it" in str(broken(AttributeError("a bug"), "x.db"))


def test_a_refusal_names_the_path_and_the_cause() -> None:
    error = refused(sqlite3.IntegrityError("UNIQUE constraint failed: t.a"), "/a")
    assert str(error) == (
        "what /a changed cannot be stored:"
        " IntegrityError: UNIQUE constraint failed: t.a"
    )
