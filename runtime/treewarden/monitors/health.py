"""Health checks: who is well, who is not, and who cannot be asked.

Every subject is checked in a task of its own, below `/system/monitors/tasks`, at most 20 at
the same time and each within its deadline: what one probe does (hang, raise, lie) is seen in
its own subject's status and nowhere else. One that does not even obey its cancellation
cannot be stopped: its subject is unresponsive all the same, and its place is given to the
next one. `chart` decides what an answer means and when to look again. A subject that is a
node of the tree is dead when the node is: that is seen at once, without asking its probe.

Nothing is decided while the runtime stops: a node that ends then has not died.
"""

from __future__ import annotations

import math
import reprlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import trio

from treewarden.agents import AgentBody, AgentRef
from treewarden.clock import wall_ns
from treewarden.errors import NameUnknown
from treewarden.exits import Fault
from treewarden.supervision import Kind, NodeState

from .chart import Chart, HealthStatus, Reading

if TYPE_CHECKING:
    from treewarden.registry import Registry
    from treewarden.supervision import Directory, Life, Node

    from .crew import Crew, Errand

Probe: TypeAlias = Callable[[], Awaitable[Reading]]
# An answer, or why there is none.
Finding: TypeAlias = Reading | str

_INTERVAL: Final = 30.0
_DEADLINE: Final = 5.0
_AT_ONCE: Final = 20
_SUBJECTS: Final = 10_000
# Seconds for which a probe that was cancelled may clean up.
_GRACE: Final = 1.0
# The dead are kept so that somebody can see them: so many, for so many seconds.
_DEAD: Final = 1000
_DEAD_SECONDS: Final = 3600.0

