"""What is published."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from treewarden.bus import Event, to_json


class Page(msgspec.Struct):
    url: str
    size: int


@dataclass
class Site:
    name: str


@pytest.mark.parametrize(
    ("payload", "plain"),
    [
        (None, None),
        (Page("http://x", 3), {"url": "http://x", "size": 3}),
        (Site("x"), {"name": "x"}),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        (1 << 70, 1 << 70),
    ],
)
def test_a_payload_becomes_the_plain_values_that_a_replay_would_give(
    payload: object, plain: object
) -> None:
    encoded, values = to_json("pages.new", payload)
    assert values == plain
    assert msgspec.json.decode(encoded) == plain


def _cycle() -> object:
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (object(), "object"),
        ({"x": {1j}}, "dict"),
        ("\ud800", "str"),
        (_cycle(), "list"),
    ],
    ids=["type", "inner type", "lone surrogate", "cycle"],
)
def test_a_payload_that_is_no_json_is_refused_with_its_topic_and_type(
    payload: object, kind: str
) -> None:
    with pytest.raises(TypeError, match=rf"'pages\.new', of type {kind},"):
        to_json("pages.new", payload)


def test_an_event_cannot_be_changed() -> None:
    event = Event(topic="a", payload=1)
    with pytest.raises(AttributeError):
        event.topic = "b"  # type: ignore[misc]
