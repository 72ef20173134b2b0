"""The anchors of the benchmarks are the files that the goals were measured with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def recorded() -> dict[str, str]:
    """Name to SHA-256, as `sha256sum` writes them."""
    text = (BENCHMARKS / "anchors.sha256").read_text(encoding="ascii")
    return {name: digest for digest, name in map(str.split, text.splitlines())}


def found(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of what is in `folder`."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.is_file()
    }


def test_the_anchors_are_unchanged() -> None:
    assert found(BENCHMARKS / "anchors") == recorded()


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_a_changed_anchor_is_noticed(tmp_path: Path, change: str) -> None:
    for file in (BENCHMARKS / "anchors").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert found(tmp_path) == recorded()
    match change:
        case "edited":
            (tmp_path / "run.py").write_bytes(b"")
        case "added":
            (tmp_path / "more.py").touch()
        case _:
            (tmp_path / "run.py").unlink()
    assert found(tmp_path) != recorded()
