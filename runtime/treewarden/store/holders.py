"""Which other processes have a file open: whom an operator has to ask to let go of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESSES = Path("/proc")


def holders(file: Path) -> list[str]:
    """Other processes of this user that have the database `file` or its log open.

    "process 123 (sqlite3)"; empty where the system does not tell (macOS), and never
    those of other users. Takes some milliseconds.
    """
    names = {str(file), f"{file}-wal", f"{file}-shm"}
    return [
        f"process {process.name} ({_name(process)})"
        for process in _others()
        if not names.isdisjoint(_open_files(process))
    ]


def _others() -> Iterator[Path]:
    with suppress(OSError):
        for entry in _PROCESSES.iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                yield entry


def _open_files(process: Path) -> Iterator[str]:
    # It may end, or be somebody else's, at any moment.
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())


def _name(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text(errors="replace").strip()
    return "?"
