"""The bus: who takes which events, how far behind, and what nobody could be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from textual.binding import Binding, BindingType

from treewarden.control.plain import plain
from treewarden.control.protocol import (
    DeadLetterAct,
    DeadLetterRow,
    GetDeadLetters,
    GetSubscriptions,
    Rights,
    SubscriptionAct,
    SubscriptionRow,
)
from treewarden_console.state import count, plural, rate
from treewarden_console.widgets import (
    BLANK,
    Cell,
    Tone,
    letter_page,
    pauses,
    receiver,
    subscription_page,
)

from .listing import Listing, Shown, name, number, quiet
from .lists import ListsScreen
from .view import Hint
from .wants import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import Message
    from treewarden_console.widgets import Spans

_LETTERS: Final = 200
_LETTER_ACTS: Final = {
    "retry": ("Deliver again", "It goes back to whom it was for, as if it were new."),
    "forget": ("Forget", "It is gone for good."),
}


class SubscriptionList(Listing[SubscriptionRow]):
    """All subscriptions, durable ones that nobody takes events of included."""

    ID = "subscriptions"
    ONE = "subscription"
    NOTHING = "nobody has subscribed to anything"
    TABLES: ClassVar[tuple[str, ...]] = ("subscriptions", "durable")
    HINTS: ClassVar[tuple[Hint, ...]] = (Hint("F", "forget", Rights.RW),)

    def columns(self) -> Sequence[Shown[SubscriptionRow]]:
        """The account, and how far a durable one is behind."""
        return (
            Shown("SUBSCRIPTION", 0, lambda row: name(row.id)),
            Shown("PATTERN", 22, lambda row: quiet(row.pattern), least=110),
            Shown("EV/S", 5, self._rate, right=True),
            Shown("PUBL", 5, lambda row: number(row.published), right=True),
            Shown("DELIV", 5, lambda row: number(row.delivered), right=True),
            Shown("DROP", 5, lambda row: number(row.dropped, Tone.BAD), right=True),
            Shown("PEND", 5, _pending, right=True),
            Shown("LAG", 5, _lag, right=True),
            Shown("JOURNAL", 7, _journal, least=76),
            Shown("MEMBERS", 7, _members, right=True, least=76),
        )

    def rows(self) -> Mapping[str, SubscriptionRow]:
        """Those in memory, and the idle ones."""
        return self.desk.shown.all_subscriptions()

    def find(self, id_: str) -> SubscriptionRow | None:
        """As `rows` has it."""
        return self.desk.shown.subscription(id_)

    def orders(self) -> Mapping[str, Callable[[SubscriptionRow], Any]]:
        """Where most was lost, where most waits."""
        return {
            "dropped": lambda row: -row.dropped,
            "pending": lambda row: -row.pending,
            "lag": lambda row: -row.lag,
        }

    def words(self, row: SubscriptionRow) -> str:
        """Id, pattern and owner."""
        return f"{row.id} {row.pattern} {row.owner}"

    def notes(self, rows: Mapping[str, SubscriptionRow]) -> Iterable[str]:
        """What was lost, and what waits."""
        for total, said in (
            (sum(row.dropped for row in rows.values()), "dropped"),
            (sum(row.pending for row in rows.values()), "pending"),
            (sum(row.holds for row in rows.values()), "holding the journal"),
            (sum(row.paused for row in rows.values()), "paused"),
        ):
            if total:
                yield f"{count(total)} {said}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Which durable ones are idle, and how far behind: only the store knows that."""
        return [("subscriptions", GetSubscriptions())]

    def page(self, row: SubscriptionRow) -> list[Spans]:
        """Its account, and where a durable one stands."""
        return subscription_page(row)

    def node(self, row: SubscriptionRow) -> str:
        """Its owner."""
        return row.owner

    def propose(self, act: str, row: SubscriptionRow) -> Proposal | str:
        """Forget a durable one that nobody takes events of; its name must be typed."""
        if act != "forget":
            return super().propose(act, row)
        if not row.durable:
            return f"{row.id} is not durable: it ends with its owner"
        if row.members:
            return f"{row.id} has members that take its events; they must end first"
        waiting = plural(row.lag, "entry", "entries")
        lost = f"Up to {waiting} of the journal will not be delivered to it any more."
        return Proposal(
            method="subscription",
            params=SubscriptionAct(act="forget", id=row.id),
            title=f"forget {row.id}",
            page=[
                [(lost, Tone.TEXT)],
                [("Whoever subscribes by its name again begins anew.", Tone.TEXT)],
                BLANK,
                *subscription_page(row),
            ],
            verb="Forget",
            name=plain(row.id),
        )

    def _rate(self, row: SubscriptionRow) -> Cell:
        return Cell(rate(self.desk.shown.event_rates.get(row.id)))


