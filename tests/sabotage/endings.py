"""Broken ends: links, notices that outlive who asked for them, crashes that look unlike."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from treewarden.agents import Agent, AgentBody, AgentRef, Monitor, links
from treewarden.agents import body as bodies
from treewarden.agents.mailbox import Mailbox
from treewarden.agents.redaction import Redaction
from treewarden.agents.ties import Ties
from treewarden.errors import AgentCrashed
from treewarden.exits import Crash, Fault
from treewarden.supervision import Life, node

from .double import Area

if TYPE_CHECKING:
    from treewarden.agents import Down
    from treewarden.agents.envelope import Envelope
    from treewarden.exits import Exit
    from treewarden.supervision import Timer

    from .double import Replace

DOUBLES: Final = Area("tests/runtime/agents")

_tell = links._tell


# --- links --------------------------------------------------------------------------------


@DOUBLES.swaps(
    links, "_tell", caught_by="test_links.py::test_a_normal_end_leaves_the_other_alone"
)
def a_link_that_kills_at_every_end(life: Life, gone: Life) -> None:
    """MON-12: who ends normally takes the other along."""
    life.fail(Fault(type="X", message=f"{gone.node.path} has ended"))


@DOUBLES.swaps(
    links, "_tell", caught_by="test_links.py::test_who_traps_exits_is_told_and_lives"
)
def an_exit_that_is_told_to_nobody(life: Life, gone: Life) -> None:
    """MON-13: only crashes are heard of by those who trap exits."""
    if isinstance(gone.exit, Crash):
        _tell(life, gone)


@DOUBLES.swaps(
    links,
    "_between",
    caught_by="test_links.py::test_a_link_is_one_however_often_it_is_made",
)
def a_link_each_time_that_it_is_asked_for(one: Life, other: Life) -> None:
    """MON-12: unlinking undoes one of several."""


@DOUBLES.swaps(
    links.Link,
    "cancel",
    caught_by="test_links.py::test_a_normal_end_leaves_the_other_alone",
)
def a_link_that_stays_with_the_survivor(self: links.Link) -> None:
    """MON-09, MON-12: it ends nobody any more, and is kept."""
    self._lives = {}


@DOUBLES.swaps(
    links,
    "_fault",
    caught_by="test_links.py::test_a_chain_ends_as_a_whole_and_names_the_first",
)
def a_chain_of_faults(life: Life, gone: Life, exit_: Any) -> Fault:
    """MON-12: each names only the one before, in a text that grows along the chain."""
    first = exit_.fault if isinstance(exit_, Crash) else None
    text = f"{gone.node.path} crashed: {first.message if first is not None else ''}"
    return Fault(type=links._BROKEN, message=text, path=life.node.path, cause=first)


def _stop_whoever_it_is(agent: Agent[Any], life: Life, exit_: Any) -> None:
    agent.stop(exit_)


@DOUBLES.breaks(
    caught_by="test_links.py::test_the_end_of_an_old_life_ends_no_later_one"
)
def an_old_link_ends_a_new_life(replace: Replace) -> None:
    """MON-12: what was ordered for the last incarnation is done to this one."""
    replace(links._LEAVE, "function", _stop_whoever_it_is)


_stop = AgentRef.stop


@DOUBLES.swaps(
    AgentRef,
    "stop",
    caught_by="test_ref_stop.py::test_everybody_sees_the_exit_that_was_asked_for",
)
async def a_wish_that_came_true_is_an_error(
    self: AgentRef[Any],
    exit: Exit | None = None,  # noqa: A002 - as AgentRef.stop
) -> None:
    """END-02: that it crashed is told also to him who asked for that."""
    await _stop(self, exit)
    if isinstance(exit, Crash):
        raise AgentCrashed(exit.fault)


# --- notices and timers -------------------------------------------------------------------


@DOUBLES.swaps(
    AgentBody,
    "take_back",
    caught_by=(
        "test_monitor.py::test_a_notice_that_waits_is_taken_back_with_its_monitor",
        "test_monitor.py::test_a_notice_is_for_the_incarnation_that_watched",
    ),
)
def a_notice_that_comes_after_all(self: AgentBody, envelope: Envelope) -> None:
    """MON-04, MON-09: what waits already is handled, whoever asked for it."""


@DOUBLES.swaps(
    Ties,
    "bind",
    caught_by="test_unasked.py::test_a_timer_goes_with_its_incarnation",
)
def a_timer_that_outlives_its_incarnation(self: Ties, envelope: Envelope) -> None:
    """MON-14: each crash leaves one more ticking."""


@DOUBLES.swaps(
    Mailbox,
    "move_up",
    caught_by="test_unasked.py::test_who_waits_for_room_moves_up_when_a_notice_is_taken_back",
)
def nobody_moves_up(self: Mailbox) -> None:
    """What goes out of its turn leaves its room to nobody."""


@DOUBLES.swaps(
    Ties,
    "when_idle",
    caught_by="test_unasked.py::test_a_message_calls_off_what_waits_for_silence",
)
def silence_that_a_message_does_not_break(self: Ties, *what: Any) -> Timer:
    """MSG-22: an idle timeout that is a timer like any other."""
    return self.send_after(*what)


@DOUBLES.swaps(
    Monitor,
    "__exit__",
    caught_by="test_monitor.py::test_leaving_the_block_ends_the_watch",
)
def a_watch_that_outlives_its_block(self: Monitor, *_: object) -> None:
    """MON-11: a task that has gone on is watched for still."""


@DOUBLES.swaps(
    Agent,
    "on_down",
    caught_by="test_unasked.py::test_a_notice_that_nobody_hears_is_logged_and_harms_nobody",
)
async def a_notice_that_nobody_notices(self: Agent[Any], down: Down) -> None:
    """MSG-18: a class that forgot its on_down is not told so."""
    logging.getLogger("treewarden.agent").debug("%s", down)


# --- crashes that look unlike -------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_endings.py::test_what_a_handler_raises_by_hand_is_its_crash"
)
def only_an_exception_is_a_crash(replace: Replace) -> None:
    """END-15: what looks like a cancellation is taken for one."""
    for owner in (bodies, node):
        replace(owner, "raised_by_itself", lambda error: isinstance(error, Exception))


@DOUBLES.swaps(
    bodies,
    "keep_crash",
    caught_by="test_endings.py::test_a_failed_goodbye_is_kept_with_the_state_and_the_last_message",
)
def a_failed_goodbye_that_is_forgotten(body: AgentBody, *_: object) -> None:
    """END-08, MSG-11: the exit is all that is known of it."""


@DOUBLES.swaps(
    Redaction,
    "fault",
    caught_by="test_body_operators.py::test_the_text_of_an_error_is_redacted_wherever_it_goes",
)
def an_error_that_says_too_much(self: Redaction, fault: Fault) -> Fault:
    """SYS-07: what its class hides of an error is told to everybody."""
    return fault
