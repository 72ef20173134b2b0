"""The full-text index: one SQLite file beside the store, searched with FTS5.

Adding a page is one transaction: its row, its words, and a line in `additions`, the
history by which anybody can check that no page was indexed twice. The unique address
decides: whoever adds a page again changes nothing. So a page may be fetched twice, when
a crash fell between the index's commit and the store's, and is still indexed once.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns

if TYPE_CHECKING:
    from pathlib import Path

    from .document import Page

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pages (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, text, url UNINDEXED);
CREATE TABLE IF NOT EXISTS additions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    url TEXT NOT NULL,
    at_ns INTEGER NOT NULL
) STRICT;
"""
_ADD_PAGE: Final = "INSERT INTO pages (url, title) VALUES (?, ?) ON CONFLICT DO NOTHING"
_ADD_WORDS: Final = "INSERT INTO words (rowid, title, text, url) VALUES (?, ?, ?, ?)"
_ADD_LINE: Final = "INSERT INTO additions (url, at_ns) VALUES (?, ?)"
# A word in the title says more about a page than one in its text.
_SEARCH: Final = """
SELECT title, url, snippet(words, 1, '', '', ' … ', 16) FROM words
WHERE words MATCH ? ORDER BY bm25(words, 8.0, 1.0) LIMIT ?
"""
_TWICE: Final = """
SELECT count(*) FROM (
    SELECT url FROM additions GROUP BY url HAVING count(*) > 1
    UNION SELECT url FROM words GROUP BY url HAVING count(*) > 1
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer of a search, the best first; `snippet` is plain text."""

    title: str
    url: str
    snippet: str


def index_path(store: Path) -> Path:
    """The index that belongs to a store's file."""
    return store.with_name(f"{store.stem}.index.db")


class Index:
    """The writing end. Its methods block: call them from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or make the file, anew when it is open already.

        Raises:
            sqlite3.Error: it cannot be opened, or is something else.
        """
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Made here, so that only its owner can read it; SQLite would ask the umask.
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False
        )
        try:
            # FULL: a page that is acknowledged to the frontier survives power loss too.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def add(self, page: Page) -> bool:
        """Index a page; False when it was there. Returns once committed, or raises.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        connection = self._opened()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute(_ADD_PAGE, (page.url, page.title))
            if row.rowcount == 0:
                return False
            words = (row.lastrowid, page.title, page.text, page.url)
            connection.execute(_ADD_WORDS, words)
            connection.execute(_ADD_LINE, (page.url, wall_ns()))
        return True

    def count(self) -> int:
        """How many pages are in it."""
        count: int
        (count,) = self._opened().execute("SELECT count(*) FROM pages").fetchone()
        return count

    def close(self) -> None:
        """Close the file; closing twice is closing once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError(f"{self.path} is not open")
        return self._connection


def search(store: Path, words: str, *, limit: int = 10) -> list[Hit]:
    """The pages that have all of `words`, best first; [] when nothing was indexed yet.

    `words` are words, not FTS5's query language; text in double quotes is a phrase.
    """
    query = _query(words)
    if not query or not index_path(store).exists():
        return []
    with closing(_read_only(index_path(store))) as connection:
        rows = connection.execute(_SEARCH, (query, limit)).fetchall()
    return [Hit(title=title, url=url, snippet=text) for title, url, text in rows]


def indexed(store: Path) -> tuple[frozenset[str], int]:
    """Every address in the index, and how many were indexed twice (always 0)."""
    with closing(_read_only(index_path(store))) as connection:
        urls = frozenset(url for (url,) in connection.execute("SELECT url FROM words"))
        (twice,) = connection.execute(_TWICE).fetchone()
    return urls, twice


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _query(words: str) -> str:
    """Quoted for FTS5, so that no character of `words` is an operator."""
    # SQLite's text ends at a NUL, and half a surrogate pair is no text at all.
    words = words.replace("\0", " ").encode(errors="replace").decode()
    parts = words.split('"')
    # Every second part stood between quotes.
    plain = [word for part in parts[::2] for word in part.split()]
    phrases = [part.strip() for part in parts[1::2] if part.strip()]
    return " ".join(f'"{term}"' for term in [*phrases, *plain])
