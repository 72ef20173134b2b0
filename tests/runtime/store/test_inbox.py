"""Messages as rows: what is stored comes back, in order, or is known to be damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden.store import (
    StoredMessage,
    count_attempts,
    delete_message,
    insert_message,
    load_messages,
)
from treewarden.store.group import Group

if TYPE_CHECKING:
    from treewarden.store import Write
    from treewarden.store.writer import Writer

    from .conftest import MakeUnit


def message(seq: int, path: str = "/a") -> StoredMessage:
    return StoredMessage(
        seq=seq,
        path=path,
        id=f"m{seq}",
        operation="note",
        arguments='{"word":"ä\\u0000"}'.encode(),
        sender="/s",
        at_ns=5,
    )


def write(writer: Writer, make: MakeUnit, *writes: Write) -> None:
    unit = make()
    unit.writes = list(writes)
    assert not writer.commit(Group([unit])).errors


def test_messages_come_back_as_they_were_in_their_order(
    writer: Writer, make: MakeUnit
) -> None:
    rows = [message(3), message(1), message(2, "/b")]
    write(writer, make, *map(insert_message, rows))
    assert load_messages(writer.connected(), "/a") == [message(1), message(3)]


def test_an_attempt_is_counted_and_a_handled_message_is_gone(
    writer: Writer, make: MakeUnit
) -> None:
    write(writer, make, *map(insert_message, [message(1), message(2)]))
    write(writer, make, count_attempts(message(1), 2), delete_message(message(2)))
    (left,) = load_messages(writer.connected(), "/a")
    assert (left.seq, left.attempts, left.sound) == (1, 2, True)


def test_a_damaged_message_says_so(writer: Writer, make: MakeUnit) -> None:
    write(writer, make, insert_message(message(1)))
    writer.connected().execute("UPDATE inbox SET attempts = 1")
    assert [one.sound for one in load_messages(writer.connected(), "/a")] == [False]
