"""A process that is killed while it brings a file's schema up to date.

At every fourth of its calls that reach files; with `SOAK` at each.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from treewarden.store import Level
from treewarden.store.checking import problems
from treewarden.store.database import open_database
from treewarden.store.migrations import SCHEMA_VERSION

FIRST_SCHEMA = Path(__file__).parents[1] / "data" / "schema_1.sql"
STRIDE = 1 if "SOAK" in os.environ else 4

# Copies a file of the first schema for each step, and makes a child that opens it and kills itself
# before its call number `step` of those that reach files. Python tells of each call into C
# (`setprofile`), so nothing in the store knows of this. Ends with the first child that
# comes through, and prints its number.
OPENERS = """
import os, shutil, signal, sqlite3, sys
from pathlib import Path
from treewarden.store import Level
from treewarden.store.database import open_database
from treewarden.store import migrations

CALLS = {"execute", "backup", "fsync", "rename", "replace", "unlink", "open", "close"}

def open_and_die(file, step):
    left = step
    def watch(frame, event, called):
        nonlocal left
        if event == "c_call" and getattr(called, "__name__", "") in CALLS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(watch)
    open_database(file, level=Level.DURABLE, application="shop", boot="b")

first = Path(sys.argv[1]) / "first"
connection = sqlite3.connect(first, isolation_level=None)
connection.execute("PRAGMA synchronous = OFF").fetchall()
connection.executescript(sys.stdin.read())
connection.execute("PRAGMA journal_mode = WAL").fetchall()
connection.close()
for step in range(1, 10_000, int(sys.argv[2])):
    file = Path(sys.argv[1]) / f"{step}.db"
    shutil.copyfile(first, file)
    child = os.fork()
    if not child:
        open_and_die(file, step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
print(step)
"""


def stored(file: Path) -> tuple[int, list[tuple[object, ...]]]:
    """The schema's version, and every row without checksum and lease."""
    columns = {
        "agent_state": "path, store_as, state_version, revision, payload, at_ns",
        "agent_crash": "path, at_ns, incarnation, message, fault, revision, payload",
        "journal": "position, topic, kind, at_ns, source, trace, payload, end_bytes",
        "queue_item": "seq, path, name, key, payload, attempts",
    }
    with closing(sqlite3.connect(file)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        rows: list[tuple[object, ...]] = []
        for table, names in columns.items():
            rows += connection.execute(f"SELECT {names} FROM {table}")  # noqa: S608 - our own names
    return version, rows


def finish(file: Path) -> list[str]:
    """Open the file as the next runtime does; what is wrong with it then."""
    opened = open_database(file, level=Level.DURABLE, application="shop", boot="c")
    found = problems(opened.connection)
    for connection in (*opened.readers, opened.connection):
        connection.close()
    opened.database.close()
    return found


def test_killed_at_any_step_it_has_the_old_schema_or_the_new_and_every_row(
    tmp_path: Path,
) -> None:
    openers = subprocess.run(
        [sys.executable, "-c", OPENERS, str(tmp_path), str(STRIDE)],
        input=FIRST_SCHEMA.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    steps = range(1, int(openers.stdout), STRIDE)
    assert len(steps) > 200 // STRIDE
    _, rows = stored(tmp_path / "1.db")
    versions = []
    for step in steps:
        file = tmp_path / f"{step}.db"
        copies = list(tmp_path.glob(f"{step}.db.schema-1.*Z"))
        version, found = stored(file)
        versions.append(version)
        assert found == rows, f"killed at {step}"
        # Whatever has a copy's name is a whole copy of the old file.
        assert [stored(copy) for copy in copies] in ([(1, rows)], [])
        assert copies or version == 1, f"changed before it was copied, at {step}"
        assert finish(file) == [], f"killed at {step}"
        assert stored(file) == (SCHEMA_VERSION, rows)
    assert set(versions) == {1, SCHEMA_VERSION}
