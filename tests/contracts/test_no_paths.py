"""The project names no machine: no folder of one developer's, no registry's host."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Written in pieces, so that this file does not contain what it looks for.
_FOLDERS = ("ro" + "ot", "wo" + "rk", "ho" + r"me/\w+", "Us" + r"ers/\w+", "op" + "t")
_HOSTS = ("py" + "pi.org", "python" + "hosted", "index" + "-url", "find" + "-links")
FORBIDDEN = re.compile(
    rf"(?<![\w.%~$}}/-])/(?:{'|'.join(_FOLDERS)})/|{'|'.join(map(re.escape, _HOSTS))}"
)
# The option that keeps hosts out of constraints.txt has to be spelt somewhere.
ALLOWED = {"Makefile": "--no-emit-" + "index" + "-url"}

_SKIPPED = re.compile(
    r"(^|/)(\.(?!ci/|gitignore$)[^/]*|__pycache__|build|dist|[^/]*\.egg-info)(/|$)"
)


def project_files(root: Path) -> list[str]:
    """The files of the project, tracked or about to be."""
    if shutil.which("git") and (root / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        # It refuses where the checkout belongs to another user.
        if listing.returncode == 0:
            return [name for name in listing.stdout.split("\0") if name]
    names = (file.relative_to(root).as_posix() for file in root.rglob("*"))
    return [name for name in names if not _SKIPPED.search(name)]


def text_of(file: Path) -> str:
    """The text of `file`, empty for what is no text or no file."""
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return ""


def test_no_file_names_a_folder_of_a_machine_or_a_host_of_a_registry(
    root: Path,
) -> None:
    names = project_files(root)
    assert "pyproject.toml" in names
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name in names
        for number, line in enumerate(text_of(root / name).splitlines(), 1)
        if FORBIDDEN.search(line.replace(ALLOWED.get(name, "\0"), ""))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["cd /ho" + "me/ann/src", "'/ro" + "ot/.venv/bin/x'", "--extra-index" + "-url x"],
)
def test_a_machine_is_recognised(line: str) -> None:
    assert FORBIDDEN.search(line)


@pytest.mark.parametrize(
    "line", ["~/work/x", "$HOME/opt/x", "tests/runtime/work/test_pool.py", "%h/home/x/"]
)
def test_a_relative_path_is_not_taken_for_a_machine(line: str) -> None:
    assert not FORBIDDEN.search(line)
