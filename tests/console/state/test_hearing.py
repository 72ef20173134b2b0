"""One word for how true the picture is."""

from __future__ import annotations

from treewarden_console.state import Hearing, Standing


def test_before_the_first_session_we_are_connecting() -> None:
    hearing = Hearing()
    hearing.end("no runtime answers there", 1.0)
    assert hearing.standing(2.0) is Standing.CONNECTING


def test_a_lost_link_is_stale_and_its_age_grows() -> None:
    hearing = Hearing()
    hearing.begin(10.0)
    hearing.heard(11.0)
    hearing.end("gone", 12.0)
    assert hearing.standing(20.0) is Standing.STALE
    assert hearing.silent(20.0) == 9.0
    hearing.begin(21.0)
    assert hearing.standing(21.0) is Standing.LIVE


def test_a_runtime_that_says_nothing_is_stale_though_connected() -> None:
    hearing = Hearing()
    hearing.begin(0.0)
    assert hearing.standing(2.9) is Standing.LIVE
    assert hearing.standing(3.1) is Standing.STALE


def test_lost_updates_are_told_for_a_while() -> None:
    hearing = Hearing()
    hearing.begin(0.0)
    hearing.heard(1.0, lost=7)
    assert hearing.standing(2.0) is Standing.LAGGING
    for second in range(2, 8):
        hearing.heard(float(second))
    assert hearing.standing(7.0) is Standing.LIVE
    assert hearing.lost == 7


def test_what_is_wrong_wins_over_what_is_held() -> None:
    hearing = Hearing()
    hearing.begin(0.0)
    assert hearing.standing(1.0, held=True) is Standing.HELD
    hearing.end("gone", 1.0)
    assert hearing.standing(1.0, held=True) is Standing.STALE
