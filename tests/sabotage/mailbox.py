"""Broken mailboxes and commits: order, bounds, and what is told before it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import outcome

from treewarden.agents import AgentBody
from treewarden.agents import body as bodies
from treewarden.agents.envelope import Envelope
from treewarden.agents.mailbox import Admission, Mailbox
from treewarden.agents.operation import Operation

from .double import Double, swap

if TYPE_CHECKING:
    from treewarden.errors import StoreError

_offer = Mailbox.offer
_Offered = tuple[Admission, Envelope | None]


def _offer_past_the_line(self: Mailbox, envelope: Envelope) -> _Offered:
    """Who comes late takes the room that somebody stands in line for."""
    if len(self.items) < self.capacity:
        self.items.append(envelope)
        self.accepted += 1
        return Admission.ACCEPTED, None
    return _offer(self, envelope)


def _offer_everything(self: Mailbox, envelope: Envelope) -> _Offered:
    """A mailbox without a bound."""
    self.force(envelope)
    return Admission.ACCEPTED, None


def _drop_silently(self: Mailbox, envelope: Envelope) -> _Offered:
    """What had to go is told to nobody."""
    return _offer(self, envelope)[0], None


def _leave_in_line(self: Mailbox) -> _Offered | tuple[Envelope, None]:
    """Who stands in line stands there for ever."""
    self.taken += 1
    return self.items.popleft(), None


def _take_newest(self: Mailbox) -> tuple[Envelope, None]:
    """Last in, first out."""
    self.taken += 1
    return self.items.pop(), None


def _withdraw_in_word(self: Mailbox, envelope: Envelope) -> bool:
    """A sender goes away and its message stays."""
    return envelope in self.waiting


def _put_back_last(self: Mailbox, envelope: Envelope) -> None:
    """The message in hand goes behind those that came after it."""
    self.items.append(envelope)
    self.taken -= 1


_init_release = bodies._Release.__init__


def _answer_first(
    self: Any,
    body: AgentBody,
    unit: Any,
    staged: Any,
    envelope: Envelope,
    reply: object,
) -> None:
    """The answer leaves before its commit."""
    _init_release(self, body, unit, staged, envelope, reply)
    if envelope.is_call:
        envelope.answer(outcome.Value(reply))


_end = AgentBody._end_incarnation


def _lose_what_waits(self: AgentBody) -> None:
    """A crash takes the mailbox along."""
    _end(self)
    for envelope in self.mailbox.empty():
        self._lose(envelope, "it crashed")


def _lose_the_outbox(self: AgentBody) -> None:
    """A crash takes along what was committed and not delivered."""
    _end(self)
    self._outbox.clear()


_commit_failed = AgentBody.commit_failed


def _at_every_epoch(self: AgentBody, error: StoreError, epoch: int) -> None:
    """What was doomed before undoes what came after."""
    _commit_failed(self, error, self.epoch)


def _go_on(self: AgentBody, error: StoreError, epoch: int) -> None:
    """Memory stays ahead of the disk."""


def _needs_nothing(*units: Any) -> tuple[Any, ...]:
    """What builds on a failed commit is kept."""
    return ()


_stage_cast = AgentBody.stage_cast


def _cast_at_once(self: AgentBody, *what: Any) -> None:
    """A cast leaves before the commit of its handler."""
    _stage_cast(self, *what)
    body, envelope = self._stage().casts.pop()
    body.accept_or_lose(envelope)


def _keep_changes(self: AgentBody) -> None:
    """What a refused handler changed stays."""


def _as_it_is(self: Operation, value: object) -> object:
    """The caller gets the agent's own state in its hands."""
    return value


_A: Final = "tests/runtime/agents/"
_BOX: Final = _A + "test_mailbox.py::"
_BODY: Final = _A + "test_body.py::"
_REF: Final = _A + "test_ref.py::"


def _double(name: str, owner: object, what: str, broken: object, test: str) -> Double:
    return Double(name=name, breaks=swap(owner, what, broken), caught_by=(test,))


DOUBLES: Final = (
    _double(
        "a late-comer overtakes the line",
        Mailbox,
        "offer",
        _offer_past_the_line,
        _BOX + "test_a_late_comer_does_not_overtake_the_line",
    ),
    _double(
        "no bound",
        Mailbox,
        "offer",
        _offer_everything,
        _REF + "test_a_mailbox_that_rejects_tells_the_caller",
    ),
    _double(
        "dropped without a word",
        Mailbox,
        "offer",
        _drop_silently,
        _BOX + "test_a_mailbox_does_what_two_lists_would",
    ),
    _double(
        "a sender is left in line",
        Mailbox,
        "take",
        _leave_in_line,
        _BOX + "test_a_sender_in_line_moves_up_when_a_message_is_taken",
    ),
    _double(
        "the newest first",
        Mailbox,
        "take",
        _take_newest,
        _BOX + "test_a_mailbox_does_what_two_lists_would",
    ),
    _double(
        "a sender goes and its message stays",
        Mailbox,
        "withdraw",
        _withdraw_in_word,
        _REF + "test_the_deadline_counts_while_a_sender_stands_in_line",
    ),
    _double(
        "the message in hand goes to the end",
        Mailbox,
        "put_back",
        _put_back_last,
        _BOX + "test_a_mailbox_does_what_two_lists_would",
    ),
    _double(
        "an answer before its commit",
        bodies._Release,
        "__init__",
        _answer_first,
        _BODY + "test_no_answer_leaves_before_its_commit",
    ),
    _double(
        "messages are lost at a crash",
        AgentBody,
        "_end_incarnation",
        _lose_what_waits,
        _REF + "test_messages_that_wait_are_handled_by_the_next_incarnation",
    ),
    _double(
        "the outbox is lost at a crash",
        AgentBody,
        "_end_incarnation",
        _lose_the_outbox,
        _A + "test_outbox.py::test_the_outbox_survives_a_crash_of_its_sender",
    ),
    _double(
        "the epoch is ignored",
        AgentBody,
        "commit_failed",
        _at_every_epoch,
        _BODY + "test_what_was_doomed_before_does_not_undo_what_came_after",
    ),
    _double(
        "memory ahead of the disk",
        AgentBody,
        "commit_failed",
        _go_on,
        _BODY + "test_a_failed_commit_takes_memory_back_to_disk",
    ),
    _double(
        "what builds on a failed commit is kept",
        bodies,
        "_undecided",
        _needs_nothing,
        _BODY + "test_what_builds_on_a_failed_commit_fails_with_it",
    ),
    _double(
        "a cast before its commit",
        AgentBody,
        "stage_cast",
        _cast_at_once,
        _BODY + "test_a_staged_cast_leaves_with_its_commit_only",
    ),
    _double(
        "a refusal that keeps its changes",
        AgentBody,
        "_reset_state",
        _keep_changes,
        _REF + "test_a_refusal_is_an_answer_and_its_changes_go_back",
    ),
    _double(
        "a call that nobody wants any more happens",
        Envelope,
        "is_wanted",
        property(lambda self: True),
        _REF + "test_a_cancelled_call_that_was_not_begun_never_happens",
    ),
    _double(
        "an answer that is the state itself",
        Operation,
        "copy_reply",
        _as_it_is,
        _REF + "test_a_reply_never_aliases_state",
    ),
)
