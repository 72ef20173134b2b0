"""Answers that are read wrongly: unpacked without a bound, cut in half, misunderstood."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from treewarden.gateways import HttpResponse, transport
from treewarden.gateways.unpack import Body

from .double import Area

if TYPE_CHECKING:
    from datetime import datetime

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/gateways")


@DOUBLES.swaps(
    Body,
    "_unpack",
    caught_by="test_unpack.py::test_a_kilobyte_that_is_a_gigabyte_takes_no_more_than_the_bound",
)
def unpacked_first_and_counted_then(self: Body, chunk: bytes) -> None:
    """A kilobyte fills the memory before somebody looks at the bound."""
    assert self._stream is not None
    self._bytes += self._stream.decompress(chunk)


@DOUBLES.breaks(caught_by="test_unpack.py::test_half_of_what_was_packed_is_no_body")
def half_a_body_will_do(replace: Replace) -> None:
    """What ends before its packing does is taken for a whole answer."""
    replace(Body, "end", lambda self: bytes(self._bytes))


@DOUBLES.swaps(
    Body,
    "_begin_member",
    caught_by="test_unpack.py::test_gzip_may_have_several_members_and_padding_behind_them",
)
def the_first_member_only(self: Body, _: bytes) -> None:
    """The second half of an answer is dropped without a word."""
    self._over = True


@DOUBLES.swaps(
    transport,
    "parsedate_to_datetime",
    caught_by="test_transport.py::test_retry_after_is_seconds_or_a_date_and_noise_is_nothing",
)
def dates_of_this_place(said: str) -> datetime:
    """A date without a zone is taken for the time of wherever we are."""
    return parsedate_to_datetime(said).astimezone()


@DOUBLES.breaks(
    caught_by="test_response.py::test_an_encoding_that_is_none_for_text_is_not_followed"
)
def any_codec_for_text(replace: Replace) -> None:
    """A site names base64, and its reader gets a LookupError."""

    def text(answer: HttpResponse) -> str:
        return answer.body.decode(answer.encoding, errors="replace")

    replace(HttpResponse, "text", property(text))
