import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from treewarden.control.plain import plain, plain_lines


def test_printable_text_is_left_alone() -> None:
    text = "Grüße, 世界! [bold] é 🙂 \u00a0end"
    assert plain(text) == text


def test_a_terminal_escape_becomes_visible() -> None:
    assert plain("\x1b]0;pwned\x07") == "␛]0;pwned␇"
    assert plain("a\r\nb\tc\x7f") == "a␍␊b␉c␡"


def test_c1_bidi_and_zero_width_characters_show_their_code() -> None:
    assert plain("\x9b31m") == "⟨9b⟩31m"
    assert plain("user\u202etxt.exe") == "user⟨202e⟩txt.exe"
    assert plain("pay\u200bpal\ufeff\u2066") == "pay⟨200b⟩pal⟨feff⟩⟨2066⟩"
    assert plain("\u3164") == "⟨3164⟩"


def test_a_lone_surrogate_can_be_written_out() -> None:
    assert plain("\udcff").encode() == "⟨dcff⟩".encode()


def test_a_long_text_is_cut_and_says_so() -> None:
    assert plain("x" * 100_000, 5) == "xxxxx…"
    assert plain("xxxxx", 5) == "xxxxx"


def test_lines_are_split_at_line_ends_only() -> None:
    assert plain_lines("a\r\nb\x0bc\u2028d\n") == ["a", "b␋c⟨2028⟩d", ""]


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_no_text_keeps_a_character_that_a_terminal_obeys(text: str) -> None:
    shown = plain(text)
    shown.encode()
    kinds = {unicodedata.category(letter) for letter in shown}
    assert kinds.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    assert plain(shown) == shown
