"""Rows arrive whole, and what changed is told once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treewarden_console.state import Changes, Table

Rows = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))


def test_half_a_snapshot_is_never_believed() -> None:
    table: Table[int] = Table()
    table.apply([("a", 1), ("b", 2)], full=True)
    table.apply([("c", 3)], full=True, more=True)
    assert table.rows == {"a": 1, "b": 2}
    table.apply([("d", 4)])
    assert table.rows == {"c": 3, "d": 4}


def test_an_unchanged_row_is_no_change() -> None:
    table: Table[int] = Table()
    table.apply([("a", 1), ("b", 2)], full=True)
    table.take()
    table.apply([("a", 1), ("b", 3)])
    assert table.take() == Changes(ids=frozenset("b"), reshaped=False)
    assert not table.take()


def test_a_row_that_comes_goes_or_moves_reshapes() -> None:
    table: Table[tuple[int, str]] = Table(place=lambda row: row[0])
    table.apply([("a", (0, "x"))], full=True)
    for rows, gone in (
        ([("b", (1, "x"))], []),
        ([("b", (0, "x"))], []),
        ([], ["b"]),
    ):
        table.take()
        table.apply(rows, gone=gone)
        assert table.take().reshaped
    table.apply([("a", (0, "y"))])
    assert not table.take().reshaped


@given(st.lists(st.tuples(Rows, st.sets(st.sampled_from("abcdef")))))
def test_changes_are_enough_to_follow_the_rows(
    updates: list[tuple[dict[str, int], set[str]]],
) -> None:
    table: Table[int] = Table()
    known: dict[str, int] = {}
    for rows, gone in updates:
        table.apply(rows.items(), gone=gone)
        changes = table.take()
        if changes.reshaped:
            known = dict(table.rows)
        known |= {id_: table.rows[id_] for id_ in changes.ids}
        assert known == table.rows


def test_the_revision_grows_with_every_change() -> None:
    table: Table[int] = Table()
    seen = [table.revision]
    table.apply([("a", 1)], full=True)
    seen.append(table.revision)
    table.apply([("a", 2)])
    seen.append(table.revision)
    table.apply([], gone=["a"])
    seen.append(table.revision)
    assert seen == sorted(set(seen))


def test_a_copy_stands_still() -> None:
    table: Table[int] = Table()
    table.apply([("a", 1)], full=True)
    still = table.copy()
    table.apply([("a", 2)])
    assert still.rows == {"a": 1}
