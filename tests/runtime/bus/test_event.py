"""What is published."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from treewarden.bus import Event, to_json
from treewarden.bus.event import PAYLOAD_BYTES, shown


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


def test_a_payload_has_a_size_that_can_be_kept() -> None:
    to_json("t", "x" * (PAYLOAD_BYTES - 2))
    with pytest.raises(ValueError, match="1048577 bytes, more than 1048576; publish"):
        to_json("t", "x" * (PAYLOAD_BYTES - 1))


def test_a_report_has_no_room_for_a_large_payload() -> None:
    """Ten thousand reports may wait, and a subscriber that fails reports each event."""
    for payload in ({"page": "x" * 100_000}, "x" * 2_000_000, ["x"] * 100_000):
        seen = shown(Event(topic="t", payload=payload))["payload"]
        assert isinstance(seen, str)
        assert len(seen) < 200


def test_any_object_can_be_shown() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert "<Odd instance" in str(shown(Event(topic="t", payload=Odd()))["payload"])
    assert shown(Event(topic="t", payload={"\udcff"}))["payload"] == "{'\\udcff'}"
