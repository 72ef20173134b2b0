"""The journal's own rules: patterns, damage, retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.store.group import Group
from treewarden.store.journal import load_entries, matcher, prune
from treewarden.store.unit import StagedEvent

if TYPE_CHECKING:
    from treewarden.store.writer import Writer

MANY_BYTES = 1 << 30
words = st.text("ab", min_size=1, max_size=2)
topics = st.lists(words, min_size=1, max_size=4)
patterns = st.tuples(
    st.lists(words | st.just("*"), max_size=4), st.sampled_from([[], [">"]])
).map(lambda parts: parts[0] + parts[1])


def naive(pattern: list[str], topic: list[str]) -> bool:
    if not pattern or not topic:
        return pattern == topic
    if pattern[0] == ">":
        return True
    return pattern[0] in ("*", topic[0]) and naive(pattern[1:], topic[1:])


@given(patterns.filter(bool), topics)
def test_a_pattern_matches_as_word_by_word_comparison_does(
    pattern: list[str], topic: list[str]
) -> None:
    assert matcher(".".join(pattern))(".".join(topic)) == naive(pattern, topic)


def test_a_pattern_is_not_a_regular_expression() -> None:
    assert not matcher("a+")("aa")
    assert matcher("a+")("a+")
    assert not matcher("a.b")("axb")


def entries(count: int, at_ns: int) -> Group:
    return Group([], [StagedEvent("e", b"null", at_ns) for _ in range(count)])


def test_entries_go_when_they_are_too_old(writer: Writer) -> None:
    writer.commit(entries(3, at_ns=100))
    writer.commit(entries(3, at_ns=200))
    connection = writer.connected()
    assert prune(connection, writer.tail, 100, MANY_BYTES) == 0
    assert prune(connection, writer.tail, 101, MANY_BYTES) == 3
    positions = [entry.position for entry in load_entries(connection, 0, 10, ">")]
    assert positions == [4, 5, 6]


def test_only_a_prefix_is_deleted_even_if_later_entries_are_older(
    writer: Writer,
) -> None:
    writer.commit(entries(1, at_ns=500))
    writer.commit(entries(3, at_ns=100))
    assert prune(writer.connected(), writer.tail, 200, MANY_BYTES) == 0


def test_entries_go_when_the_journal_is_too_large(writer: Writer) -> None:
    writer.commit(entries(10, at_ns=100))
    size = writer.tail.end_bytes // 10
    assert prune(writer.connected(), writer.tail, 100, 4 * size) == 6
    assert prune(writer.connected(), writer.tail, 100, 4 * size) == 0


@pytest.mark.parametrize("column", ["at_ns", "end_bytes"])
def test_a_damaged_entry_keeps_nothing_that_is_older_than_what_goes(
    writer: Writer, column: str
) -> None:
    writer.commit(entries(2, at_ns=100))
    connection = writer.connected()
    connection.execute(f"UPDATE journal SET {column} = 1 << 60 WHERE position = 1")  # noqa: S608 - ours
    writer.commit(entries(2, at_ns=200))
    assert prune(connection, writer.tail, 150, MANY_BYTES) == 2


def test_a_damaged_entry_is_marked_and_its_neighbours_stay_readable(
    writer: Writer,
) -> None:
    writer.commit(entries(3, at_ns=100))
    statement = "UPDATE journal SET payload = 'true' WHERE position = 2"
    writer.connected().execute(statement)
    found = load_entries(writer.connected(), 0, 10, ">")
    assert [entry.damaged for entry in found] == [False, True, False]
    assert found[1].payload == b"null"


def test_the_newest_entries_are_found_across_many_windows(writer: Writer) -> None:
    for _ in range(3):
        writer.commit(entries(4000, at_ns=100))
    first = StagedEvent("rare", b"1", 1)
    writer.commit(Group([], [first]))
    writer.commit(entries(6000, at_ns=100))
    found = load_entries(writer.connected(), None, 5, "rare")
    assert [entry.position for entry in found] == [12_001]
    found = load_entries(writer.connected(), 0, 5, "rare")
    assert [entry.position for entry in found] == [12_001]


def test_the_journal_at_a_position_is_as_it_was_then(writer: Writer) -> None:
    writer.commit(entries(10, at_ns=1))

    def positions(since: int | None, limit: int, until: int) -> list[int]:
        found = load_entries(writer.connected(), since, limit, ">", until)
        return [entry.position for entry in found]

    assert positions(None, 3, until=5) == [3, 4, 5]
    assert positions(2, 10, until=5) == [3, 4, 5]
    assert positions(None, 10, until=0) == []
    assert positions(None, 2, until=99) == [9, 10]
