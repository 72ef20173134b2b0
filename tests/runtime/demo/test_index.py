from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treewarden.demo.document import Page
from treewarden.demo.index import Index, index_path, indexed, search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The path of a store; the index stands beside it."""
    return tmp_path / "demo.db"


@pytest.fixture
def index(store: Path) -> Iterator[Index]:
    """An open index beside `store`."""
    index = Index(index_path(store))
    index.open()
    with closing(index):
        yield index


def page(name: str, text: str) -> Page:
    return Page(url=f"http://healthy.localhost/{name}", title=name, text=text)


def test_a_page_that_is_added_again_changes_nothing(store: Path, index: Index) -> None:
    assert index.add(page("json", "encoder"))
    assert not index.add(page("json", "decoder"))

    assert index.count() == 1
    assert indexed(store) == (frozenset({"http://healthy.localhost/json"}), 0)
    assert not search(store, "decoder")


def test_a_page_that_cannot_be_added_leaves_nothing_behind(
    store: Path, index: Index
) -> None:
    with closing(sqlite3.connect(index.path)) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON additions BEGIN "
            "SELECT raise(ABORT, 'no'); END"
        )
    with pytest.raises(sqlite3.IntegrityError):
        index.add(page("json", "encoder"))
    assert index.count() == 0
    assert indexed(store) == (frozenset(), 0)


def test_opening_again_after_a_crash_keeps_what_was_committed(
    store: Path, index: Index
) -> None:
    index.add(page("json", "encoder"))
    index.open()
    assert index.count() == 1
    assert [hit.title for hit in search(store, "encoder")] == ["json"]


def test_a_search_wants_all_words_and_puts_titles_first(
    store: Path, index: Index
) -> None:
    index.add(page("heapq", "a queue of numbers, and more about json"))
    index.add(page("json", "numbers and strings"))
    index.add(page("queue", "strings"))
    assert [hit.title for hit in search(store, "json numbers")] == ["json", "heapq"]
    assert "json" in search(store, "queue json")[0].snippet


def test_words_in_quotes_are_a_phrase(store: Path, index: Index) -> None:
    index.add(page("contextlib", "makes a context manager"))
    index.add(page("logging", "a manager without context"))
    hits = search(store, '"context manager"')
    assert [hit.title for hit in hits] == ["contextlib"]


def test_a_search_before_anything_was_indexed_finds_nothing(store: Path) -> None:
    assert search(store, "json") == []
    assert not index_path(store).exists()


def test_the_index_can_be_read_only_by_its_owner(index: Index) -> None:
    assert index.path.stat().st_mode & 0o077 == 0


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(words=st.text() | st.text(st.characters(codec=None), max_size=5))
def test_no_words_are_an_error(store: Path, index: Index, words: str) -> None:
    index.add(page("json", "encoder"))
    assert isinstance(search(store, words), list)