_OF_STATE: Final = {
    NodeState.RUNNING: HealthStatus.HEALTHY,
    NodeState.SUSPENDED: HealthStatus.DEGRADED,
    NodeState.STARTING: HealthStatus.DEGRADED,
    NodeState.STOPPING: HealthStatus.DEGRADED,
    NodeState.RESTARTING: HealthStatus.UNHEALTHY,
    NodeState.STUCK: HealthStatus.UNRESPONSIVE,
    NodeState.STOPPED: HealthStatus.DEAD,
    NodeState.FAILED: HealthStatus.DEAD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What one check found; `old` is the status before it, and `new` None: it is over.

    (Nobody checks the subject any more, or it was dead for too long.) `is_news`: the status
    is another one than before, or the check has begun to fail.
    """

    subject: str
    old: HealthStatus
    new: HealthStatus | None
    reason: str
    at_ns: int
    is_news: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectHealth:
    """A subject at its last check; `seconds` since the status is this one.

    `checks` is how often it was asked: `failures` of these raised, `late` ones did not
    answer in time. `next_in` is 0.0 when it is being asked or in line for it.
    """

    subject: str
    status: HealthStatus
    reason: str
    seconds: float
    since_ns: int
    checks: int
    failures: int
    late: int
    next_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStatistics:
    """All subjects by name; `checking` are being asked, `in_line` wait for a place.

    `stuck` probes were cancelled, do not obey, and are waited for by nobody.
    """

    subjects: tuple[SubjectHealth, ...]
    checking: int
    in_line: int
    stuck: int
    forgotten: int


class _Subject:
    __slots__ = ("begun", "chart", "checked", "deadline", "errand", "finished", "given_up",
                 "gone", "life", "name", "poked", "probe", "progress", "since_ns")  # fmt: skip

    def __init__(
        self, name: str, probe: Probe | None, deadline: float, chart: Chart
    ) -> None:
        self.name = name
        self.probe = probe
        self.deadline = deadline
        self.chart = chart
        self.since_ns = wall_ns()
        self.errand: Errand | None = None
        # The incarnation whose end is waited for, and what it was busy with since when.
        self.life: Life | None = None
        self.progress: tuple[object, float] = (None, math.inf)
        self.begun = self.finished = 0
        self.poked = trio.Event()
        self.checked = trio.Event()
        # Its probe goes on, but nobody waits for it.
        self.given_up = False
        self.gone = False

    def life_ended(self, _: Life) -> None:
        """Look again."""
        self.poked.set()


class Health:
    """The health checks of a runtime; `runtime.health`."""

    def __init__(
        self,
        crew: Crew,
        directory: Directory,
        *,
        registry: Registry[Any] | None = None,
        told: Callable[[HealthCheck], None] = lambda _: None,
        at_once: int = _AT_ONCE,
    ) -> None:
        """`told` is called after each check; it must not raise."""
        self._crew = crew
        self._directory = directory
        self._registry = registry
        self._told = told
        self._places = trio.CapacityLimiter(at_once)
        # Who is being asked, and when that is to be given up; who was, and goes on.
        self._asked: dict[_Subject, float] = {}
        self._stuck: set[_Subject] = set()
        self._begun = trio.Event()
        self._subjects: dict[str, _Subject] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._forgotten = 0

    def watch(
        self,
        subject: str | AgentRef[Any],
        probe: Probe | None = None,
        *,
        interval: float = _INTERVAL,
        deadline: float = _DEADLINE,
    ) -> None:
        """Check a subject now and every `interval` seconds; one of that name is replaced.

        A subject is a node (an agent's ref, or a path) or any other name. `probe` may be
        left out for a node: then its state is the answer, and an agent that is busy with
        one message for longer than `deadline` while others wait is unresponsive. A probe
        runs in a task of its own, apart from the agent's messages.

        A node that is away is dead, and forgotten after an hour; if it comes back before,
        it is checked again.

        Raises:
            ValueError: no probe for what is no node, no number of seconds above 0, or too
                many subjects.
        """
        name = subject.path if isinstance(subject, AgentRef) else subject
        if probe is None and not name.startswith("/"):
            raise ValueError(f"{name!r} is no path of a node, so it needs a probe")
        if not (0 < interval < math.inf and 0 < deadline < math.inf):
            raise ValueError(
                f"interval and deadline must be > 0 s, not {interval} and {deadline}"
            )
        known = self._subjects.get(name)
        if known is not None:
            self._replace(known, probe, interval, deadline)
            return
        if len(self._subjects) >= _SUBJECTS:
            raise ValueError(
                f"there are {_SUBJECTS} subjects, and {name!r} is too many"
            )
        made = _Subject(name, probe, deadline, Chart(interval, trio.current_time()))
        self._subjects[name] = made

        async def run() -> None:
            await self._run(made)

        made.errand = self._crew.want(name, run)

    def _replace(
        self, known: _Subject, probe: Probe | None, interval: float, deadline: float
    ) -> None:
        # The task, what is known and since when stay: it is the same subject.
        known.probe, known.deadline = probe, deadline
        known.chart.interval = interval
        known.poked.set()

    def unwatch(self, subject: str | AgentRef[Any]) -> bool:
        """Check it no more; whether it was."""
        name = subject.path if isinstance(subject, AgentRef) else subject
        known = self._subjects.get(name)
        if known is not None:
            self._forget(known)
        return known is not None

    async def force(self, subject: str | AgentRef[Any]) -> Reading:
        """Check it now, and wait for the finding of a check that began after this.

        Raises:
            NameUnknown: it is not watched, or not any more.
        """
        await trio.lowlevel.checkpoint()
        one = self._find(subject)
        before = one.begun
        one.poked.set()
        while one.finished <= before and not one.gone:
            await one.checked.wait()
        if one.gone:
            raise NameUnknown(one.name, f"{one.name!r} is not watched any more")
        return Reading(status=one.chart.status, reason=one.chart.reason)

    def subject(self, subject: str | AgentRef[Any]) -> SubjectHealth:
        """What is known of one; never waits.

        Raises:
            NameUnknown: it is not watched.
        """
        return _seen(self._find(subject), trio.current_time())

    def _find(self, subject: str | AgentRef[Any]) -> _Subject:
        name = subject.path if isinstance(subject, AgentRef) else subject
        if name not in self._subjects:
            raise NameUnknown(name, f"{name!r} is not watched")
        return self._subjects[name]

    # --- checking ----------------------------------------------------------------------------

    async def _run(self, one: _Subject) -> None:
        while not one.gone:
            one.poked = trio.Event()
            await self._check(one)
            with trio.move_on_at(one.chart.due):
                await one.poked.wait()

    async def _check(self, one: _Subject) -> None:
        # Not this task's: it may be given back while the probe goes on.
        await self._places.acquire_on_behalf_of(one)
        try:
            one.begun += 1
            if self._is_stopping():
                await trio.sleep_forever()
            self._asked[one] = trio.current_time() + one.deadline + _GRACE
            self._begun.set()
            finding: Finding | None = None
            with trio.move_on_after(one.deadline):
                finding = await self._ask(one)
            if one in self._asked:
                self._conclude(one, finding)
        finally:
            self._stuck.discard(one)
            self._asked.pop(one, None)
            if not one.given_up:
                self._places.release_on_behalf_of(one)
            one.given_up = False

    async def _ask(self, one: _Subject) -> Finding:
        try:
            reading = await self._reading(one)
        except Exception as error:  # noqa: BLE001 - a probe is somebody's code, and fails alone
            return Fault.capture(error).summary()
        if isinstance(reading, Reading):
            return reading
        return f"it answered with {reprlib.repr(reading)}"

    async def run(self) -> None:
        """Give up checks that go on beyond their deadline, for ever."""
        while True:
            self._begun = trio.Event()
            for one, until in tuple(self._asked.items()):
                if trio.current_time() >= until:
                    self._give_up(one)
            with trio.move_on_at(min(self._asked.values(), default=math.inf)):
                await self._begun.wait()

    def _give_up(self, one: _Subject) -> None:
        del self._asked[one]
        self._places.release_on_behalf_of(one)
        self._stuck.add(one)
        one.given_up = True
        if not one.gone and not self._is_stopping():
            self._conclude(one, None)

    async def _reading(self, one: _Subject) -> Reading:
        if one.name.startswith("/"):
            node = self._directory.find(one.name)
            self._await_end(one, node)
            found = self._reading_of(one, node)
            if one.probe is None or found.status is HealthStatus.DEAD:
                await trio.lowlevel.checkpoint()
                return found
        assert one.probe is not None  # noqa: S101 - `watch` asks for one
        return await one.probe()

    def _reading_of(self, one: _Subject, node: Node | None) -> Reading:
        if node is None:
            return Reading(status=HealthStatus.DEAD, reason="there is no such node")
        status = _OF_STATE[node.state]
        if status is HealthStatus.HEALTHY and node.body.kind is Kind.AGENT:
            return self._reading_of_agent(one, cast("AgentBody", node.body))
        reason = "" if status is HealthStatus.HEALTHY else node.state.value
        return Reading(status=status, reason=reason)

    def _reading_of_agent(self, one: _Subject, body: AgentBody) -> Reading:
        seen, now = body.statistics(), trio.current_time()
        ended = seen.handled + seen.crashed + seen.refused
        progress = seen.incarnation, ended, seen.doing
        if progress != one.progress[0] or body.in_hand is None:
            one.progress = progress, now
        busy = now - one.progress[1]
        if seen.mailbox and busy > one.deadline:
            reason = f"busy with one message for {busy:.0f} s: {seen.doing}"
            return Reading(status=HealthStatus.UNRESPONSIVE, reason=reason)
        return Reading()

    def _await_end(self, one: _Subject, node: Node | None) -> None:
        """Look again at once when the incarnation that is there now ends."""
        life = node.life if node is not None else None
        if life is one.life:
            return
        self._let_go(one)
        one.life = life
        if life is not None:
            life.watchers.append(one.life_ended)

    def _let_go(self, one: _Subject) -> None:
        if one.life is not None and one.life_ended in one.life.watchers:
            one.life.watchers.remove(one.life_ended)
        one.life = None

    def _is_stopping(self) -> bool:
        root = self._directory.root
        return root is None or root.life is None or root.life.stopping

    # --- what follows from a check -----------------------------------------------------------

    def _conclude(self, one: _Subject, finding: Finding | None) -> None:
        """What was found; None: there was no answer in time."""
        chart, now = one.chart, trio.current_time()
        old = chart.status
        if finding is None:
            chart.missed(one.deadline, now)
        elif isinstance(finding, Reading):
            chart.answered(finding, now)
        else:
            chart.failed(finding, now)
        if chart.status is not old:
            one.since_ns = wall_ns()
        if not one.gone:
            self._write(one)
            self._told(_check_of(one, old))
            self._bury(one)
        one.finished = one.begun
        one.checked.set()
        one.checked = trio.Event()

    def _write(self, one: _Subject) -> None:
        """Enter the status where the registry has the node, if it says another one."""
        if self._registry is None or one.life is None or one.life.ended:
            return
        for key in self._registry.keys(one.life):
            for entry in self._registry.lookup(key):
                if entry.attributes.get("health_status") != one.chart.status.value:
                    attributes = {
                        **entry.attributes,
                        "health_status": one.chart.status.value,
                    }
                    self._registry.put_attributes(key, attributes, owner=one.life)

    def _bury(self, one: _Subject) -> None:
        """Keep the dead for a while, and not too many of them."""
        if one.chart.status is not HealthStatus.DEAD:
            self._dead.pop(one.name, None)
            return
        self._dead.setdefault(one.name)
        if trio.current_time() - one.chart.since >= _DEAD_SECONDS:
            self._forget(one)
        while len(self._dead) > _DEAD:
            self._forget(self._subjects[next(iter(self._dead))])

    def _forget(self, one: _Subject) -> None:
        del self._subjects[one.name]
        self._dead.pop(one.name, None)
        self._let_go(one)
        one.gone = True
        one.checked.set()
        self._forgotten += 1
        if one.errand is not None:
            self._crew.dismiss(one.errand)
        self._told(_end_of(one))

    def statistics(self) -> HealthStatistics:
        """Every subject at its last check."""
        now = trio.current_time()
        places = self._places.statistics()
        return HealthStatistics(
            subjects=tuple(
                _seen(one, now) for _, one in sorted(self._subjects.items())
            ),
            checking=places.borrowed_tokens,
            in_line=places.tasks_waiting,
            stuck=len(self._stuck),
            forgotten=self._forgotten,
        )


def _check_of(one: _Subject, old: HealthStatus) -> HealthCheck:
    chart = one.chart
    return HealthCheck(
        subject=one.name,
        old=old,
        new=chart.status,
        reason=chart.reason,
        at_ns=wall_ns(),
        is_news=chart.status is not old or chart.failures_in_a_row == 1,
    )


def _end_of(one: _Subject) -> HealthCheck:
    return HealthCheck(
        subject=one.name,
        old=one.chart.status,
        new=None,
        reason="not watched any more",
        at_ns=wall_ns(),
        is_news=True,
    )


def _seen(one: _Subject, now: float) -> SubjectHealth:
    chart = one.chart
    return SubjectHealth(
        subject=one.name,
        status=chart.status,
        reason=chart.reason,
        seconds=now - chart.since,
        since_ns=one.since_ns,
        checks=chart.checks,
        failures=chart.failures,
        late=chart.late,
        next_in=max(0.0, chart.due - now),
    )
