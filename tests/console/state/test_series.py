"""Counters become rates; shares become strips."""

from __future__ import annotations

from treewarden_console.state import FailureStrips, Rates, strip


def test_a_rate_is_what_was_counted_since_the_last_sample() -> None:
    rates = Rates()
    assert rates.sample({"a": 100}, 1.0) == set()
    assert rates.sample({"a": 130}, 2.0) == {"a"}
    assert rates.get("a") == 15.0


def test_a_counter_that_rests_has_rate_zero_and_is_told_once() -> None:
    rates = Rates()
    rates.sample({"a": 0}, 1.0)
    rates.sample({"a": 5}, 1.0)
    assert rates.sample({}, 1.0) == {"a"}
    assert rates.get("a") == 0.0
    assert rates.sample({}, 1.0) == set()


def test_a_counter_that_goes_back_is_no_negative_rate() -> None:
    rates = Rates()
    rates.sample({"a": 50}, 1.0)
    rates.sample({"a": 2}, 1.0)
    assert rates.get("a") == 0.0
    rates.sample({"a": 4}, 1.0)
    assert rates.get("a") == 2.0


def test_what_is_gone_is_forgotten() -> None:
    rates = Rates()
    rates.sample({"a": 1}, 1.0)
    rates.forget(["a"])
    rates.sample({"a": 9}, 1.0)
    assert rates.get("a") == 0.0


def test_a_strip_shows_the_share_of_calls_that_went_wrong() -> None:
    strips = FailureStrips()
    for made, wrong in ((10, 0), (20, 10), (20, 10), (24, 12)):
        strips.sample({"site": (made, wrong)})
    assert strips.get("site") == (1.0, 0.0, 0.5)
    assert strip(strips.get("site"), 6, top=1.0) == "   █▁▅"


def test_a_strip_scales_to_its_largest_value_and_to_its_width() -> None:
    assert strip([0, 1, 2, 4], 3) == "▃▅█"
    assert strip([0, 4], 4, ascii_only=True) == "  _#"
    assert strip([], 3) == "   "
