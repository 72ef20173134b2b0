"""Children that their dynamic supervisor remembers: a row each, by its path and their id.

What a specification looks like is `supervision`'s business; here it is JSON text with a
place in the order. A child that is written again comes last, as it is started last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.clock import wall_ns

from .checksums import as_stored, checksum, checksum_sql, shown

if TYPE_CHECKING:
    import sqlite3

    from .unit import Write

_REMEMBER: Final = (
    "INSERT OR REPLACE INTO remembered_child (seq, supervisor, id, at_ns, spec, crc)"  # noqa: S608 - our own names
    " SELECT seq, supervisor, id, at_ns, spec,"
    f" {checksum_sql('seq', 'supervisor', 'id', 'at_ns', 'spec')}"
    " FROM (SELECT coalesce(max(seq), 0) + 1 AS seq, ? AS supervisor, ? AS id,"
    " ? AS at_ns, ? AS spec FROM remembered_child)"
)
_FORGET: Final = "DELETE FROM remembered_child WHERE supervisor = ? AND id = ?"
_SELECT: Final = (
    "SELECT seq, id, at_ns, spec, crc FROM remembered_child WHERE supervisor = ?"
    " ORDER BY seq"
)


def remember_child(supervisor: str, id_: str, spec: bytes) -> Write:
    """The statement that keeps a child's specification, for a unit."""
    return _REMEMBER, (supervisor, id_, wall_ns(), spec.decode())


def forget_child(supervisor: str, id_: str) -> Write:
    """The statement that deletes it."""
    return _FORGET, (supervisor, id_)


def load_children(
    connection: sqlite3.Connection, supervisor: str
) -> list[tuple[str, bytes | None]]:
    """Ids and specifications, the first that was written first; None for damaged rows."""
    children: list[tuple[str, bytes | None]] = []
    for seq, id_, at_ns, text, crc in connection.execute(_SELECT, (supervisor,)):
        spec = as_stored(text)
        intact = crc == checksum(spec, seq, supervisor, id_, at_ns)
        children.append((id_, spec) if intact else (shown(id_), None))
    return children
