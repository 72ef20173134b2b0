"""Dead letters in the file: how many are kept, how long, and what goes with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from treewarden.clock import wall_ns
from treewarden.store import StoredMessage, Unit, insert_effect, insert_letter
from treewarden.store import dead_letters as module
from treewarden.store.dead_letters import LetterTrimmer
from treewarden.store.group import Group
from treewarden.store.retention import DAY_NS, Horizon

if TYPE_CHECKING:
    import pytest

    from treewarden.store.writer import Writer

NOW = wall_ns()


def bury(writer: Writer, seq: int, at_ns: int = NOW) -> None:
    """A message becomes a dead letter after it has kept a result from outside."""
    message = StoredMessage(
        seq=seq,
        path="/a",
        id=f"m{seq}",
        operation="buy",
        arguments=b"{}",
        sender="",
        at_ns=at_ns,
    )
    unit = Unit("/a")
    unit.writes = [
        insert_effect("/a", message.id, 0, b"1"),
        *insert_letter(message, seq, 3, at_ns, "crashed"),
    ]
    assert not writer.commit(Group([unit])).errors


def ids(writer: Writer, table: str) -> list[str]:
    query = f"SELECT msg_id FROM {table} ORDER BY seq"  # noqa: S608 - our own names
    return [id_ for (id_,) in writer.connected().execute(query)]


def test_with_the_oldest_letter_goes_what_its_handler_did_once(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16: nothing else leads to it any more, and it would stay for ever."""
    monkeypatch.setattr(module, "KEPT", 2)
    for seq in range(1, 6):
        bury(writer, seq)
    assert ids(writer, "dead_letter") == ids(writer, "effect") == ["m4", "m5"]


def test_letters_that_are_too_old_go_with_what_their_handlers_did_once(
    writer: Writer,
) -> None:
    bury(writer, 1, NOW - 31 * DAY_NS)
    bury(writer, 2, NOW - 29 * DAY_NS)
    horizon = partial(Horizon, wall=lambda: NOW, elapsed=lambda: 0)
    trimmer = LetterTrimmer(lambda keep_ns, _: horizon(keep_ns, None))
    assert trimmer.trim(writer.connected()) == 1
    assert ids(writer, "dead_letter") == ids(writer, "effect") == ["m2"]


def test_a_clock_that_is_set_ahead_takes_no_letter(writer: Writer) -> None:
    """B9: what is a year old by the clock alone is not a year old."""
    bury(writer, 1)
    ahead = NOW + 365 * DAY_NS
    trimmer = LetterTrimmer(partial(Horizon, wall=lambda: ahead, elapsed=lambda: 0))
    assert trimmer.trim(writer.connected()) == 0
    assert ids(writer, "dead_letter") == ["m1"]
