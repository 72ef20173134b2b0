"""Rows of state and of crashes: nothing wrong is ever read without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.errors import RestoreError
from treewarden.store.checksums import checksum
from treewarden.store.group import Group
from treewarden.store.snapshots import (
    CrashRecord,
    load_crashes,
    load_state,
)

if TYPE_CHECKING:
    from treewarden.store.writer import Writer

    from .conftest import MakeUnit


@pytest.mark.parametrize(
    ("column", "value"),
    [("payload", '{"n":2}'), ("revision", 9), ("state_version", 9), ("store_as", "X")],
)
def test_a_changed_column_of_a_state_is_seen(
    writer: Writer, make: MakeUnit, column: str, value: str | int
) -> None:
    writer.commit(Group([make("/a", 1)]))
    statement = f"UPDATE agent_state SET {column} = ?"  # noqa: S608 - our own names
    writer.connected().execute(statement, (value,))
    with pytest.raises(RestoreError, match="damaged"):
        load_state(writer.connected(), "/a", "Counter")


def test_a_row_that_came_to_another_path_is_seen(
    writer: Writer, make: MakeUnit
) -> None:
    writer.commit(Group([make("/a", 1)]))
    writer.connected().execute("UPDATE agent_state SET path = '/b'")
    with pytest.raises(RestoreError, match="damaged"):
        load_state(writer.connected(), "/b", "Counter")


@given(st.binary(min_size=1), st.integers(min_value=0))
def test_a_checksum_sees_every_single_bit(payload: bytes, place: int) -> None:
    changed = bytearray(payload)
    bit = place % (8 * len(payload))
    changed[bit // 8] ^= 1 << bit % 8
    assert checksum(bytes(changed), "/a", 1) != checksum(payload, "/a", 1)


def test_a_checksum_tells_keys_apart() -> None:
    assert checksum(b"x", "a", "bc") != checksum(b"x", "ab", "c")


def test_a_damaged_crash_record_is_left_out_and_the_others_stay(
    writer: Writer,
) -> None:
    records = [
        CrashRecord(
            path="/a",
            at_ns=number,
            incarnation=number,
            operation="add",
            message=b"[]",
            fault=b'"why"',
            revision=number,
            payload=b"{}",
        )
        for number in range(3)
    ]
    writer.commit(Group([], crashes=records))
    statement = "UPDATE agent_crash SET fault = '\"lies\"' WHERE incarnation = 1"
    writer.connected().execute(statement)
    assert load_crashes(writer.connected(), "/a") == [records[0], records[2]]
