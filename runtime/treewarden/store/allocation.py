"""Freed memory that the C library keeps for the next group instead of giving it back."""

from __future__ import annotations

from typing import Final

KEPT_BYTES: Final = 4 << 20
"""The block that is freed; twice as much is kept from then on, if it was ever used."""


def keep_freed_memory() -> None:
    """Have what the states of one group have used be there for the next.

    The states that wait for one commit are freed together. glibc gives its heap's top back
    to the system when 128 KiB of it are free, and has it again page by page, at 2 µs each:
    with states of 64 KB that was a fifth of a call. It learns from the largest block that a
    program frees, and keeps twice as much (mallopt(3), M_MMAP_THRESHOLD); no other
    allocator minds. The block is never written to, so it takes no memory itself.
    """
    bytearray(KEPT_BYTES)
