"""What the numbers of a gateway's policy may be."""

from __future__ import annotations

import math


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is not an int from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")


def check_seconds(name: str, value: float) -> None:
    """Refuse what is no time that ends; whatever leaves the process may hang for ever."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be > 0 seconds and finite, not {value}")


def check_max_wait(value: float) -> None:
    """Refuse what is no time in a line; `math.inf` is one, since the line is short."""
    if not value >= 0:
        raise ValueError(f"max_wait must be >= 0 seconds, not {value}")
