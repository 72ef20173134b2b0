"""A body as it arrives: unpacked no further than somebody wants to read.

A packed kilobyte may be a gigabyte, and packed twice a terabyte: who unpacks first and
counts then has lost. So each step says how much may come out of it, and what was packed
more than once, which no honest site does, is not unpacked at all. One that ends before its
packing does is half a body, and is not taken for a whole one.

gzip (RFC 1952) may consist of several members; "deflate" is zlib's format (RFC 9110), and
with some servers what is inside of that. Any other packing is left as it is.
"""

from __future__ import annotations

import zlib
from typing import Final

ACCEPTED: Final = "gzip, deflate"
"""What can be unpacked, as the other side is told."""

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = zlib.MAX_WBITS | 16
_GZIP_BEGINS: Final = b"\x1f"
_RAW_WINDOW: Final = -zlib.MAX_WBITS


class Body:
    """What has arrived of an answer's body, at most `limit_bytes` of it.

    `packings` are those that its `Content-Encoding` names.
    """

    def __init__(self, packings: str, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = bytearray()
        self._packings = [
            name
            for part in packings.lower().split(",")
            if (name := part.strip()) not in {"", "identity"}
        ]
        self._stream = self._first_stream()
        self._fed = self._over = False
        self.wrong = ""
        """Why it is no body that can be read; nothing of the sort yet."""
        if len(self._packings) > 1:
            self.wrong = f"it is packed {len(self._packings)} times over"

    def _first_stream(self) -> zlib._Decompress | None:
        match self._packings:
            case [name] if name in _GZIP:
                return zlib.decompressobj(_GZIP_WINDOW)
            case ["deflate"]:
                return zlib.decompressobj()
            case _:
                return None

    def add(self, chunk: bytes) -> bool:
        """One more piece; False when no further one is wanted."""
        if self._stream is None:
            self._bytes += chunk
        elif not self.wrong:
            try:
                self._unpack(chunk)
            except zlib.error as error:
                self.wrong = f"its packing is damaged: {error}"
        return not (self.wrong or self.is_too_large)

    def _unpack(self, chunk: bytes) -> None:
        assert self._stream is not None  # noqa: S101 - whoever calls has looked
        # One byte too many is enough to know.
        while chunk and not self._over and len(self._bytes) <= self._limit:
            if self._stream.eof:
                self._begin_member(chunk)
                continue
            room = self._limit + 1 - len(self._bytes)
            self._bytes += self._step(chunk, room)
            chunk = self._stream.unconsumed_tail or self._stream.unused_data

    def _step(self, chunk: bytes, room: int) -> bytes:
        assert self._stream is not None  # noqa: S101 - as above
        begins, self._fed = not self._fed, True
        try:
            return self._stream.decompress(chunk, room)
        except zlib.error:
            if not begins or self._packings != ["deflate"]:
                raise
            self._stream = zlib.decompressobj(_RAW_WINDOW)
            return self._stream.decompress(chunk, room)

    def _begin_member(self, chunk: bytes) -> None:
        # What follows and is no member is padding; everybody lets it pass.
        self._over = self._packings[0] not in _GZIP or not chunk.startswith(
            _GZIP_BEGINS
        )
        if not self._over:
            self._stream = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def is_too_large(self) -> bool:
        """Whether there is more of it than is taken."""
        return len(self._bytes) > self._limit

    def end(self) -> bytes:
        """The whole body, when the last piece has arrived; `wrong` says if it is none."""
        begun = self._stream is not None and self._fed and not self._stream.eof
        if begun and not self.wrong and not self.is_too_large:
            self.wrong = "its packing ends too early"
        return bytes(self._bytes)
