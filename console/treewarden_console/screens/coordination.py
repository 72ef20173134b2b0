"""Coordination: what agents send each other, and what they hold, lead and wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from treewarden.control.protocol import (
    GetExchanges,
    GetMeetings,
    LineRow,
    MeetingRow,
)
from treewarden_console.widgets import (
    Cell,
    Tone,
    circuit_look,
    line_page,
    meeting_page,
)

from .listing import Listing, Shown, name, number, quiet, share
from .lists import ListsScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import Message
    from treewarden_console.widgets import Spans


class ReceiverList(Listing[LineRow]):
    """What exchanges have for each receiver."""

    ID = "exchanges"
    ONE = "receiver"
    NOTHING = "nothing is on its way through an exchange"
    TABLES: ClassVar[tuple[str, ...]] = ("lines",)

    def columns(self) -> Sequence[Shown[LineRow]]:
        """The circuit before it, the account, what waits."""
        return (
            Shown("RECEIVER", 0, lambda row: name(row.receiver)),
            Shown("CIRCUIT", 9, lambda row: self.sign(circuit_look(row.circuit))),
            Shown("BUFFERED", 9, _buffered, right=True),
            Shown("TRIES", 5, lambda row: number(row.attempts, Tone.WORRY), right=True),
            Shown("DELIV", 5, lambda row: number(row.delivered), right=True),
            Shown("FAIL", 5, lambda row: number(row.failed, Tone.BAD), right=True),
            Shown("DROP", 5, lambda row: number(row.dropped, Tone.BAD), right=True),
            Shown(
                "REFUSED", 7, lambda row: number(row.refused, Tone.WORRY),
                right=True, least=76,
            ),
            Shown("EXCHANGE", 18, lambda row: quiet(row.exchange), least=100),
        )  # fmt: skip

    def orders(self) -> Mapping[str, Callable[[LineRow], Any]]:
        """Where most waits, and where most went wrong."""
        return {
            "buffered": lambda row: -row.pending,
            "failed": lambda row: -(row.failed + row.dropped),
        }

    def words(self, row: LineRow) -> str:
        """Receiver, exchange and the circuit's state."""
        return f"{row.receiver} {row.exchange} {row.circuit}"

    def notes(self, rows: Mapping[str, LineRow]) -> Iterable[str]:
        """How many are in trouble."""
        stalled = sum(row.stalled for row in rows.values())
        return [f"{stalled} stalled"] if stalled else []

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("exchanges", GetExchanges())]

    def heading(self, id_: str) -> str:
        """The receiver."""
        row = self.find(id_)
        return row.receiver if row is not None else ""

    def page(self, row: LineRow) -> list[Spans]:
        """Its account."""
        return line_page(row, self.ink)

    def node(self, row: LineRow) -> str:
        """The receiver."""
        return row.receiver


class MeetingList(Listing[MeetingRow]):
    """Locks, elections, barriers and ballots that somebody takes part in."""

    ID = "locks"
    ONE = "lock, leader, barrier or ballot"
    MANY = "locks, leaders, barriers or ballots"
    NOTHING = "no locks are held, and nobody leads, waits at a barrier or votes"
    TABLES: ClassVar[tuple[str, ...]] = ("meetings",)

    def columns(self) -> Sequence[Shown[MeetingRow]]:
        """What, whose, and who else."""
        return (
            Shown("KIND", 8, lambda row: quiet(row.kind)),
            Shown("NAME", 0, lambda row: name(row.name)),
            Shown("HOLDER", 28, _holder),
            Shown("SINCE", 5, lambda row: self.since(row.since_ns), right=True),
            Shown("NUMBER", 7, lambda row: number(row.number), right=True),
            Shown("WAITING", 7, lambda row: number(row.waiting, Tone.TEXT), right=True),
        )

    def orders(self) -> Mapping[str, Callable[[MeetingRow], Any]]:
        """Where most agents wait; together what one agent has."""
        return {
            "waiting": lambda row: -row.waiting,
            "since": lambda row: row.since_ns or 0,
            "holder": lambda row: row.holder,
        }

    def words(self, row: MeetingRow) -> str:
        """Kind, name and holder."""
        return f"{row.kind} {row.name} {row.holder}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("meetings", GetMeetings())]

    def page(self, row: MeetingRow) -> list[Spans]:
        """What its number means."""
        return meeting_page(row, self.desk)

    def node(self, row: MeetingRow) -> str:
        """Who has it."""
        return row.holder


class CoordinationScreen(ListsScreen):
    """Exchanges by receiver; locks, leaders, barriers and ballots."""

    TAB: ClassVar[int] = 5
    LISTS: ClassVar[tuple[type[Listing[Any]], ...]] = (ReceiverList, MeetingList)


def _buffered(row: LineRow) -> Cell:
    cell = share(row.pending, row.capacity)
    return cell if row.pending else Cell(cell.text, Tone.MUTED)


def _holder(row: MeetingRow) -> Cell:
    if row.kind in ("barrier", "ballot"):
        return quiet("")
    return Cell(row.holder) if row.holder else Cell("nobody", Tone.WORRY)
