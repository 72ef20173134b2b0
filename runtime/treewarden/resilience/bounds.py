"""What the numbers of a policy may be; who passes another one is shown it."""

from __future__ import annotations

import math
import sys


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is not an int from `least` on; a float is none, nor is True.

    Raises:
        TypeError, ValueError: with the name and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")


def check_number(name: str, value: float) -> None:
    """Refuse what is no number, or one that no float holds.

    Raises:
        TypeError, ValueError: with the name and the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"{name} must be a number that fits into a float, not {value}")


def check_seconds(name: str, value: float) -> None:
    """Refuse what is no time that ends.

    Raises:
        TypeError, ValueError: with the name and the value.
    """
    check_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be > 0 seconds and finite, not {value}")


def check_wait(name: str, value: float) -> None:
    """Refuse what is no time to wait; `math.inf` is one, and so is none at all.

    Raises:
        TypeError, ValueError: with the name and the value.
    """
    check_number(name, value)
    if not value >= 0:
        raise ValueError(f"{name} must be >= 0 seconds, not {value}")
