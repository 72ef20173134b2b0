"""The wheel holds both packages whole and nothing else; the source archive the project."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = ("runtime/treewarden", "console/treewarden_console")


@pytest.fixture(scope="module")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


def test_the_wheel_holds_every_file_of_both_packages_and_no_other(
    wheel: zipfile.ZipFile, root: Path
) -> None:
    expected = {
        file.relative_to((root / package).parent).as_posix()
        for package in PACKAGES
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"treewarden/py.typed", "treewarden_console/py.typed"} <= held


def test_the_wheel_carries_the_command_the_licence_and_its_floor(
    wheel: zipfile.ZipFile,
) -> None:
    (folder,) = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "treewarden = treewarden.cli:main" in entry_points
    metadata = HeaderParser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_the_source_archive_holds_the_project_and_nothing_that_lies_about(
    dist: Path, root: Path
) -> None:
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in held}
    # hatchling adds PKG-INFO and the file that says what git ignores.
    added = {"PKG-INFO", ".gitignore"}
    folders = {"runtime", "console", "tests", "assets", ".ci"}
    files = {"LICENSE", "Makefile", "README.md", "CHANGELOG.md"}
    pins = {"constraints.txt", "pyproject.toml"}
    assert tops - added == folders | files | pins
    assert [name for name in held if "/." in name or "__pycache__" in name] == []
    assert {name for name in tops - added if not (root / name).exists()} == set()
