"""Bodies as they arrive, packed by whoever sends them."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest

from treewarden.gateways.unpack import Body

TEXT = b"all work and no play " * 50


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "": TEXT,
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "X-Gzip ": gzip.compress(TEXT),
    "identity, gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
}


def unpacked(
    packings: str, packed: bytes, *, limit: int = 100_000, step: int = 7
) -> Body:
    """What came of it, in pieces of so many bytes, for as long as more was wanted."""
    body = Body(packings, limit)
    for start in range(0, len(packed), step):
        if not body.add(packed[start : start + step]):
            break
    return body


@pytest.mark.parametrize("packings", PACKED)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_was_packed_comes_out_as_it_was_in_pieces_of_any_size(
    packings: str, step: int
) -> None:
    body = unpacked(packings, PACKED[packings], step=step)
    assert (body.end(), body.wrong, body.is_too_large) == (TEXT, "", False)


def test_some_servers_say_deflate_and_mean_what_is_inside_of_that() -> None:
    body = unpacked("deflate", raw_deflate(TEXT))
    assert (body.end(), body.wrong) == (TEXT, "")


@pytest.mark.parametrize("step", [1, 9, 100_000])
def test_gzip_may_have_several_members_and_padding_behind_them(step: int) -> None:
    """RFC 1952, 2.2; what follows the first one is half of the answer."""
    packed = gzip.compress(TEXT) + gzip.compress(b"more") + bytes(9)
    body = unpacked("gzip", packed, step=step)
    assert (body.end(), body.wrong) == (TEXT + b"more", "")


def test_what_nobody_can_unpack_here_is_left_as_it_is() -> None:
    body = unpacked("br", b"who knows")
    assert (body.end(), body.wrong) == (b"who knows", "")


@pytest.mark.parametrize("packings", ["gzip", "deflate"])
def test_half_of_what_was_packed_is_no_body(packings: str) -> None:
    packed = PACKED[packings]
    for length in range(1, len(packed)):
        body = unpacked(packings, packed[:length])
        body.end()
        assert body.wrong == "its packing ends too early"


@pytest.mark.parametrize("packings", ["gzip", "deflate"])
def test_nothing_at_all_is_an_empty_body(packings: str) -> None:
    """The answer to a HEAD says how a body would be packed, and has none."""
    body = Body(packings, 10)
    assert (body.end(), body.wrong) == (b"", "")


@pytest.mark.parametrize("packings", ["gzip", "deflate"])
def test_noise_is_told_as_such_and_never_raised(packings: str) -> None:
    chance = random.Random(1)  # noqa: S311 - a test's choice
    for _ in range(300):
        packed = bytearray(PACKED[packings])
        packed[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
        body = unpacked(packings, bytes(packed), step=chance.randrange(1, 60))
        # A flip may hit what says nothing: the name of a file, its time.
        assert body.end() == TEXT or body.wrong


@pytest.mark.parametrize("packings", ["", "gzip", "deflate"])
def test_one_byte_over_the_bound_is_too_large_and_no_more_is_wanted(
    packings: str,
) -> None:
    for limit, too_large in ((len(TEXT), False), (len(TEXT) - 1, True)):
        body = unpacked(packings, PACKED[packings], limit=limit)
        body.end()
        assert (body.is_too_large, body.wrong) == (too_large, "")


def test_a_kilobyte_that_is_a_gigabyte_takes_no_more_than_the_bound() -> None:
    bomb = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    assert len(packed) < 100_000
    tracemalloc.start()
    try:
        body = unpacked("gzip", packed, limit=50_000, step=100_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body.is_too_large
    assert most < 1_000_000


def test_what_was_packed_twice_is_not_unpacked_at_all() -> None:
    """A kilobyte may then be a terabyte, and the bound is on the last step only."""
    body = unpacked("gzip, gzip", gzip.compress(gzip.compress(TEXT)))
    body.end()
    assert body.wrong == "it is packed 2 times over"
