"""The desk: the picture that is shown, and the answers about it."""

from __future__ import annotations

from typing import Any

from treewarden.control.protocol import Rights
from treewarden_console.state import Desk, Standing


def test_a_held_view_shows_the_old_picture_until_it_is_let_go(canned: Any) -> None:
    desk = Desk(now=lambda: 100.0)
    desk.model.welcome(canned.welcome(), 100.0)
    desk.hold()
    for update in canned.snapshot():
        desk.model.apply(update, 100.0)
    assert not desk.shown.nodes.rows
    assert desk.standing() is Standing.HELD
    desk.hold()
    assert desk.shown.nodes.rows
    assert desk.standing() is Standing.LIVE


def test_rights_are_those_that_were_granted(canned: Any) -> None:
    desk = Desk(now=lambda: 0.0)
    assert not desk.allows(Rights.RW)
    desk.model.welcome(canned.welcome(rights=Rights.RW), 0.0)
    assert desk.allows(Rights.RW)
    assert not desk.allows(Rights.CHAOS)


def test_answers_are_bounded_and_void_after_a_restart(canned: Any) -> None:
    desk = Desk(now=lambda: 0.0)
    for number in range(1000):
        desk.histories.put(number, object())  # type: ignore[arg-type]
    assert desk.histories.get(0) is None
    assert desk.histories.get(999) is not None
    desk.take_answer(canned.explanation())
    desk.take_answer(canned.agent_state())
    desk.forget_answers()
    assert desk.explanations.get("/fetchers/f-3") is None
    assert desk.histories.get("/frontier") is None
