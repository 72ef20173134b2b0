"""A fetched page, taken apart: its title, its text, and where its links lead."""

from __future__ import annotations

import contextlib
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit

import msgspec

# The text goes through a mailbox as one argument and into one row.
TEXT_LIMIT: Final = 1_000_000
_TITLE_LIMIT: Final = 200
_UNSEEN: Final = frozenset({"script", "style", "template"})


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What is indexed of one address; `text` has single spaces and no markup."""

    url: str
    title: str
    text: str


def read_page(url: str, html: str) -> tuple[Page, tuple[str, ...]]:
    """The page at `url`, and the absolute http(s) addresses that it links to.

    Each address once, without fragment, in the order of the page. Broken markup is read
    as far as it makes sense; it never raises.
    """
    reader = _Reader(url)
    # html.parser asserts where it meets "<![" and an unknown word.
    with contextlib.suppress(AssertionError):
        reader.feed(html)
        reader.close()
    text = " ".join("".join(reader.text).split())[:TEXT_LIMIT]
    title = " ".join("".join(reader.title).split())[:_TITLE_LIMIT]
    return Page(url=url, title=title or url, text=text), tuple(reader.links)


def absolute(url: str, link: str) -> str | None:
    """Where `link` on the page at `url` leads, or None when that is not on the web."""
    try:
        target = urldefrag(urljoin(url, link.strip())).url
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return None
    except ValueError:
        # Not an address: "http://[half".
        return None
    return parts._replace(netloc=parts.netloc.lower(), path=parts.path or "/").geturl()


class _Reader(HTMLParser):
    """Collects while the parser walks; `_unseen` counts open elements without text."""

    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: dict[str, None] = {}
        self.text: list[str] = []
        self.title: list[str] = []
        self._url = url
        self._unseen = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._link(dict(attrs).get("href"))
        elif tag == "title":
            self._in_title = True
        elif tag in _UNSEEN:
            self._unseen += 1
        self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in _UNSEEN and self._unseen:
            self._unseen -= 1

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._unseen:
            self.text.append(data)

    def _link(self, href: str | None) -> None:
        target = absolute(self._url, href) if href else None
        if target is not None:
            self.links[target] = None
