"""A filter is an expression, an inversion, or a fuzzy word; it never fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden_console.state import Filter


@pytest.mark.parametrize(
    ("text", "passes", "stays_out"),
    [
        ("", "anything", None),
        ("fetch|index", "/Fetchers/f-1", "/frontier"),
        ("!fetch", "/frontier", "/fetchers/f-1"),
        ("~ftr3", "/fetchers/f-3", "/frontier"),
        ("!~ftr3", "/frontier", "/fetchers/f-3"),
        ("f-[", "x f-[ y", "f-1"),
        ("!", "anything", None),
        ("~", "anything", None),
    ],
)
def test_a_filter_means_what_it_says(
    text: str, passes: str, stays_out: str | None
) -> None:
    assert Filter(text).matches(passes)
    assert stays_out is None or not Filter(text).matches(stays_out)


@given(st.text(max_size=20), st.text(max_size=40))
def test_no_typed_text_breaks_a_filter(text: str, subject: str) -> None:
    Filter(text).matches(subject)
