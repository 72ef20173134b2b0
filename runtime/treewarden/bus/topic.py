"""Topics, patterns, and who matches what.

A topic is words joined by dots: `orders.eu.created`. In a pattern `*` stands for any one
word and a last `>` for all the rest, at least one word (the subjects of NATS). Patterns
live in a tree, one level a word, so that a topic finds its subscribers in time that grows
with its own length and not with how many subscriptions there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

ANY_WORD: Final = "*"
ALL_THE_REST: Final = ">"

MAX_LENGTH: Final = 255
"""Characters in a topic or pattern: what fits one line of a console, and a kept index."""

KEPT_TOPICS: Final = 4096
"""Topics whose matches are kept. Matching costs about 2 us and a kept answer 0.05 us; at
some 300 B an entry this is about 1 MiB, and a program has fewer topics than that unless
it puts identifiers into them, when keeping more would not help."""


# Looked at with each event that is published: 0.3 us, and 0.05 once it was found good.
@lru_cache(maxsize=KEPT_TOPICS)
def check_topic(topic: str) -> None:
    """Refuse what is no topic.

    Raises:
        ValueError: it says what is wrong.
    """
    for word in _words("topic", topic):
        if ANY_WORD in word or ALL_THE_REST in word:
            raise ValueError(
                f"a topic has no wildcards, only patterns have: {topic!r} holds {word!r}"
            )


def check_pattern(pattern: str) -> None:
    """Refuse what is no pattern.

    Raises:
        ValueError: it says what is wrong.
    """
    words = _words("pattern", pattern)
    for place, word in enumerate(words, start=1):
        if word == ALL_THE_REST and place < len(words):
            raise ValueError(f"'>' must be the last word of a pattern: {pattern!r}")
        if len(word) > 1 and (ANY_WORD in word or ALL_THE_REST in word):
            raise ValueError(
                f"a wildcard stands for a whole word: {pattern!r} holds {word!r}"
            )


def _words(what: str, text: str) -> list[str]:
    if not text:
        raise ValueError(f"a {what} needs at least one word")
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"a {what} has at most {MAX_LENGTH} characters, not {len(text)}:"
            f" {text[:40]!r}..."
        )
    # A space counts as not printable here too: nobody sees where such a word ends.
    if not text.isprintable() or " " in text:
        raise ValueError(
            f"a {what} has no spaces and only printable characters: {text!r}"
        )
    words = text.split(".")
    if "" in words:
        raise ValueError(f"a {what} is words joined by single dots: {text!r}")
    return words


def matches(pattern: str, topic: str) -> bool:
    """Whether `topic` is one of those that `pattern` stands for; both must be valid."""
    wanted, words = pattern.split("."), topic.split(".")
    if wanted[-1] == ALL_THE_REST:
        wanted.pop()
        if len(words) <= len(wanted):
            return False
    elif len(words) != len(wanted):
        return False
    return all(
        one in (word, ANY_WORD) for one, word in zip(wanted, words, strict=False)
    )


class _Level(Generic[T]):
    """What can follow the same beginning: `here` ends here, `rest` takes all the rest."""

    __slots__ = ("after", "here", "rest")

    def __init__(self) -> None:
        self.after: dict[str, _Level[T]] = {}
        self.here: dict[int, T] = {}
        self.rest: dict[int, T] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.after or self.here or self.rest)


class Routes(Generic[T]):
    """Patterns and what each leads to; asked by topic."""

    __slots__ = ("_kept", "_next", "_root")

    def __init__(self) -> None:
        self._root: _Level[T] = _Level()
        self._kept: dict[str, tuple[T, ...]] = {}
        self._next = 0

    def add(self, pattern: str, target: T) -> int:
        """Lead `pattern` to `target`; the number that is returned removes it again."""
        check_pattern(pattern)
        self._next += 1
        level = self._root
        *words, last = pattern.split(".")
        for word in words:
            level = level.after.setdefault(word, _Level())
        if last == ALL_THE_REST:
            level.rest[self._next] = target
        else:
            level.after.setdefault(last, _Level()).here[self._next] = target
        self._kept.clear()
        return self._next

    def remove(self, pattern: str, number: int) -> None:
        """Undo an `add`; levels that lead nowhere any more go too."""
        way: list[tuple[_Level[T], str]] = []
        level = self._root
        for word in pattern.split("."):
            if word == ALL_THE_REST:
                break
            way.append((level, word))
            level = level.after[word]
        (level.rest if pattern.endswith(ALL_THE_REST) else level.here).pop(number)
        for above, word in reversed(way):
            if not above.after[word].is_empty:
                break
            del above.after[word]
        self._kept.clear()

    def find(self, topic: str) -> tuple[T, ...]:
        """All targets whose patterns match, in the order in which they were added.

        Raises:
            ValueError: it is no topic.
        """
        kept = self._kept.get(topic)
        return self._match(topic) if kept is None else kept

    def _match(self, topic: str) -> tuple[T, ...]:
        check_topic(topic)
        found = sorted(_walk(self._root, topic.split("."), 0), key=_number)
        targets = tuple(target for _, target in found)
        if len(self._kept) >= KEPT_TOPICS:
            self._kept.clear()
        self._kept[topic] = targets
        return targets


def _number(found: tuple[int, T]) -> int:
    return found[0]


def _walk(level: _Level[T], words: list[str], place: int) -> Iterator[tuple[int, T]]:
    if place == len(words):
        yield from level.here.items()
        return
    yield from level.rest.items()
    for word in (words[place], ANY_WORD):
        below = level.after.get(word)
        if below is not None:
            yield from _walk(below, words, place + 1)
