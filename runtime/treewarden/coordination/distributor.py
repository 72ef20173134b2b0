"""Tasks for whoever can do them: agents of a registry, by capability and by load.

A task needs capabilities. Of the registered agents that have them all, one is chosen: the
one with the fewest tasks under way and, among equals, the one that has been idle longest
(`least_loaded`), or the one whose turn it is (`round_robin`). The task is done when the
agent has answered. One that crashed over it, is gone, or had no room is passed over, and the
next one is asked; a task that somebody has begun and not answered is never given to another.

When all who could are busy, tasks wait in one line, and each goes to the first agent that is
free and can do it. Nothing here is a task of its own: the submitter's does all the waiting.
It is kept in memory; what waits or is under way is lost with the process.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

import trio

from treewarden.agents import Agent, AgentRef
from treewarden.errors import (
    AgentCrashed,
    AgentDown,
    AgentError,
    MailboxFull,
    NameUnknown,
    NoSuitableAgent,
)
from treewarden.registry import Registered, Updated, Where
from treewarden.resilience import check_count, check_number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from treewarden.agents import Request
    from treewarden.registry import Entry, Registry, Unregistered

A = TypeVar("A", bound=Agent[Any])
P = ParamSpec("P")
R = TypeVar("R")

# S13: a task's time, how often it may be passed on, and how many may wait.
_TASK_SECONDS: Final = 30.0
_RETRIES: Final = 2
_LINE: Final = 1000
# How many tasks one agent may have under way: more would only wait in its mailbox.
_AT_ONCE: Final = 10


class Choice(StrEnum):
    """Who is chosen of several that can do a task."""

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"


class AssignmentKind(StrEnum):
    """What happened to a task."""

    ASSIGNED = "assigned"
    REASSIGNED = "reassigned"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task was given to an agent, given to another one, or rejected (`agent` is "")."""

    kind: AssignmentKind
    task: str
    agent: str
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributorStatistics:
    """Gauges, and counters since the beginning; `loads` are tasks under way, by agent.

    submitted = done + failed + rejected + waiting + under way, at all times; `reassigned`
    are apart.
    """

    waiting: int
    under_way: int
    loads: dict[str, int]
    submitted: int
    done: int
    failed: int
    rejected: int
    reassigned: int


class Loads:
    """How many tasks each agent has under way, and who is next: the rules, without tasks."""

    __slots__ = ("_choice", "_clock", "_last", "_loads", "limit")

    def __init__(self, choice: Choice, limit: int) -> None:
        self.limit = limit
        self._choice = choice
        self._loads: dict[str, int] = {}
        # When each of them was given its last task, in tasks; never: 0.
        self._last: dict[str, int] = {}
        self._clock = count(1)

    def __getitem__(self, path: str) -> int:
        """How many this one has."""
        return self._loads.get(path, 0)

    def loads(self) -> dict[str, int]:
        """Of all who have any."""
        return dict(self._loads)

    def choose(self, paths: Iterable[str]) -> str | None:
        """Who of these is to have the next task; None: all of them are busy."""
        free = [path for path in paths if self[path] < self.limit]
        return min(free, key=self._order, default=None)

    def _order(self, path: str) -> tuple[int, int]:
        load = self[path] if self._choice is Choice.LEAST_LOADED else 0
        return load, self._last.get(path, 0)

    def take(self, path: str) -> None:
        """It has one more."""
        self._loads[path] = self[path] + 1
        self._last[path] = next(self._clock)

    def free(self, path: str) -> None:
        """It has one less."""
        self._loads[path] -= 1
        if not self._loads[path]:
            del self._loads[path]

    def forget(self, path: str) -> None:
        """It is nobody's turn any more that it could be."""
        self._last.pop(path, None)


Happening: TypeAlias = (
    "Registered[AgentRef[Any]] | Updated[AgentRef[Any]] | Unregistered[AgentRef[Any]]"
)
Want: TypeAlias = "frozenset[object]"


class _Task:
    """A task that is looking for an agent."""

    __slots__ = ("capabilities", "given", "name", "ref", "tried")

    def __init__(self, name: str, capabilities: Want) -> None:
        self.name = name
        self.capabilities = capabilities
        self.tried: list[str] = []
        self.ref: AgentRef[Any] | None = None
        self.given = trio.Event()


