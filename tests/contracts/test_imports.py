"""Imports point down: the contracts in pyproject.toml, kept by import-linter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_keep_the_layers_of_pyproject(root: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout
