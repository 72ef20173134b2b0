"""Broken messages: calls that hang, answers that go astray, refs to the dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import reschedule

from treewarden.agents import Agent, AgentBody, AgentRef
from treewarden.agents import ref as refs
from treewarden.agents.envelope import Envelope
from treewarden.agents.monitor import Down, Monitor
from treewarden.errors import AgentDown, NameUnknown

from .double import Area

if TYPE_CHECKING:
    import outcome

    from treewarden.exits import Fault

    from .double import Replace

DOUBLES: Final = Area("tests/runtime")

_crashed = AgentBody._crashed


@DOUBLES.swaps(
    AgentBody,
    "_crashed",
    caught_by="agents/test_ref.py::test_a_crash_is_told_to_the_caller_and_undone",
)
def a_call_that_dies_with_its_receiver(
    self: AgentBody, envelope: Envelope | None, fault: Fault
) -> None:
    """Pitfall 52: whoever waits for the answer waits on."""
    _crashed(self, None, fault)


_put_back: set[int] = set()


@DOUBLES.swaps(
    AgentBody,
    "_crashed",
    caught_by="supervision/test_with_agents.py::test_a_message_kills_once",
)
def a_message_that_kills_twice(
    self: AgentBody, envelope: Envelope | None, fault: Fault
) -> None:
    """Pitfall 56: what was in hand is put back, whoever's fault the crash was."""
    if envelope is None or id(envelope) in _put_back:
        _crashed(self, envelope, fault)
        return
    _put_back.add(id(envelope))
    self.mailbox.put_back(envelope)
    _crashed(self, None, fault)


_call = AgentRef.call


@DOUBLES.swaps(
    AgentRef,
    "call",
    caught_by="agents/test_ref.py::test_a_call_to_nobody_fails_at_once",
)
async def a_call_to_nobody_that_waits(
    self: AgentRef[Any], operation: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Pitfall 53: as long as somebody might still come."""
    try:
        return await _call(self, operation, *args, **kwargs)
    except (AgentDown, NameUnknown):
        await trio.sleep(5.0)
        raise


@DOUBLES.swaps(
    Envelope,
    "answer",
    caught_by="agents/test_ref_messages.py::test_an_answer_that_comes_too_late_reaches_nobody",
)
def an_answer_to_whatever_comes_next(
    self: Envelope, result: outcome.Outcome[object]
) -> None:
    """Pitfall 54: who was told that it is too late is still taken to wait."""
    self.disarm()
    if self.task is not None:
        reschedule(self.task, result)


class _NobodyKnows:
    """The agent that the running task handles a message for: never one."""

    def get(self) -> None:
        return None


@DOUBLES.breaks(caught_by="agents/test_ref.py::test_a_call_to_oneself_is_refused")
def a_call_to_oneself_hangs(replace: Replace) -> None:
    """Pitfall 55: an agent waits for the end of the handler that waits."""
    replace(refs, "current_body", _NobodyKnows())


_resolve = AgentRef.resolve


@DOUBLES.swaps(
    AgentRef,
    "resolve",
    caught_by="test_runtime.py::test_a_ref_stays_valid_when_its_supervisor_restarts",
)
def a_ref_to_the_dead(self: AgentRef[Any]) -> AgentBody:
    """Pitfalls 58 and 59: looked up once, and then held on to."""
    return self._body if self._body is not None else _resolve(self)


@DOUBLES.swaps(
    AgentRef,
    "resolve",
    caught_by="supervision/test_reconfigure.py::test_an_address_finds_whom_a_changed_child_becomes",
)
def a_ref_to_whom_it_was(self: AgentRef[Any]) -> AgentBody:
    """MGT-17: the node is the same, so surely the agent is."""
    body = self._body
    if body is not None and self._directory.find(self.path) is body.node:
        return body
    return _resolve(self)


_agents: dict[type, Any] = {}


@DOUBLES.breaks(
    caught_by="supervision/test_with_agents.py::test_every_incarnation_is_an_object_of_its_own"
)
def one_object_for_all_incarnations(replace: Replace) -> None:
    """Pitfall 50: started again with the fields that the last one left."""

    def new(cls: type, *_: object, **__: object) -> Any:
        return _agents.setdefault(cls, object.__new__(cls))

    # Nothing of that name is defined on Agent itself, so it cannot be swapped.
    replace(Agent, "__new__", new)


# --- monitors -----------------------------------------------------------------------------

_watch = Monitor.__init__


@DOUBLES.swaps(
    Monitor,
    "__init__",
    caught_by="agents/test_ref.py::test_a_monitor_on_nobody_tells_at_once",
)
def a_monitor_that_comes_too_late(
    self: Monitor, path: str, life: Any, *rest: Any
) -> None:
    """Pitfall 60: nobody is there, so nobody ends."""
    _watch(self, path, life, *rest)
    if life is None and self._untell is not None:
        self._untell()


@DOUBLES.swaps(
    Monitor,
    "__init__",
    caught_by="agents/test_monitor.py::test_a_monitor_that_is_set_in_the_middle_of_an_end_tells_once",
)
def a_monitor_that_comes_just_in_time_twice(
    self: Monitor, path: str, life: Any, *rest: Any
) -> None:
    """Pitfall 60: set while the end is told, it tells of that and of nobody."""
    _watch(self, path, life, *rest)
    if life is not None and life.ended:
        self._notify(Down(path=path, incarnation=life.incarnation, exit=life.exit))


@DOUBLES.swaps(
    Monitor,
    "_ended",
    caught_by="agents/test_monitor.py::test_what_was_answered_before_the_end_is_heard_before_it",
)
def a_notice_that_overtakes_the_answer(self: Monitor, life: Any) -> None:
    """Pitfall 61: the end is told at once, the answer waits for its commit."""
    self._leave(Down(path=self.path, incarnation=life.incarnation, exit=life.exit))


@DOUBLES.swaps(
    Monitor,
    "cancel",
    caught_by="agents/test_agent.py::test_a_watcher_that_ends_leaves_nothing_with_whom_it_watched",
)
def a_monitor_that_is_never_forgotten(self: Monitor) -> None:
    """Pitfall 62: it tells nobody any more, and stays."""
    self._watching.discard(self)


@DOUBLES.swaps(
    AgentRef,
    "call",
    caught_by="agents/test_ref_messages.py::test_a_handler_that_waits_lets_no_message_in",
)
async def a_handler_in_the_middle_of_another(
    self: AgentRef[Any], operation: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Pitfall 67: a plain handler runs at once, whatever the agent is waiting for."""
    body = self.resolve()
    if body.found(operation, args, kwargs).is_async or body.agent is None:
        return await _call(self, operation, *args, **kwargs)
    return operation(body.agent, *args, **kwargs)
