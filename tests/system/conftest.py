"""What several tests of whole processes need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "disk" / "disk.c"


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
