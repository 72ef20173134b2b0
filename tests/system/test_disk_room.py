"""A5 and A6 of `spec/reliability.md`: the disk is full, or nobody may write to it.

`disk/room.py` is the runtime on it; its head says what it does. The disk is real: a small
tmpfs in a mount namespace of that process, gone with it. A file-size limit and a disk that
fails with such errors are elsewhere (`test_store.py`, `test_disk_faults.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    UntilWithin = Callable[[float], Iterator[list[float]]]

ROOM = Path(__file__).parent / "disk" / "room.py"
FILES = Path(__file__).parent / "disk" / "files.py"
DISK = "size=6m,mode=700"
# $0: where, $1: how; then what runs there.
ON_A_DISK = 'mount -t tmpfs -o "$1" none "$0" && shift && exec "$@"'
MORE_CALLS = 30  # as in room.py
SECONDS = 1.0


def on_a_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that finds an empty disk at `folder`, and alone sees it."""
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    return subprocess.run(
        [*alone, "sh", "-c", ON_A_DISK, str(folder), DISK, *command],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a disk can be mounted."""
    if shutil.which("unshare") is None or on_a_disk(tmp_path, "true").returncode:
        pytest.skip(
            "it takes Linux, and the right to mount, to have a disk of one's own"
        )
    return tmp_path


def seen(disk: Path, way: str) -> dict[str, Any]:
    done = on_a_disk(disk, sys.executable, str(ROOM), str(disk), way)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(found)  # noqa: T201 - what was seen, when it is wrong
    # Whatever happened to the disk.
    assert found["damaged"] == []
    assert found["left"] == "all"
    assert found["more"]
    return found


@pytest.mark.alone
def test_a_full_disk_fails_calls_and_loses_nothing_until_there_is_room(
    disk: Path, until_within: UntilWithin
) -> None:
    """A5: degraded, reads served, no crash loop; well within a second of some room."""
    for times in until_within(SECONDS):
        found = seen(disk, "full")
        judge_full(disk, found)
        times.append(found["well_after"])


def judge_full(disk: Path, found: dict[str, Any]) -> None:
    assert found["answered"] > 20
    assert (found["health"], found["read"]) == ("degraded", "all")
    # Ten times what a supervisor forgives, and it lives.
    assert found["failed"] == MORE_CALLS
    [words] = found["words"]
    assert f"cannot write {disk}/db" in words
    assert "the disk is full; free space" in words
    assert found["again"]
    # Of an orderly end on a full disk the next start makes what it can: it says so.
    assert f"cannot open {disk}/db" in found["refused"]
    assert "the disk is full; free space" in found["refused"]


@pytest.mark.alone
def test_a_disk_that_is_read_only_is_refused_at_the_start_by_name(
    disk: Path, until_within: UntilWithin
) -> None:
    """A6: within a second, with a remedy and a status; the file is as it was."""
    for times in until_within(SECONDS):
        found = seen(disk, "read-only")
        assert f"{disk}/db" in found["refused"]
        assert "read-only" in found["refused"]
        assert found["status"] == 1
        [line] = found["said"].splitlines()
        assert line == f"treewarden: {found['refused']}"
        times.append(found["refused_after"])


def test_on_a_full_disk_a_file_stays_as_it_is_and_nothing_is_left_beside_it(
    disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A5, A11: what has no room is named, and takes none."""
    outside = str(tmp_path_factory.mktemp("outside"))
    done = on_a_disk(disk, sys.executable, str(FILES), str(disk), outside)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    for name, says in (
        ("vacuum", f"cannot change {disk}/db: "),
        ("backup", f"cannot make the copy {disk}/copy: "),
        ("restore", f"cannot make the copy {disk}/db: "),
    ):
        assert seen[name]["said"].startswith(says)
        assert seen[name]["said"].endswith("the disk is full; free space")
        assert seen[name]["left"] == ["ball", "db", "db.lock"]
        assert seen[name]["whole"]
