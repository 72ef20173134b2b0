"""F16: what is written again and again takes the room of what there is, not of all that was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.store.group import Group
from treewarden.store.unit import StateWrite, Unit
from treewarden.store.writer import REST_BYTES

if TYPE_CHECKING:
    from treewarden.store.writer import Writer

AGENTS = 100
UPDATES = 10_000


def update(agent: int, number: int) -> Unit:
    unit = Unit(f"/agent/{agent}")
    payload = b'{"n":%d,"text":"%s"}' % (number, b"x" * (1500 + number % 500))
    unit.state = StateWrite("Counter", 1, number, payload)
    return unit


def write(writer: Writer, updates: int) -> None:
    for first in range(0, updates, AGENTS):
        numbers = range(first, first + AGENTS)
        writer.commit(Group([update(number % AGENTS, number) for number in numbers]))
        writer.after_commit()
    writer.rest()


def test_f16_ten_thousand_updates_take_less_room_than_three_snapshots(
    writer: Writer,
) -> None:
    """F16"""
    write(writer, AGENTS)
    writer.connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    snapshot = writer.database.file_bytes()
    assert snapshot > AGENTS * 1500
    write(writer, UPDATES)
    assert writer.database.wal_bytes() <= REST_BYTES + (1 << 20)
    writer.connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert writer.database.file_bytes() < 3 * snapshot