class TaskDistributor:
    """Gives tasks to the agents of a registry that can do them.

    Agents say what they can in an attribute: `registry.register("w1", self.ref,
    owner=life, attributes={"capabilities": {"render", "gpu"}})`. Declare it
    (`registry.declare("capabilities")`) when there are many. Close it when nobody submits
    any more, or use it as a block.
    """

    def __init__(
        self,
        registry: Registry[AgentRef[Any]],
        *,
        choice: str = Choice.LEAST_LOADED,
        attribute: str = "capabilities",
        limit: int = _AT_ONCE,
        queue: int = _LINE,
        retries: int = _RETRIES,
        timeout: float = _TASK_SECONDS,
        tell: Callable[[Assignment], object] | None = None,
    ) -> None:
        """`limit` tasks an agent, `queue` waiting, `retries` after the first attempt.

        `timeout` is a policy: seconds that a task may take, all its waiting included.
        `tell` hears of every assignment; it must neither block nor raise.

        Raises:
            TypeError, ValueError: a number is no bound, or there is no such choice.
        """
        check_count("limit", limit, 1)
        check_count("queue", queue, 0)
        check_count("retries", retries, 0)
        check_number("timeout", timeout)
        if not timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, not {timeout}")
        self._registry = registry
        self._attribute = attribute
        self._loads = Loads(Choice(choice), limit)
        self._queue = queue
        self._retries = retries
        self._timeout = timeout
        self._tell = tell
        self._waiting: OrderedDict[_Task, None] = OrderedDict()
        self._submitted = self._done = self._failed = self._rejected = 0
        self._reassigned = 0
        self._unlisten = registry.listen(self._happened)

    def __enter__(self) -> TaskDistributor:
        """It listens to the registry already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.close()

    def close(self) -> None:
        """Listen to the registry no more; tasks under way go on."""
        self._unlisten()

    @overload
    async def submit(
        self,
        capabilities: Collection[str],
        operation: Callable[Concatenate[A, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    @overload
    async def submit(
        self,
        capabilities: Collection[str],
        operation: Callable[Concatenate[A, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...

    async def submit(
        self,
        capabilities: Collection[str],
        operation: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Have an agent that can do it do a task; its answer.

        Cancelled before an agent began: it is not done. Later: it may be.

        Raises:
            NoSuitableAgent: its `reason` says whether nobody can, whoever could failed,
                too many tasks wait already, or the time was over.
            TypeError: the capabilities are one text, or not hashable.
            UnknownOperation, BadArguments: the agent that was chosen has no such operation.
            Refused (and what the agent's `refuses` names): the agent's own answer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        name = getattr(operation, "__qualname__", str(operation))
        task = _Task(name, _wanted(capabilities))
        self._submitted += 1
        try:
            return await self._do(task, operation, args, kwargs)
        except BaseException as error:
            if isinstance(error, NoSuitableAgent) and error.reason == "overloaded":
                self._rejected += 1
                self._note(AssignmentKind.REJECTED, task)
            else:
                self._failed += 1
            raise

    async def _do(
        self,
        task: _Task,
        operation: Callable[..., Any],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        deadline = trio.current_time() + self._timeout
        failure: Exception | None = None
        while len(task.tried) <= self._retries:
            ref = await self._find(task, deadline, failure)
            try:
                answer = await self._ask(
                    task,
                    ref.with_timeout(math.inf).request(operation, *args, **kwargs),
                    deadline,
                )
            except (AgentCrashed, AgentDown, MailboxFull, NameUnknown) as error:
                if _about(error) != ref.path:
                    raise  # the agent's own answer, about somebody else
                failure = error
                task.tried.append(ref.path)
            else:
                self._done += 1
                return answer
            finally:
                self._free(ref.path)
        raise NoSuitableAgent(task.name, "all_failed", tuple(task.tried)) from failure

    async def _ask(self, task: _Task, request: Request[Any], deadline: float) -> object:
        answered = False
        begun = True
        try:
            with trio.move_on_at(deadline):
                answer = await request.result()
                answered = True
                return answer
        finally:
            if not answered:
                begun = not request.withdraw()
        raise NoSuitableAgent(task.name, "timeout", tuple(task.tried), begun=begun)

    # --- finding one -----------------------------------------------------------------------

    async def _find(
        self, task: _Task, deadline: float, failure: Exception | None
    ) -> AgentRef[Any]:
        """An agent for the task, with a place taken there."""
        able = self._able(task)
        if not able:
            reason = "all_failed" if task.tried else "no_suitable_agent"
            raise NoSuitableAgent(task.name, reason, tuple(task.tried)) from failure
        path = self._loads.choose(able)
        if path is not None:
            self._give(task, able[path])
        else:
            await self._wait(task, deadline)
        ref, task.ref = task.ref, None
        if ref is None:
            raise NoSuitableAgent(task.name, "timeout", tuple(task.tried)) from failure
        return ref

    def _able(self, task: _Task) -> dict[str, AgentRef[Any]]:
        able = self._able_to(task.capabilities)
        return {path: ref for path, ref in able.items() if path not in task.tried}

    def _able_to(self, wanted: Want) -> dict[str, AgentRef[Any]]:
        where = [Where(self._attribute, "eq", one) for one in wanted]
        found = self._registry.select(*where)
        return {entry.ref.path: entry.ref for entry in found if _is_there(entry.ref)}

    async def _wait(self, task: _Task, deadline: float) -> None:
        if len(self._waiting) >= self._queue:
            raise NoSuitableAgent(task.name, "overloaded", tuple(task.tried))
        task.given = trio.Event()
        self._waiting[task] = None
        try:
            with trio.move_on_at(deadline):
                await task.given.wait()
        except BaseException:
            if task.ref is not None:
                # Given and cancelled in one step: the place is somebody else's.
                self._free(task.ref.path)
            raise
        finally:
            self._waiting.pop(task, None)

    def _give(self, task: _Task, ref: AgentRef[Any]) -> None:
        task.ref = ref
        self._loads.take(ref.path)
        kind = AssignmentKind.REASSIGNED if task.tried else AssignmentKind.ASSIGNED
        self._reassigned += bool(task.tried)
        self._note(kind, task)

    def _free(self, path: str) -> None:
        """A place is free: for the first in line whom this agent can help."""
        self._loads.free(path)
        # The registry is asked once for each sort of task: a thousand may wait, and to ask
        # for each of them would cost 10 ms.
        able: dict[Want, AgentRef[Any] | None] = {}
        for task in self._waiting:
            wanted = task.capabilities
            if wanted not in able:
                able[wanted] = self._able_to(wanted).get(path)
            ref = able[wanted]
            if ref is not None and path not in task.tried:
                self._hand(task, ref)
                return

    def _hand(self, task: _Task, ref: AgentRef[Any]) -> None:
        del self._waiting[task]
        self._give(task, ref)
        task.given.set()

    def _happened(self, happening: Happening) -> None:
        """An agent came, went, or can do other things now."""
        entry = happening.entry
        path = entry.ref.path
        if not isinstance(happening, (Registered, Updated)):
            self._loads.forget(path)
            return
        for task in tuple(self._waiting):
            if self._loads[path] >= self._loads.limit:
                return
            if path not in task.tried and self._can(entry, task.capabilities):
                self._hand(task, entry.ref)

    def _can(self, entry: Entry[Any], wanted: Want) -> bool:
        return all(
            Where(self._attribute, "eq", one).holds(entry.attributes) for one in wanted
        )

    # --- for those who look ----------------------------------------------------------------

    def _note(self, kind: AssignmentKind, task: _Task) -> None:
        if self._tell is not None:
            agent = task.ref.path if task.ref is not None else ""
            waiting = len(self._waiting)
            self._tell(
                Assignment(kind=kind, task=task.name, agent=agent, waiting=waiting)
            )

    def statistics(self) -> DistributorStatistics:
        """What may be seen of it."""
        loads = self._loads.loads()
        return DistributorStatistics(
            waiting=len(self._waiting),
            under_way=sum(loads.values()),
            loads=loads,
            submitted=self._submitted,
            done=self._done,
            failed=self._failed,
            rejected=self._rejected,
            reassigned=self._reassigned,
        )


def _wanted(capabilities: Collection[str]) -> Want:
    if isinstance(capabilities, str):
        raise TypeError(
            f"capabilities must be a collection of them, not {capabilities!r}"
        )
    return frozenset(capabilities)


def _is_there(ref: AgentRef[Any]) -> bool:
    try:
        return not ref.resolve().resting
    except AgentError:
        return False


def _about(error: AgentError) -> str:
    """The path of the agent that an error is about."""
    match error:
        case AgentCrashed(fault=fault):
            return fault.path
        case AgentDown(path=path) | MailboxFull(path=path):
            return path
        case NameUnknown(name=name):
            return name
        case _:
            return ""
