"""Identifiers: sortable, unique across runs, cheap to make.

An id is a millisecond timestamp and random bits (the idea of UUID version 7 and ULID), so
that ids sort by age and never repeat, also when the clock is set back.
"""

import os
import random
import re
import time
from typing import Final

_random = random.Random(os.urandom(16))  # noqa: S311 - identity, not secrecy


def _reseed() -> None:
    _random.seed(os.urandom(16))


# A forked child must not repeat its parent's ids.
os.register_at_fork(after_in_child=_reseed)


CHILD_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}")
"""What a child may be called; a path is such words, each behind a slash."""


def new_id() -> str:
    """A fresh id: 12 hexadecimal digits of time and 16 of chance."""
    return f"{time.time_ns() // 1_000_000:012x}{_random.getrandbits(64):016x}"


def random_bits(bits: int) -> int:
    """`bits` random bits, never zero: trace and span ids may not be."""
    return _random.getrandbits(bits) or 1
