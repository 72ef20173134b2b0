"""Text from the runtime reaches the screen plain, and in exactly its cells."""

from __future__ import annotations

from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from treewarden_console.widgets import Ink, Span, Tone, wrap

TEXT = st.text(max_size=30) | st.sampled_from(
    ("\x1b]0;pwn\x07", "[bold]x[/]", "日本語のテキスト", "a\u202eb", "e\u0301" * 9)
)
SPANS = st.lists(st.tuples(TEXT, st.sampled_from(Tone)), max_size=6)


@given(SPANS, st.integers(0, 40))
def test_a_line_takes_exactly_its_cells(spans: list[Span], width: int) -> None:
    strip = Ink().strip(spans, width)
    assert sum(cell_len(segment.text) for segment in strip) == width


@given(SPANS)
def test_no_control_character_is_drawn(spans: list[Span]) -> None:
    drawn = Ink().strip(spans, 200).text
    assert not {category(letter) for letter in drawn} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(TEXT, st.integers(0, 20), st.booleans())
def test_a_cell_takes_exactly_its_cells(text: str, width: int, right: bool) -> None:
    assert cell_len(Ink().fit(text, width, right=right)) == width


@given(SPANS, st.integers(4, 30), st.integers(0, 12))
def test_wrapped_lines_fit_and_lose_nothing_but_blanks(
    spans: list[Span], width: int, indent: int
) -> None:
    lines = wrap(spans, width, indent)
    drawn = [Ink().strip(line, 400).text.rstrip(" ") for line in lines]
    assert all(cell_len(line) <= width for line in drawn)
    letters = "".join(drawn).replace(" ", "")
    whole = Ink().strip(spans, 400).text
    assert letters == whole.replace(" ", "")


def test_lines_are_broken_at_blanks_and_indented() -> None:
    lines = wrap([("why  ", Tone.MUTED), ("it crashed in a page", Tone.TEXT)], 14, 5)
    assert ["".join(text for text, _ in line) for line in lines] == [
        "why  it",
        "     crashed",
        "     in a page",
    ]


def test_what_is_cut_off_ends_in_a_mark() -> None:
    assert Ink().fit("supervisor", 6) == "super…"
    assert Ink(ascii_only=True).fit("supervisor", 6) == "super~"


def test_markup_in_a_title_is_text() -> None:
    assert Ink().title("[@click=app.quit]x[/]").plain == "[@click=app.quit]x[/]"


def test_without_colour_no_style_has_one() -> None:
    ink = Ink(colour=False)
    for tone in Tone:
        for cursor in (False, True):
            style = ink.style(tone, cursor=cursor)
            assert style.color is None
            assert style.bgcolor is None


def test_blanks_between_two_spans_break_a_line_and_never_join_words() -> None:
    lines = wrap([("0 not counted  ", Tone.MUTED), ("6 times", Tone.WORRY)], 14, 2)
    texts = ["".join(text for text, _ in line) for line in lines]
    assert texts == ["0 not counted", "  6 times"]
