"""What several tests of whole processes need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).parent / "disk" / "disk.c"
TRIES = 5


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`disk.c`, built: preloaded, it watches a disk, slows it or makes it fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip(
            "it takes a C compiler and Linux to stand between SQLite and the disk"
        )
    built = tmp_path_factory.mktemp("disk") / "disk.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(built), str(SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)
    return built


@pytest.fixture(scope="session")
def until_within() -> Callable[[float], Iterator[list[float]]]:
    """For a claim about a time: measured again while it was longer, a few times at most.

        for found in until_within(1.0):
            found.append(measure())

    A busy machine makes everybody late now and then; what is late by itself is so always.
    """

    def tries(bound: float) -> Iterator[list[float]]:
        found: list[float] = []
        while not found or min(found) > bound:
            assert len(found) < TRIES, f"never within {bound:g} s: {found}"
            yield found

    return tries
