"""Broken agents: each function breaks one promise, and names the tests that see it.

`_CAUGHT_BY` holds, for each, the file whose tests must turn red while it is in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import outcome

from treewarden.agents import AgentBody, AgentRef, Reply, Request, outbox
from treewarden.agents import body as bodies
from treewarden.agents.envelope import Envelope
from treewarden.agents.mailbox import Mailbox
from treewarden.agents.monitor import Monitor
from treewarden.agents.redaction import Redaction
from treewarden.agents.request import RequestEnvelope
from treewarden.exits import Normal

from .double import Double

if TYPE_CHECKING:
    from treewarden.errors import AgentError

    from .double import Breaks, Replace


def rings_are_not_looked_for(replace: Replace) -> None:
    """Agents with full mailboxes wait for each other for ever."""
    replace(outbox, "closes_a_ring", lambda sender, target: sender is target)
    replace(bodies, "closes_a_ring", lambda sender, target: sender is target)


def every_wait_is_a_ring(replace: Replace) -> None:
    """A line of agents that only wait for the last one loses casts."""
    replace(outbox, "closes_a_ring", lambda sender, target: True)


def suspension_is_only_shown(replace: Replace) -> None:
    """The tree says suspended, and messages are handled all the same."""
    honest = AgentBody.suspend

    def suspend(self: AgentBody) -> None:
        honest(self)
        self._suspended = None

    replace(AgentBody, "suspend", suspend)


def a_replaced_state_waits_its_turn(replace: Replace) -> None:
    """An operator's state goes through the mailbox: a suspended agent never gets it."""
    replace(AgentBody, "order", AgentBody.accept)


def a_wrong_state_is_taken(replace: Replace) -> None:
    """What an operator sends is not checked; the agent crashes on it."""

    def encode_state(self: AgentBody, state: object) -> bytes:
        codec = self._class.codec
        return codec.encode(state, self.node.path) if codec is not None else b"null"

    replace(AgentBody, "encode_state", encode_state)


def a_failing_redactor_shows_everything(replace: Replace) -> None:
    """When `redact` raises, the raw state is shown."""
    honest = Redaction.state

    def state(self: Redaction, payload: bytes, codec: Any, path: str) -> bytes:
        shown = honest(self, payload, codec, path)
        return payload if b"not shown" in shown else shown

    replace(Redaction, "state", state)


def messages_are_not_redacted(replace: Replace) -> None:
    """The message of a crash is kept as it came."""

    def message(_: Redaction, envelope: Envelope) -> bytes:
        return bodies._ENCODE([*envelope.args, envelope.kwargs])

    replace(Redaction, "message", message)


def a_deferred_answer_leaves_at_once(replace: Replace) -> None:
    """`reply.send` does not wait for the commit of the handler that sends it."""

    def send(self: Reply, value: object = None) -> None:
        self._envelope.answer(outcome.Value(value))

    replace(Reply, "send", send)


def owed_answers_are_forgotten(replace: Replace) -> None:
    """A crash or a stop leaves those hanging whose answer was put off."""
    replace(AgentBody, "_fail_owed", lambda self, error: self._owed.clear())


def owed_answers_are_kept_for_ever(replace: Replace) -> None:
    """Answers that nobody waits for any more are never looked for."""

    def account(self: AgentBody, staged: Any) -> None:
        if staged.deferred is not None:
            self._owed[staged.deferred] = None
        for envelope, _ in staged.replies:
            self._owed.pop(envelope, None)

    replace(AgentBody, "_account", account)


def a_continuation_stands_in_line(replace: Replace) -> None:
    """`continue_with` puts its message behind those that wait."""
    replace(Mailbox, "put_first", Mailbox.force)


def a_start_is_continued_twice(replace: Replace) -> None:
    """What an old incarnation's start had before it is left for the next one."""
    replace(Mailbox, "remove", lambda self, envelope: None)


def a_request_is_lost_with_its_reader(replace: Replace) -> None:
    """Giving up waiting for an answer gives up the answer."""
    honest = Request._abort

    def abort(self: Request[Any], raise_cancel: object) -> Any:
        self._read = True
        return honest(self, raise_cancel)

    replace(Request, "_abort", abort)


def an_unread_request_is_withdrawn(replace: Replace) -> None:
    """Only a request that somebody waits for is handled."""
    replace(RequestEnvelope, "is_wanted", property(lambda self: self.task is not None))


def the_line_of_requests_has_no_end(replace: Replace) -> None:
    """Requests stand in line without a bound."""
    replace(AgentBody, "accept_request", AgentBody.accept)


def a_request_to_nobody_raises_at_once(replace: Replace) -> None:
    """What belongs to the wait comes out of the sending."""

    def refused(operation: object, error: AgentError) -> Request[Any]:
        raise error

    replace(Request, "refused", refused)


def stop_returns_too_early(replace: Replace) -> None:
    """`ref.stop` returns once the agent was told, and not when it is gone."""

    async def stop(self: AgentRef[Any], exit_: Any = None) -> None:
        ending = bodies.Ending(exit_ if exit_ is not None else Normal())
        body = self.resolve()
        body.accept(Envelope(bodies.STOP, (ending,), {}))

    replace(AgentRef, "stop", stop)


def all_monitors_but_the_first_are_dropped(replace: Replace) -> None:
    """All monitors of one life but the first are dropped."""
    honest = Monitor.__init__

    def init(self: Monitor, path: str, life: Any, *rest: Any) -> None:
        honest(self, path, life, *rest)
        if life is not None and len(life.watchers) > 1:
            life.watchers.pop()

    replace(Monitor, "__init__", init)


def the_trace_is_without_end(replace: Replace) -> None:
    """Every message that an agent ever handled is remembered."""
    from collections import deque

    replace(bodies, "new_ring", deque)


_CAUGHT_BY: Final[dict[Breaks, str]] = {
    rings_are_not_looked_for: "test_outbox_rings.py",
    every_wait_is_a_ring: "test_outbox_rings.py",
    suspension_is_only_shown: "test_body_operators.py",
    a_replaced_state_waits_its_turn: "test_body_operators.py",
    a_wrong_state_is_taken: "test_body_operators.py",
    a_failing_redactor_shows_everything: "test_body_operators.py",
    messages_are_not_redacted: "test_body_operators.py",
    a_deferred_answer_leaves_at_once: "test_reply.py",
    owed_answers_are_forgotten: "test_reply.py",
    owed_answers_are_kept_for_ever: "test_reply.py",
    a_continuation_stands_in_line: "test_body_continue.py",
    a_start_is_continued_twice: "test_body_continue.py",
    a_request_is_lost_with_its_reader: "test_request.py",
    an_unread_request_is_withdrawn: "test_request.py",
    the_line_of_requests_has_no_end: "test_request.py",
    a_request_to_nobody_raises_at_once: "test_request.py",
    stop_returns_too_early: "test_ref_stop.py",
    all_monitors_but_the_first_are_dropped: "test_ref_messages.py",
    the_trace_is_without_end: "test_body_operators.py",
}

DOUBLES: Final = tuple(
    Double(
        name=breaks.__name__.replace("_", " "),
        breaks=breaks,
        caught_by=("tests/runtime/agents/" + file,),
    )
    for breaks, file in _CAUGHT_BY.items()
)
