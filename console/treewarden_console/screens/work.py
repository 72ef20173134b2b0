"""Work: how far workflows are, which of them need a person, and what waits in queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from textual.binding import Binding, BindingType

from treewarden.control.protocol import (
    CollectionRow,
    GetQueues,
    GetSteps,
    GetWorkflows,
    Rights,
    WorkflowAct,
    WorkflowRow,
)
from treewarden_console.widgets import (
    BLANK,
    Cell,
    Tone,
    collection_page,
    state_look,
    workflow_page,
)

from .listing import Listing, Shown, name, number, quiet
from .lists import ListsScreen
from .view import Hint
from .wants import Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from treewarden.control.protocol import Message
    from treewarden_console.widgets import Spans

_WORKFLOWS: Final = 200
# Who needs a person, then who is at it, then who has ended.
_WORST: Final = (
    "needs_attention", "parked", "failed", "cancelling", "compensating", "running",
    "compensated", "cancelled", "completed",
)  # fmt: skip
_TOLD: Final = _WORST[:5]
_WAITING: Final = ("needs_attention", "parked")
_ACTS: Final = {
    "cancel": (
        "Stop it for good",
        "It takes no more steps, and what it has done is compensated.",
    ),
    "resume": ("Go on", "It goes on where it was, with new attempts."),
}


class WorkflowList(Listing[WorkflowRow]):
    """The workflows that were started last."""

    ID = "workflows"
    ONE = "workflow"
    NOTHING = "no workflow was started within the last day"
    TABLES: ClassVar[tuple[str, ...]] = ("workflows",)
    BY_ID = False
    HINTS: ClassVar[tuple[Hint, ...]] = (
        Hint("S", "cancel", Rights.RW),
        Hint("R", "resume", Rights.RW),
    )

    def columns(self) -> Sequence[Shown[WorkflowRow]]:
        """How far it is, and why it stands still or failed."""
        return (
            Shown("WORKFLOW", 24, lambda row: name(row.id)),
            Shown("FUNCTION", 18, _function, least=90),
            Shown("STATE", 12, lambda row: self.sign(state_look(row.state))),
            Shown("STEPS", 5, lambda row: number(row.steps_over), right=True),
            Shown("TRIES", 5, _tries, right=True),
            Shown("BEGUN", 5, lambda row: self.since(row.begun_at_ns), right=True),
            Shown("REASON", 0, lambda row: Cell(row.reason, Tone.BAD)),
        )

    def orders(self) -> Mapping[str, Callable[[WorkflowRow], Any]]:
        """Who needs a person first; where most is tried in vain; one function's together."""
        return {
            "state": lambda row: (*_WORST, row.state).index(row.state),
            "attempts": lambda row: -row.attempts,
            "function": lambda row: row.name,
        }

    def words(self, row: WorkflowRow) -> str:
        """Id, function, state and reason."""
        return f"{row.id} {row.name} {row.state} {row.reason}"

    def notes(self, rows: Mapping[str, WorkflowRow]) -> Iterable[str]:
        """How many need a person, failed, or are being undone."""
        states = [row.state for row in rows.values()]
        for state in _TOLD:
            if (many := states.count(state)) > 0:
                look = state_look(state)
                yield f"{self.ink.glyph(look)} {many} {look.word}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """They are only in the runtime's store."""
        return [("workflows", GetWorkflows(limit=_WORKFLOWS))]

    def asks_about(self, row: WorkflowRow) -> Iterable[tuple[str, Message]]:
        """Its steps."""
        return [("steps", GetSteps(workflow=row.id))]

    def page(self, row: WorkflowRow) -> list[Spans]:
        """How far it is, step by step."""
        return workflow_page(row, self.desk.steps.get(row.id), self.desk, self.ink)

    def propose(self, act: str, row: WorkflowRow) -> Proposal | str:
        """Cancel one that has not ended; have one go on that stands still."""
        if row.ended_at_ns is not None:
            return f"{row.id} has ended"
        if act == "resume" and row.state not in _WAITING:
            return f"{row.id} does not stand still"
        verb, effect = _ACTS[act]
        return Proposal(
            method="workflow",
            params=WorkflowAct(act=cast("Literal['cancel', 'resume']", act), id=row.id),
            title=f"{act} {row.id}",
            page=[[(effect, Tone.TEXT)], BLANK, *self.page(row)],
            verb=verb,
        )


class QueueList(Listing[CollectionRow]):
    """The durable queues and maps of all agents."""

    ID = "queues"
    ONE = "queue or map"
    MANY = "queues and maps"
    NOTHING = "no agent has opened a durable queue or map"
    TABLES: ClassVar[tuple[str, ...]] = ("collections",)

    def columns(self) -> Sequence[Shown[CollectionRow]]:
        """Whose, which, and how many."""
        return (
            Shown("AGENT", 0, lambda row: name(row.path)),
            Shown("NAME", 20, lambda row: Cell(row.name)),
            Shown("KIND", 6, lambda row: quiet(row.kind)),
            Shown("ITEMS", 7, lambda row: number(row.items, Tone.TEXT), right=True),
        )

    def orders(self) -> Mapping[str, Callable[[CollectionRow], Any]]:
        """The longest first."""
        return {"items": lambda row: -row.items}

    def words(self, row: CollectionRow) -> str:
        """Agent, name and kind."""
        return f"{row.path} {row.name} {row.kind}"

    def asks(self) -> Iterable[tuple[str, Message]]:
        """Nobody tells of them unasked."""
        return [("queues", GetQueues())]

    def page(self, row: CollectionRow) -> list[Spans]:
        """Whose it is."""
        return collection_page(row)

    def node(self, row: CollectionRow) -> str:
        """Its agent."""
        return row.path


class WorkScreen(ListsScreen):
    """Workflows, step by step; durable queues and maps."""

    TAB: ClassVar[int] = 6
    LISTS: ClassVar[tuple[type[Listing[Any]], ...]] = (WorkflowList, QueueList)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("S", "propose('cancel')", show=False),
        Binding("R", "propose('resume')", show=False),
    ]


def _tries(row: WorkflowRow) -> Cell:
    return number(row.attempts, Tone.WORRY if row.attempts > 1 else Tone.MUTED)


def _function(row: WorkflowRow) -> Cell:
    return quiet(f"{row.name} v{row.version}")