class LetterList(Listing[DeadLetterRow]):
    """Messages and events that were given up, the oldest first."""

    ID = "dead-letters"
    ONE = "dead letter"
    NOTHING = "nothing was given up"
    TABLES: ClassVar[tuple[str, ...]] = ("letters",)
    BY_ID = False
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("B", "deliver again", Rights.RW),
        Hint("F", "forget", Rights.RW),
        Hint("P", "forget all", Rights.RW, least=100),
    )

    def columns(self) -> Sequence[Shown[DeadLetterRow]]:
        """Whom it did not reach, and why."""
        return (
            Shown("NO", 6, lambda row: quiet(f"{row.number}"), right=True),
            Shown("AGE", 5, lambda row: self.since(row.at_ns), right=True),
            Shown("DEAD LETTER TO", 0, lambda row: name(receiver(row))),
            Shown("WHAT", 18, lambda row: Cell(row.operation)),
            Shown("TRIES", 5, lambda row: number(row.attempts), right=True),
            Shown("REASON", 16, lambda row: Cell(row.reason, Tone.BAD), least=72),
        )

    def orders(self) -> Mapping[str, Callable[[DeadLetterRow], Any]]:
        """The newest first, or together what has one receiver or reason."""
        return {
            "newest": lambda row: -row.number,
            "receiver": receiver,
            "reason": lambda row: row.reason,
        }

    def words(self, row: DeadLetterRow) -> str:
        """Whom it did not reach, what it was, and why."""
        return f"{receiver(row)} {row.operation} {row.reason}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """They are only in the runtime's store."""
        return [("dead_letters", GetDeadLetters(limit=_LETTERS))]

    def heading(self, id_: str) -> str:
        """Its number."""
        return f"dead letter {id_}"

    def page(self, row: DeadLetterRow) -> list[Spans]:
        """Why it was given up, and what an event says."""
        return letter_page(row, self.desk.zone)

    def node(self, row: DeadLetterRow) -> str:
        """Whom it did not reach."""
        return row.path

    def propose(self, act: str, row: DeadLetterRow) -> Proposal | str:
        """Have it delivered again, forget it, or forget all that are given up by now."""
        if act == "purge":
            return self._purge()
        verb, effect = _LETTER_ACTS[act]
        word = cast(
            "Literal['retry', 'discard']", "discard" if act == "forget" else act
        )
        return Proposal(
            method="dead_letter",
            params=DeadLetterAct(act=word, number=row.number),
            title=f"dead letter {row.number}",
            page=[[(effect, Tone.TEXT)], BLANK, *self.page(row)],
            verb=verb,
        )

    def _purge(self) -> Proposal:
        rows = self.rows().values()
        newest = max(row.at_ns for row in rows)
        many = plural(len(rows), self.ONE)
        return Proposal(
            method="dead_letter",
            params=DeadLetterAct(act="purge", before_ns=newest + 1),
            title="forget all dead letters",
            page=[
                [(f"{many}: gone for good.", Tone.TEXT)],
                [("What is given up from now on stays.", Tone.TEXT)],
            ],
            verb="Forget all",
            name="all",
        )


class BusScreen(ListsScreen):
    """All subscriptions, and the dead letters."""

    TAB: ClassVar[int] = 4
    LISTS: ClassVar[tuple[type[Listing[Any]], ...]] = (SubscriptionList, LetterList)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("B", "propose('retry')", show=False),
        Binding("F", "propose('forget')", show=False),
        Binding("P", "propose('purge')", show=False),
    ]


def _pending(row: SubscriptionRow) -> Cell:
    full = row.capacity and row.pending >= row.capacity
    return number(row.pending, Tone.BAD if full else Tone.TEXT)


def _lag(row: SubscriptionRow) -> Cell:
    return number(row.lag, Tone.WORRY) if row.durable else quiet("")


def _journal(row: SubscriptionRow) -> Cell:
    """What it does to the journal and to publishers, the worst first."""
    if row.paused or pauses(row):
        return Cell("pauses", Tone.BAD)
    if row.holds:
        return Cell("holds", Tone.WORRY)
    return Cell(plural(row.gaps, "gap"), Tone.WORRY) if row.gaps else quiet("")


def _members(row: SubscriptionRow) -> Cell:
    if not row.durable:
        return quiet("")
    return Cell(f"{row.members}") if row.members else Cell("nobody", Tone.WORRY)
