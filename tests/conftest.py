"""What every test gets: Hypothesis profiles, and a watch over threads left behind."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline for one example: the machine is shared, and a slow example is not wrong.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile(
    "ci", settings.get_profile("default"), max_examples=100, print_blob=True
)
settings.register_profile(
    "soak",
    settings.get_profile("default"),
    max_examples=10_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE")
    or ("ci" if os.environ.get("CI") else "default")
)

# How long a thread that was told to end may take before it counts as left behind.
_LINGER_SECONDS = 5.0


def _ours() -> set[threading.Thread]:
    """Living threads, without those that trio keeps for its next `to_thread` call."""
    return {
        thread
        for thread in threading.enumerate()
        if not thread.name.startswith("Trio thread")
    }


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread running: its owner did not close it."""
    before = _ours()
    yield
    left = _ours() - before
    for thread in left:
        thread.join(_LINGER_SECONDS)
    alive = sorted(thread.name for thread in left if thread.is_alive())
    if alive:
        pytest.fail(f"threads left running: {', '.join(alive)}")
