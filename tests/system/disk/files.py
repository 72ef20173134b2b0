"""What `treewarden db` does to a file on a disk that is full.

Usage: files.py DISK OUTSIDE. DISK is a folder on a small disk, OUTSIDE one elsewhere. Prints
JSON: by command what it said, what it left on the disk, and whether the file is as it was.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import trio

from treewarden.errors import StoreError
from treewarden.store import (
    StateWrite,
    Unit,
    backup_file,
    check_file,
    open_store,
    restore_file,
    vacuum_file,
)

LEFT_BYTES = 64 << 10
PAYLOAD = b'"' + b"x" * 20_000 + b'"'


async def fill(file: Path) -> None:
    async with open_store(file) as store:
        for number in range(100):
            store.hand_over(Unit(f"/{number}", StateWrite("Text", 1, 1, PAYLOAD)))
        await store.settled()


def rows(file: Path) -> list[tuple[str, int]]:
    uri = f"{file.as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute("SELECT path, crc FROM agent_state").fetchall()


def take_room(ball: Path) -> None:
    found = os.statvfs(ball.parent)
    ball.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - LEFT_BYTES)))


def main(disk: Path, outside: Path) -> None:
    file, ball, backup = disk / "db", disk / "ball", outside / "backup"
    trio.run(fill, file)
    backup_file(file, backup)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("DELETE FROM agent_state WHERE path LIKE '/1%'")
    before = rows(file)
    seen = {}
    for name, command in (
        ("vacuum", lambda: vacuum_file(file)),
        ("backup", lambda: backup_file(file, disk / "copy")),
        ("restore", lambda: restore_file(backup, file, replace=True)),
    ):
        take_room(ball)
        try:
            said = str(command())
        except StoreError as error:
            said = str(error)
        left = sorted(path.name for path in disk.iterdir())
        ball.unlink()
        whole = rows(file) == before and check_file(file).problems == []
        seen[name] = {"said": said, "left": left, "whole": whole}
    print(json.dumps(seen))  # noqa: T201 - for whoever started it


main(Path(sys.argv[1]), Path(sys.argv[2]))
