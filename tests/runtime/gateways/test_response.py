"""What can be had of an answer."""

from __future__ import annotations

import msgspec
import pytest

from treewarden.gateways import HttpResponse


def answer(body: bytes, *, status: int = 200, encoding: str = "utf-8") -> HttpResponse:
    return HttpResponse(
        url="http://host/", status=status, headers={}, body=body, encoding=encoding
    )


def test_the_text_is_in_the_encoding_that_the_site_names() -> None:
    assert answer("é".encode("latin-1"), encoding="latin-1").text == "é"
    assert answer(b"a\xff").text == "a\N{REPLACEMENT CHARACTER}"


def test_json_is_checked_when_it_is_read() -> None:
    assert answer(b'{"a": 1}').json() == {"a": 1}
    assert answer(b"[1, 2]").json(list[int]) == [1, 2]
    with pytest.raises(msgspec.ValidationError, match="Expected `str`"):
        answer(b"[1]").json(list[str])
    with pytest.raises(msgspec.DecodeError):
        answer(b"<html>").json()


def test_the_two_hundreds_are_fine() -> None:
    assert [answer(b"", status=one).ok for one in (199, 200, 204, 299, 304)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_what_is_shown_of_an_answer_is_not_its_body() -> None:
    assert "hush" not in repr(answer(b"hush"))


@pytest.mark.parametrize(
    "encoding", ["base64", "rot13", "zlib", "undefined", "idna", "punycode", "no such"]
)
def test_an_encoding_that_is_none_for_text_is_not_followed(encoding: str) -> None:
    """A site may name any codec of Python's, and some of them are no text at all."""
    assert answer("käse \xff".encode(), encoding=encoding).text == "käse \xff"
    assert answer(b"k\xff", encoding=encoding).text == "k\ufffd"
