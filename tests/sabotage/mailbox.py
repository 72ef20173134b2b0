"""Broken mailboxes and commits: order, bounds, and what is told before it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import outcome

from treewarden.agents import AgentBody, release
from treewarden.agents import body as bodies
from treewarden.agents.envelope import Envelope
from treewarden.agents.mailbox import Admission, Mailbox
from treewarden.agents.memory import Memory
from treewarden.agents.operation import Operation
from treewarden.agents.staged import Staged

from .double import Area

if TYPE_CHECKING:
    from treewarden.errors import StoreError

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/agents")

_offer = Mailbox.offer
_Offered = tuple[Admission, Envelope | None]


@DOUBLES.swaps(
    Mailbox,
    "offer",
    caught_by="test_mailbox.py::test_a_late_comer_does_not_overtake_the_line",
)
def a_late_comer_overtakes_the_line(self: Mailbox, envelope: Envelope) -> _Offered:
    """Who comes late takes the room that somebody stands in line for."""
    if len(self.items) < self.capacity:
        self.items.append(envelope)
        return Admission.ACCEPTED, None
    return _offer(self, envelope)


@DOUBLES.swaps(
    Mailbox,
    "offer",
    caught_by="test_ref.py::test_a_mailbox_that_rejects_tells_the_caller",
)
def no_bound(self: Mailbox, envelope: Envelope) -> _Offered:
    """A mailbox without a bound."""
    self.force(envelope)
    return Admission.ACCEPTED, None


@DOUBLES.swaps(
    Mailbox,
    "offer",
    caught_by="test_mailbox.py::test_a_mailbox_does_what_two_lists_would",
)
def dropped_without_a_word(self: Mailbox, envelope: Envelope) -> _Offered:
    """What had to go is told to nobody."""
    return _offer(self, envelope)[0], None


@DOUBLES.swaps(
    Mailbox,
    "take",
    caught_by="test_mailbox.py::test_a_sender_in_line_moves_up_when_a_message_is_taken",
)
def a_sender_is_left_in_line(self: Mailbox) -> _Offered | tuple[Envelope, None]:
    """Who stands in line stands there for ever."""
    self.taken += 1
    return self.items.popleft(), None


@DOUBLES.swaps(
    Mailbox,
    "take",
    caught_by="test_mailbox.py::test_a_mailbox_does_what_two_lists_would",
)
def the_newest_first(self: Mailbox) -> tuple[Envelope, None]:
    """Last in, first out."""
    self.taken += 1
    return self.items.pop(), None


@DOUBLES.swaps(
    Mailbox,
    "withdraw",
    caught_by="test_ref.py::test_the_deadline_counts_while_a_sender_stands_in_line",
)
def a_sender_goes_and_its_message_stays(self: Mailbox, envelope: Envelope) -> bool:
    """A sender goes away and its message stays."""
    return envelope in self.waiting


@DOUBLES.swaps(
    Mailbox,
    "put_back",
    caught_by="test_mailbox.py::test_a_mailbox_does_what_two_lists_would",
)
def the_message_in_hand_goes_to_the_end(self: Mailbox, envelope: Envelope) -> None:
    """The message in hand goes behind those that came after it."""
    self.items.append(envelope)
    self.taken -= 1


_Release = release.Release


@DOUBLES.swaps(
    bodies,
    "Release",
    caught_by="test_body.py::test_no_answer_leaves_before_its_commit",
)
def an_answer_before_its_commit(
    body: AgentBody,
    epoch: int,
    unit: Any,
    staged: Any,
    envelope: Envelope,
    reply: object,
) -> Any:
    """The answer leaves before its commit."""
    if envelope.is_call:
        envelope.answer(outcome.Value(reply))
    return _Release(body, epoch, unit, staged, envelope, reply)


_end = AgentBody._end_incarnation


@DOUBLES.swaps(
    AgentBody,
    "_end_incarnation",
    caught_by="test_ref.py::test_messages_that_wait_are_handled_by_the_next_incarnation",
)
def messages_are_lost_at_a_crash(self: AgentBody) -> None:
    """Pitfall 57: a crash takes the mailbox along, and nobody is told."""
    _end(self)
    self.mailbox.empty()


@DOUBLES.swaps(
    AgentBody,
    "_end_incarnation",
    caught_by="test_outbox.py::test_the_outbox_survives_a_crash_of_its_sender",
)
def the_outbox_is_lost_at_a_crash(self: AgentBody) -> None:
    """A crash takes along what was committed and not delivered."""
    _end(self)
    self.outbox.clear()


_commit_failed = AgentBody.commit_failed


@DOUBLES.swaps(
    AgentBody,
    "commit_failed",
    caught_by="test_body.py::test_what_was_doomed_before_does_not_undo_what_came_after",
)
def the_epoch_is_ignored(self: AgentBody, error: StoreError, epoch: int) -> None:
    """What was doomed before undoes what came after."""
    _commit_failed(self, error, self.memory.epoch)


@DOUBLES.swaps(
    AgentBody,
    "commit_failed",
    caught_by="test_body.py::test_a_failed_commit_takes_memory_back_to_disk",
)
def memory_ahead_of_the_disk(self: AgentBody, error: StoreError, epoch: int) -> None:
    """Memory stays ahead of the disk."""


_seal = AgentBody.seal


@DOUBLES.swaps(
    AgentBody,
    "seal",
    caught_by="test_body.py::test_what_builds_on_a_failed_commit_fails_with_it",
)
def what_builds_on_a_failed_commit_is_kept(
    self: AgentBody, envelope: Envelope, payload: bytes
) -> Any:
    """What builds on a failed commit is kept."""
    unit, staged = _seal(self, envelope, payload)
    if unit is not None:
        unit.needs = ()
    return unit, staged


_cast = Staged.cast


@DOUBLES.swaps(
    Staged,
    "cast",
    caught_by="test_body.py::test_a_staged_cast_leaves_with_its_commit_only",
)
def a_cast_before_its_commit(self: Staged, *what: Any) -> None:
    """A cast leaves before the commit of its handler."""
    _cast(self, *what)
    body, envelope = self.casts.pop()
    body.accept_or_lose(envelope)


@DOUBLES.swaps(
    Memory,
    "reset",
    caught_by="test_ref.py::test_a_refusal_is_an_answer_and_its_changes_go_back",
)
def a_refusal_that_keeps_its_changes(self: Memory) -> None:
    """What a refused handler changed stays."""


@DOUBLES.swaps(
    Operation, "copy_reply", caught_by="test_ref.py::test_a_reply_never_aliases_state"
)
def an_answer_that_is_the_state_itself(self: Operation, value: object) -> object:
    """The caller gets the agent's own state in its hands."""
    return value


@DOUBLES.breaks(
    caught_by="test_ref.py::test_a_cancelled_call_that_was_not_begun_never_happens"
)
def a_call_that_nobody_wants_any_more_happens(replace: Replace) -> None:
    """Pitfall 68: its caller was cancelled, and it happens all the same."""
    replace(Envelope, "is_wanted", property(lambda self: True))
