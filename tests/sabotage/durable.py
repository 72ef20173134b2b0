"""Broken durable mailboxes, ids and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from treewarden.agents import AgentBody, durable, request_id
from treewarden.agents import body as bodies
from treewarden.agents.durable import DurableBody, DurableEnvelope, Inbox
from treewarden.store import Store, delete_message
from treewarden.store.applied import CommittedRanges

from .double import Area

if TYPE_CHECKING:
    from treewarden.agents.envelope import Envelope
    from treewarden.store import Unit
    from treewarden.supervision import Life

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/agents")

_RANDOM: Final = (
    "test_durable_random.py::test_f14_each_message_is_applied_once_and_in_order"
    "_whatever_happens"
)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_a_durable_cast_is_a_row_when_it_returns_and_none_when_it_is_applied"
)
def attempts_are_not_counted_before_the_handler(replace: Replace) -> None:
    """A message that kills the process is delivered for ever."""

    async def may_begin(_: DurableBody, envelope: DurableEnvelope, life: Life) -> bool:
        return True

    replace(DurableBody, "_may_begin", may_begin)


@DOUBLES.breaks(caught_by=_RANDOM)
def f14_the_row_goes_before_the_handler(replace: Replace) -> None:
    """F14: the row is deleted when its message is taken: a crash loses it."""
    honest = Inbox.take

    def take(self: Inbox, envelope: DurableEnvelope) -> None:
        self._body._hand_in([delete_message(envelope.row)])
        honest(self, envelope)

    def reset(self: Inbox) -> None:
        self._taken = None
        self._handled.clear()

    replace(Inbox, "take", take)
    replace(Inbox, "reset", reset)


@DOUBLES.breaks(caught_by=_RANDOM)
def f14_the_row_goes_after_the_handlers_commit(replace: Replace) -> None:
    """F14: the row is deleted in a commit of its own: what fails between counts twice."""

    def seal(self: Inbox, unit: Unit) -> None:
        envelope, self._taken = self._taken, None
        if envelope is not None:
            self._handled.append(envelope)
            self._body._hand_in([delete_message(envelope.row)])
            unit.release.append(lambda error: self._decided(envelope, error))

    replace(Inbox, "seal", seal)


@DOUBLES.breaks(caught_by=_RANDOM)
def what_a_failed_commit_takes_back_is_forgotten(replace: Replace) -> None:
    """A message whose commit failed is not delivered again in this run."""

    def reset(self: Inbox) -> None:
        self._taken = None
        self._handled.clear()

    replace(Inbox, "reset", reset)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_what_a_stopped_agent_had_not_handled_is_handled_by_the_next_in_order"
)
def a_stop_is_an_attempt(replace: Replace) -> None:
    """What was counted for a message that a stop kept from being handled stays counted."""
    honest = DurableBody._hand_in

    def hand_in(self: DurableBody, writes: Any) -> Unit | None:
        writes = list(writes)
        if self.node.life is None:
            return None
        return honest(self, writes)

    replace(DurableBody, "_hand_in", hand_in)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_a_message_that_crashes_its_agent_is_tried_again_then_a_dead_letter"
)
def every_crash_of_a_message_counts(replace: Replace) -> None:
    """B8: one poison message spends its supervisor's budget."""
    honest = DurableBody._tried

    def tried(self: DurableBody, envelope: DurableEnvelope, why: str) -> None:
        honest(self, envelope, why)
        if self._life is not None:
            self._life.uncounted = False

    replace(DurableBody, "_tried", tried)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_a_staged_cast_to_a_durable_mailbox_commits_with_its_sender"
)
def a_staged_cast_is_kept_at_once(replace: Replace) -> None:
    """A cast to a durable mailbox is a row also when its sender's handler fails."""
    honest = DurableBody.make_cast

    def make_cast(self: DurableBody, *message: Any) -> Envelope:
        envelope = honest(self, *message)
        self._post(envelope)  # type: ignore[arg-type] # it is one
        return envelope

    replace(DurableBody, "make_cast", make_cast)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_capacity_bounds_what_is_kept_and_senders_go_on_in_order"
)
def rows_without_a_bound(replace: Replace) -> None:
    """Capacity does not bound what is kept."""
    replace(DurableBody, "_is_full", False)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_an_outside_call_is_made_once_however_often_its_message_is_tried"
)
def once_is_every_time(replace: Replace) -> None:
    """What a handler got from outside is asked for again at each attempt."""

    def effects(*_: Any, **__: Any) -> dict[int, bytes]:
        return {}

    replace(durable, "load_effects", effects)
    replace(durable, "insert_effect", lambda *_: ("SELECT 1", ()))


@DOUBLES.breaks(
    caught_by="test_durable.py::test_memory_that_no_commit_holds_takes_nothing_of_a_sender_that_is_rolled_back"
)
def memory_takes_what_is_not_committed(replace: Replace) -> None:
    """An agent without a store's state handles what its sender may have to take back."""
    replace(AgentBody, "_is_early", lambda self, envelope: False)


@DOUBLES.breaks(
    caught_by="test_durable.py::test_a_start_that_stages_waits_for_the_disk_instead_of_failing_again"
)
def a_start_that_does_not_wait_for_the_disk(replace: Replace) -> None:
    """`on_start` fails as fast as it can while the disk is full."""
    replace(Store, "is_healthy", True)


@DOUBLES.breaks(
    caught_by="test_outcome.py::test_a_request_is_applied_and_known_by_its_id_also_after_a_restart"
)
def ids_are_not_kept(replace: Replace) -> None:
    """What was applied is not remembered."""
    replace(bodies, "note_applied", lambda *_: None)


@DOUBLES.breaks(
    caught_by="test_outcome.py::test_a_call_that_timed_out_in_hand_is_known_by_its_id_when_it_is_over"
)
def an_outcome_that_does_not_wait(replace: Replace) -> None:
    """`outcome` says not_applied of what may still happen."""

    async def wait_known(_: Store, id_: str) -> None:
        return

    replace(Store, "wait_known", wait_known)


@DOUBLES.breaks(
    caught_by="test_outcome.py::test_asked_again_by_id_it_happens_once_and_is_answered_the_same"
)
def asked_again_it_happens_again(replace: Replace) -> None:
    """A request is applied as often as it is made, whatever its id."""

    async def applied(_: AgentBody, id_: str) -> None:
        return

    replace(request_id, "applied", applied)


@DOUBLES.breaks(
    caught_by="test_outcome.py::test_an_ordinary_call_is_known_by_the_number_of_its_unit"
)
def numbers_are_not_kept(replace: Replace) -> None:
    """An ordinary call cannot be asked about after a restart."""
    replace(CommittedRanges, "write", lambda *_: None)


_seal = AgentBody.seal


@DOUBLES.swaps(
    AgentBody,
    "seal",
    caught_by="test_write_through.py::test_f15_all_fields_are_kept_however_they_were_changed",
)
def f15_only_what_a_call_changes_is_kept(
    self: AgentBody, envelope: Envelope, payload: bytes
) -> Any:
    """F15: the hook that keeps the state is not wired to ticks and bad ends."""
    if envelope.is_call:
        return _seal(self, envelope, payload)
    self.memory.latest = payload
    staged, self.staged = self.staged, None
    return None, staged
