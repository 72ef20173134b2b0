"""Broken agents: requests, replies, rings, monitors, and what operators may do."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec
import outcome

from treewarden.agents import (
    AgentBody,
    AgentRef,
    Reply,
    Request,
    hooks,
    orders,
    outbox,
)
from treewarden.agents import body as bodies
from treewarden.agents.envelope import Envelope
from treewarden.agents.mailbox import Mailbox
from treewarden.agents.monitor import Monitor
from treewarden.agents.operation import Operation
from treewarden.agents.recent import Entry, as_record
from treewarden.agents.redaction import Redaction
from treewarden.agents.request import RequestEnvelope
from treewarden.agents.ties import Ties
from treewarden.exits import Normal, Shutdown

from .double import Area

if TYPE_CHECKING:
    from treewarden.errors import AgentError
    from treewarden.supervision import Life

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/agents")


@DOUBLES.breaks(
    caught_by="test_outbox_rings.py::test_a_ring_of_full_mailboxes_loses_the_cast_that_closes_it"
)
def rings_are_not_looked_for(replace: Replace) -> None:
    """Agents with full mailboxes wait for each other for ever."""
    replace(outbox, "closes_a_ring", lambda sender, target: sender is target)


@DOUBLES.breaks(
    caught_by="test_outbox_rings.py::test_a_line_of_waiting_agents_is_no_ring"
)
def every_wait_is_a_ring(replace: Replace) -> None:
    """A line of agents that only wait for the last one loses casts."""
    replace(outbox, "closes_a_ring", lambda sender, target: True)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_a_suspended_agent_takes_no_message_until_it_is_resumed"
)
def suspension_is_only_shown(replace: Replace) -> None:
    """The tree says suspended, and messages are handled all the same."""
    honest = orders.suspend

    def suspend(body: AgentBody) -> None:
        honest(body)
        body.suspended = None

    replace(orders, "suspend", suspend)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_what_a_handler_brings_up_is_seen_to_before_the_next_message"
)
def nobody_is_called_away(replace: Replace) -> None:
    """All that waited when an agent woke is handled, whatever comes up meanwhile."""
    never = property(lambda self: False, lambda self, value: None)
    replace(AgentBody, "called_away", never)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_the_state_of_a_live_agent_can_be_replaced"
)
def a_replaced_state_waits_its_turn(replace: Replace) -> None:
    """Pitfall 69: an operator's state goes through the mailbox: a suspended agent never gets it."""
    replace(orders, "order", AgentBody.accept)


_STOP: Final = Operation("stop", lambda agent: agent.stop(Shutdown()))


@DOUBLES.swaps(
    AgentBody,
    "ask_to_stop",
    caught_by="test_ref_stop.py::test_a_stop_by_the_supervisor_overtakes_what_waits",
)
def a_stop_waits_its_turn(self: AgentBody, life: Life) -> None:
    """Pitfall 69: a stop goes through the mailbox, and all that waits comes first."""
    life.stopping = False
    self.mailbox.force(Envelope(_STOP, (), {}))
    self.wake()


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_what_is_no_state_is_refused_and_the_agent_lives"
)
def a_wrong_state_is_taken(replace: Replace) -> None:
    """What an operator sends is not checked; the agent crashes on it."""

    def encode_state(body: AgentBody, state: object) -> bytes:
        codec = body.agent_class.codec
        return codec.encode(state, body.node.path) if codec is not None else b"null"

    replace(orders, "encode_state", encode_state)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_a_redactor_that_fails_leaks_nothing_and_hurts_nobody"
)
def a_failing_redactor_shows_everything(replace: Replace) -> None:
    """SYS-07, pitfall 74: when `redact` raises, the raw state is shown."""
    honest = Redaction.state

    def state(self: Redaction, payload: bytes, codec: Any, path: str) -> bytes:
        shown = honest(self, payload, codec, path)
        return payload if b"not shown" in shown else shown

    replace(Redaction, "state", state)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_what_a_class_redacts_is_shown_to_nobody"
)
def messages_are_not_redacted(replace: Replace) -> None:
    """The message of a crash is kept as it came."""

    def message(_: Redaction, envelope: Envelope) -> bytes:
        return msgspec.json.encode([*envelope.args, envelope.kwargs])

    replace(Redaction, "message", message)


@DOUBLES.breaks(
    caught_by="test_reply.py::test_an_answer_leaves_with_the_commit_of_the_handler_that_gave_it"
)
def a_deferred_answer_leaves_at_once(replace: Replace) -> None:
    """`reply.send` does not wait for the commit of the handler that sends it."""

    def send(self: Reply, value: object = None) -> None:
        self._envelope.answer(outcome.Value(value))

    replace(Reply, "send", send)


@DOUBLES.breaks(caught_by="test_reply.py::test_a_crash_answers_what_was_put_off")
def owed_answers_are_forgotten(replace: Replace) -> None:
    """A crash or a stop leaves those hanging whose answer was put off."""
    replace(Ties, "fail_owed", lambda self, error: self.owed.clear())


@DOUBLES.breaks(
    caught_by="test_reply.py::test_answers_that_nobody_wants_any_more_are_not_kept"
)
def owed_answers_are_kept_for_ever(replace: Replace) -> None:
    """Answers that nobody waits for any more are never looked for."""

    def account(self: AgentBody, staged: Any) -> None:
        if staged.deferred is not None:
            self.tied.owed[staged.deferred] = None
        for envelope, _ in staged.replies:
            self.tied.owed.pop(envelope, None)

    replace(AgentBody, "_account", account)


