"""Versions of a state that went by, and how two of them differ."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from treewarden.control.protocol import AgentState, Raw
from treewarden_console.state import Mark, StateHistory, compare, fields


def raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def state(version: int, **more: Any) -> AgentState:
    return AgentState(path="/a", type="A", version=version, incarnation=1, **more)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.text(max_size=4), below, max_size=4)
    ),
)


def test_small_values_stay_on_one_line_and_large_ones_are_taken_apart() -> None:
    known = fields(raw({"n": 1, "small": {"a": 1}, "big": {"k": "x" * 50, "l": [1]}}))
    assert known == {
        "n": "1",
        "small": '{"a":1}',
        "big.k": f'"{"x" * 50}"',
        "big.l": "[1]",
    }


def test_every_field_is_kept_changed_lost_or_new() -> None:
    before, after = raw({"a": 1, "b": 2, "c": 3}), raw({"a": 1, "b": 5, "d": 4})
    assert [(one.mark, one.field) for one in compare(before, after)] == [
        (Mark.SAME, "a"),
        (Mark.CHANGED, "b"),
        (Mark.NEW, "d"),
        (Mark.LOST, "c"),
    ]


def test_no_state_has_no_fields() -> None:
    assert compare(None, raw(None)) == []


@given(JSON)
def test_a_state_never_differs_from_itself(value: object) -> None:
    assert {one.mark for one in compare(raw(value), raw(value))} <= {Mark.SAME}


@given(st.binary(max_size=40))
def test_no_bytes_break_the_page(noise: bytes) -> None:
    fields(Raw(noise))


def test_a_huge_state_is_cut() -> None:
    known = fields(raw({f"field {n}": n for n in range(5000)}))
    assert len(known) == 2001
    assert "…" in known


def test_the_newest_version_is_shown_until_another_is_chosen() -> None:
    history = StateHistory()
    for version in (1, 2, 3):
        history.add(state(version))
    assert history.chosen == state(3)
    history.step(-1)
    history.add(state(4))
    assert history.chosen == state(2)
    assert history.previous == state(1)
    history.step(2)
    history.add(state(5))
    assert history.chosen == state(5)


def test_a_version_that_is_asked_for_twice_is_kept_once() -> None:
    history = StateHistory()
    history.add(state(1))
    history.add(state(1))
    assert len(history.versions) == 1


def test_only_the_last_versions_are_kept() -> None:
    history = StateHistory()
    history.add(state(0))
    history.step(-1)
    for version in range(1, 100):
        history.add(state(version))
    assert len(history.versions) == 32
    assert history.versions[-1].version == 99
