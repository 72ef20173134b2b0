"""Wall time, as the one place that reads it.

Wall time is for people and for rows; intervals use trio's clock.
"""

import time


def wall_ns() -> int:
    """Nanoseconds since the epoch, now."""
    return time.time_ns()