@DOUBLES.breaks(
    caught_by="test_body_continue.py::test_continuations_come_before_what_waits_and_in_order"
)
def a_continuation_stands_in_line(replace: Replace) -> None:
    """`continue_with` puts its message behind those that wait."""
    replace(Mailbox, "put_first", Mailbox.force)


@DOUBLES.breaks(
    caught_by="test_body_continue.py::test_an_unfinished_continuation_of_the_start_is_the_next_ones_own"
)
def a_start_is_continued_twice(replace: Replace) -> None:
    """What an old incarnation's start had before it is left for the next one."""
    replace(Mailbox, "remove", lambda self, envelope: None)


@DOUBLES.breaks(
    caught_by="test_request.py::test_waiting_for_an_answer_can_be_given_up_and_taken_up_again"
)
def a_request_is_lost_with_its_reader(replace: Replace) -> None:
    """Giving up waiting for an answer gives up the answer."""
    honest = Request._abort

    def abort(self: Request[Any], raise_cancel: object) -> Any:
        self._read = True
        return honest(self, raise_cancel)

    replace(Request, "_abort", abort)


@DOUBLES.breaks(
    caught_by="test_request.py::test_a_request_that_is_never_read_takes_effect"
)
def an_unread_request_is_withdrawn(replace: Replace) -> None:
    """Only a request that somebody waits for is handled."""
    replace(RequestEnvelope, "is_wanted", property(lambda self: self.task is not None))


@DOUBLES.breaks(
    caught_by="test_request.py::test_requests_without_room_stand_in_a_line_that_has_an_end"
)
def the_line_of_requests_has_no_end(replace: Replace) -> None:
    """Requests stand in line without a bound."""
    replace(AgentBody, "accept_request", AgentBody.accept)


@DOUBLES.breaks(
    caught_by="test_request.py::test_that_nobody_is_there_comes_out_of_the_wait"
)
def a_request_to_nobody_raises_at_once(replace: Replace) -> None:
    """What belongs to the wait comes out of the sending."""

    def refused(operation: object, error: AgentError) -> Request[Any]:
        raise error

    replace(Request, "refused", refused)


@DOUBLES.breaks(caught_by="test_ref_stop.py::test_stop_returns_after_the_agent_is_gone")
def stop_returns_too_early(replace: Replace) -> None:
    """`ref.stop` returns once the agent was told, and not when it is gone."""

    async def stop(self: AgentRef[Any], exit_: Any = None) -> None:
        ending = orders.Ending(exit_ if exit_ is not None else Normal())
        body = self.resolve()
        body.accept(Envelope(orders.STOP, (ending,), {}))

    replace(AgentRef, "stop", stop)


@DOUBLES.breaks(
    caught_by="test_ref_messages.py::test_each_monitor_tells_once_and_never_of_a_later_life"
)
def all_monitors_but_the_first_are_dropped(replace: Replace) -> None:
    """All monitors of one life but the first are dropped."""
    honest = Monitor.__init__

    def init(self: Monitor, path: str, life: Any, *rest: Any) -> None:
        honest(self, path, life, *rest)
        if life is not None and len(life.watchers) > 1:
            life.watchers.pop()

    replace(Monitor, "__init__", init)


@DOUBLES.breaks(
    caught_by="test_body_operators.py::test_no_more_than_fifty_messages_are_remembered"
)
def the_trace_is_without_end(replace: Replace) -> None:
    """Every message that an agent ever handled is remembered."""
    from collections import deque

    replace(bodies, "new_ring", deque)


@DOUBLES.breaks(
    caught_by="test_hooks.py::test_a_hook_that_is_installed_twice_is_there_once"
)
def a_hook_that_cannot_be_told_from_another(replace: Replace) -> None:
    """Installed twice a hook is told twice, and can never be taken off."""
    honest = hooks.install

    def install(body: AgentBody, hook: hooks.Hook) -> None:
        honest(body, lambda handled: hook(handled))

    replace(hooks, "install", install)


@DOUBLES.breaks(
    caught_by="test_hooks.py::test_all_hooks_are_off_at_once_and_what_was_handled_is_still_known"
)
def hooks_that_are_never_off(replace: Replace) -> None:
    """Once somebody has looked, every message pays for it."""
    replace(hooks, "_fall_silent", lambda body, ring: None)


@DOUBLES.breaks(
    caught_by="test_hooks.py::test_a_hook_that_fails_is_uninstalled_and_hurts_nobody"
)
def a_failing_hook_takes_the_agent_along(replace: Replace) -> None:
    """What a hook raises comes out of the agent's own loop."""

    def append(self: hooks.TellingRing, entry: Entry) -> None:
        super(hooks.TellingRing, self).append(entry)
        for hook in tuple(self.hooks):
            hook(as_record(entry))

    replace(hooks.TellingRing, "append", append)


@DOUBLES.breaks(caught_by="test_hooks.py::test_a_hook_is_no_part_of_a_handler")
def a_hook_that_acts_as_its_agent(replace: Replace) -> None:
    """What a hook stages leaves with the next message."""
    replace(hooks, "current_body", ContextVar("another", default=None))
