"""Whether SQLite's log was cut short by damage, which SQLite itself takes for its end.

A log ends where a frame's checksum does not match: so it should, after a power cut in the
middle of a commit. But a bit that flips in the middle of the log ends it too, and every
commit behind that place is gone without a word. The two can be told apart. Commits are
synced one after the other, so a power cut spoils only the last one: frames of the same
log behind a *whole* commit that SQLite did not take can only be there because of damage
(or because commits failed before the power went). It is a reason to tell somebody, not
one to refuse the file. Damage within the last commit cannot be told from a power cut.

The layout is that of https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">2I8s")
_FRAME_BYTES: Final = 24
_MAGICS: Final = {0x377F0682: "<6I", 0x377F0683: ">6I"}


def lost_commits(log: Path, frames: int) -> int:
    """Whole commits in the file `log` behind the `frames` that SQLite took.

    Not for a log that is written to meanwhile.
    """
    if not log.exists():
        return 0
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0
        page_bytes = _HEADER.unpack(header)[2]
        if not _is_sound(header):
            return sum(commit for _, commit in _frames(file, 0, 4096))
        ends = [
            commit
            for salts, commit in _frames(file, frames, page_bytes)
            if salts == header[16:24]
        ]
    # The last of them may be what a power cut has spoilt.
    return sum(ends[:-1])


def _frames(
    file: BinaryIO, first: int, page_bytes: int
) -> Iterator[tuple[bytes, bool]]:
    """Salts of the frames from number `first` (from 0), and which end a commit."""
    place = _HEADER.size + first * (_FRAME_BYTES + page_bytes)
    while True:
        file.seek(place)
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return
        _, pages, salts = _FRAME.unpack(frame)
        yield salts, pages > 0
        place += _FRAME_BYTES + page_bytes


def _is_sound(header: bytes) -> bool:
    words = _MAGICS.get(int.from_bytes(header[:4], "big"))
    if words is None:
        return False
    one = two = 0
    values = struct.unpack(words, header[:24])
    for first, second in zip(values[::2], values[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return (one, two) == _HEADER.unpack(header)[6:]
