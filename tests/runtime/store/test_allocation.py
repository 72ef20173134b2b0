"""`keep_freed_memory`: what one group has freed is there for the next."""

from __future__ import annotations

import subprocess
import sys
from platform import libc_ver

GROUPS = """
import resource
from treewarden.store.allocation import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def group():
    states = [b"x" * 64_000 for _ in range(50)]
    states.clear()

def cost():
    group()
    before = faults()
    for _ in range(20):
        group()
    return faults() - before

before = cost()
keep_freed_memory()
print(before, cost())
"""


def test_the_memory_of_a_group_of_large_states_is_not_asked_for_again() -> None:
    # A process of its own: what is learnt is learnt for the whole of it.
    done = subprocess.run(
        [sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    # Other allocators need not be told; they are none the worse for it.
    assert after <= max(before, 100)
    if libc_ver()[0] == "glibc":
        assert after < before / 10
