"""Topics, patterns, and who matches what."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.bus import Routes, check_pattern, check_topic, matches
from treewarden.bus.topic import KEPT_TOPICS

words = st.sampled_from(["a", "b", "c"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda head, tail: ".".join([*head, *tail]),
    st.lists(words | st.just("*"), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
) | st.just(">")


def naive(pattern: str, topic: str) -> bool:
    """The same by a regular expression."""
    stands_for = {"*": r"[^.]+", ">": r".+"}
    parts = [stands_for.get(word, re.escape(word)) for word in pattern.split(".")]
    return re.fullmatch(r"\.".join(parts), topic) is not None


@given(pattern=patterns, topic=topics)
def test_a_pattern_matches_what_a_naive_matcher_says(pattern: str, topic: str) -> None:
    check_pattern(pattern)
    check_topic(topic)
    assert matches(pattern, topic) == naive(pattern, topic)


@given(
    steps=st.lists(st.tuples(patterns, st.booleans()), max_size=20),
    asked=st.lists(topics, min_size=1, max_size=5),
)
def test_routes_find_what_a_naive_matcher_says_in_the_order_of_adding(
    steps: list[tuple[str, bool]], asked: list[str]
) -> None:
    routes: Routes[int] = Routes()
    there: dict[int, tuple[str, int]] = {}
    for step, (pattern, removes) in enumerate(steps):
        if removes and there:
            number = next(iter(there))
            routes.remove(there.pop(number)[0], number)
        else:
            there[routes.add(pattern, step)] = (pattern, step)
        for topic in asked:
            expected = (target for one, target in there.values() if naive(one, topic))
            assert routes.find(topic) == tuple(expected)


def test_targets_come_in_the_order_in_which_they_were_added() -> None:
    routes: Routes[str] = Routes()
    for pattern in (">", "a.b", "*.b", "a.>", "a.*"):
        routes.add(pattern, pattern)
    assert routes.find("a.b") == (">", "a.b", "*.b", "a.>", "a.*")


def test_routes_without_patterns_hold_nothing() -> None:
    routes: Routes[str] = Routes()
    numbers = {pattern: routes.add(pattern, "x") for pattern in ("a.b.c", "a.>", "*")}
    for pattern, number in numbers.items():
        routes.remove(pattern, number)
    assert routes._root.is_empty
    assert routes.find("a.b.c") == ()


def test_a_change_of_subscriptions_reaches_topics_that_are_known_already() -> None:
    routes: Routes[str] = Routes()
    assert routes.find("a.b") == ()
    number = routes.add("a.*", "x")
    assert routes.find("a.b") == ("x",)
    routes.remove("a.*", number)
    assert routes.find("a.b") == ()


def test_kept_topics_are_bounded() -> None:
    routes: Routes[str] = Routes()
    routes.add(">", "x")
    for number in range(3 * KEPT_TOPICS):
        assert routes.find(f"user.{number}") == ("x",)
        assert len(routes._kept) <= KEPT_TOPICS


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("", "at least one word"),
        ("a..b", "single dots"),
        (".a", "single dots"),
        ("a.", "single dots"),
        ("a b", "no spaces"),
        ("a\nb", "only printable"),
        ("a.\x1b[2J", "only printable"),
        ("a.\u202eb", "only printable"),
        ("a.*", "no wildcards"),
        ("a.>", "no wildcards"),
        ("a.b*", "no wildcards"),
        ("a" * 256, "at most 255"),
    ],
)
def test_what_is_no_topic_is_refused_and_told_why(topic: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_topic(topic)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "at least one word"),
        ("a..b", "single dots"),
        (">.a", "must be the last word"),
        ("a.b*", "a whole word"),
        ("a.>>", "a whole word"),
        ("a. ", "no spaces"),
    ],
)
def test_what_is_no_pattern_is_refused_and_told_why(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_pattern(pattern)


def test_all_the_rest_is_at_least_one_word() -> None:
    assert not matches("a.>", "a")
    assert matches("a.>", "a.b.c.d")
