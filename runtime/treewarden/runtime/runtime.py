"""The runtime itself: what it is made of, its tree, and what its users ask of it."""

from __future__ import annotations

import importlib.metadata
import math
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

import trio

from treewarden.agents import (
    Agent,
    AgentBody,
    AgentRef,
    DeadLetters,
    Monitor,
    Participants,
    Surroundings,
    Transaction,
    current_body,
    open_transaction,
)
from treewarden.bus import Bus, StoreJournal
from treewarden.control import ControlServer, Desk, Vitals, socket_path
from treewarden.control.protocol import Rights, RuntimeRow
from treewarden.coordination import Barriers, Elections, Exchange, Locks, Quorums
from treewarden.errors import NameUnknown, NotRunning
from treewarden.gateways import Http, Programs
from treewarden.injection import Injections
from treewarden.monitors import Alarms, Health, Monitors, Performance, Resources
from treewarden.registry import Registry
from treewarden.resilience import (
    Cache,
    Circuits,
    Limits,
    Policies,
    circuit_is_over,
    limiter_is_over,
)
from treewarden.store import Level, Retention, Store, open_store
from treewarden.supervision import (
    Application,
    ChildInfo,
    ChildSpec,
    Directory,
    DynamicSupervisorSpec,
    Intensity,
    Kind,
    SupervisorRef,
    SupervisorSpec,
    TreeSnapshot,
    Watchdog,
    as_supervisor,
)
from treewarden.telemetry import Telemetry, export
from treewarden.work import Pools, SerialOperation, SerialOutcome, execute_serially
from treewarden.workflows import Workflows

from .breakable import Breakable, cancel_child
from .metrics import measure
from .news import News
from .policy_rows import PolicyRows
from .remembered import RememberedChildren

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import FrameType
    from typing import TypeAlias

    from treewarden.config import Config

    _Heed: TypeAlias = Callable[[int, FrameType | None], object] | int | None

A = TypeVar("A", bound=Agent[Any])

# How often the loop's lateness is measured: 4 wake-ups a second, under 0.1 % of a core.
_BEAT = 0.25
# What ends a process in order when nobody is in a hurry.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# Signals within so many seconds are one: some send each to a process and to its group.
_MOMENT: Final = 0.25
# Circuits' transitions that wait for the bus's turn; older ones are dropped.
_TRANSITIONS = 1000


class Runtime:
    """A running application and the system under it; made by `open_runtime`.

    `current_runtime()` is the one around a task of it, and `self.runtime` an agent's.

    Attributes:
        name: What it is called on this machine.
        app, config: What it was made of.
        registry: Agents by unique keys and by attributes.
        pools: Where work is done that is no agent's, so much at a time.
        workflows: Durable workflows, and sagas.
        http, programs: What is asked, and run, outside of this process.
        circuits, limits, cache, policies: What stands around calls that may fail.
        exchange: Messages to agents that may be down, delivered later.
        locks, elections, barriers, quorums: How agents come to terms.
        injections: Where it can be broken on purpose.
    """

    def __init__(self, app: Application, config: Config) -> None:
        self.app = app
        self.config = config
        self.name = config.name or app.name
        self.directory = Directory()
        self.telemetry = Telemetry()
        self.vitals = Vitals()
        self.surroundings = Surroundings(telemetry=self.telemetry, runtime=self)
        self.news = News(self.surroundings, self.telemetry, self.vitals)
        self.surroundings.dead_letter = self.news.message_lost
        self._kept_circuits = self._policy_rows("circuit", circuit_is_over)
        self.circuits = Circuits(
            clock=trio.current_time,
            on_transition=self.news.circuit_moved,
            memory=self._kept_circuits,
            spans=self.telemetry.spans,
        )
        self.policies = Policies()
        self._kept_limits = self._policy_rows("limiter", limiter_is_over)
        self.limits = Limits(memory=self._kept_limits)
        self.cache: Cache[Hashable, Any] = Cache(
            name="runtime", on_unavailable=self.news.cache_missed
        )
        self.injections = Injections(
            self._breakable,
            self.news.crash_injected,
            record=self.record,
            cancel=cancel_child,
            later=self._later,
        )
        self.registry: Registry[AgentRef[Any]] = Registry()
        self.pools = Pools(self.directory, "/system/pools")
        self.exchange = Exchange(self.directory, "/system/exchange")
        self.programs = Programs(telemetry=self.telemetry)
        self.http = Http(
            self.directory,
            "/system/http",
            circuits=self.circuits,
            limits=self.limits,
            policies=self.policies,
            telemetry=self.telemetry,
        )
        self.locks = Locks()
        self.barriers = Barriers()
        self.elections = Elections()
        self.quorums = Quorums()
        self.monitors = Monitors(
            self.directory,
            "/system/monitors",
            registry=self.registry,
            record=self.news.of_monitors,
            signal=self.news.signal,
            lag=lambda: self.vitals.loop_lag,
            disk=lambda: self.store_file,
        )
        self.dead_letters = DeadLetters(
            lambda: self.store, self.directory, lambda: self.surroundings.bus
        )
        self.participants = Participants(lambda: self.store, self.news.of_a_transaction)
        self.workflows = Workflows(
            self.directory,
            "/workflows",
            store=lambda: self.store,
            open_transaction=self.transaction,
            tell=self.news.of_a_workflow,
        )
        self.directory.services = self.surroundings
        self.directory.transparent = frozenset({"/", "/application", "/system/edge"})
        self.directory.yielding = ("/system/", "/workflows/")
        self.directory.memory = RememberedChildren(lambda: self.store)
        self.directory.reporter = self.news.report
        self.control: ControlServer | None = None
        self.store_file: Path | None = None
        self.stop_scope = trio.CancelScope()
        self.takes_signals = False
        self.signals: list[int] = []
        self._times_signalled = 0
        self._signalled_at = -math.inf
        self._on_watch: Watchdog | None = None
        self._had_console_at: float | None = None
        self._vanished = 0

    # --- for users ---------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            NotRunning: it is down at this moment.
        """
        if self.surroundings.store is None:
            raise NotRunning("the store is not running")
        return self.surroundings.store

    @property
    def bus(self) -> Bus:
        """The bus.

        Raises:
            NotRunning: it is down at this moment.
        """
        if self.surroundings.bus is None:
            raise NotRunning("the bus is not running")
        return self.surroundings.bus

    @property
    def health(self) -> Health:
        """Checks of agents, and of whatever else can be asked."""
        return self.monitors.health

    @property
    def resources(self) -> Resources:
        """Gauges with limits, and tokens for what takes from them."""
        return self.monitors.resources

    @property
    def performance(self) -> Performance:
        """How long operations take."""
        return self.monitors.performance

    @property
    def alarms(self) -> Alarms:
        """What is wrong now."""
        return self.monitors.alarms

    @overload
    def ref(self, name: str | ChildInfo, agent_type: type[A]) -> AgentRef[A]: ...

    @overload
    def ref(self, name: str | ChildInfo, agent_type: None = None) -> AgentRef[Any]: ...

    def ref(
        self, name: str | ChildInfo, agent_type: type[A] | None = None
    ) -> AgentRef[Any]:
        """The address of an agent: by path, by an id that only one node has, by info.

        Raises:
            NameUnknown, NameAmbiguous: there is none, or several.
            TypeError: it is another type of agent.
        """
        path = name.path if isinstance(name, ChildInfo) else name
        node = self.directory.resolve(path)
        if node.body.kind is not Kind.AGENT:
            raise NameUnknown(
                path, f"{node.path} is no agent: its kind is {node.body.kind}"
            )
        found = cast("AgentBody", node.body).agent_type
        if agent_type is not None and not issubclass(found, agent_type):
            raise TypeError(
                f"{node.path} is a {found.__qualname__}, not a {agent_type.__qualname__}"
            )
        return AgentRef(self.directory, node.path)

    def supervisor(self, path: str) -> SupervisorRef:
        """The address of a supervisor, by path or unique id.

        Raises:
            NameUnknown, NameAmbiguous: there is none, or several.
        """
        node = self.directory.resolve(path)
        if as_supervisor(node) is None:
            raise NameUnknown(
                path, f"{node.path} is no supervisor: its kind is {node.body.kind}"
            )
        return SupervisorRef(self.directory, node.path)

    def monitor(self, name: str | ChildInfo) -> Monitor:
        """Watch the present incarnation of any node, from a plain task.

            with runtime.monitor("/pollers/p-3") as monitor:
                down = await monitor.wait_down()

        As `AgentRef.monitor` does; of children that are no agents, too. With nobody of
        this path or id it tells so at once, with the exit None.

        Raises:
            NameAmbiguous: several nodes have this id.
        """
        path = name.path if isinstance(name, ChildInfo) else name
        with suppress(NameUnknown):
            path = self.directory.resolve(path).path
        return AgentRef[Agent[Any]](self.directory, path).monitor()

    def transaction(
        self, *agents: AgentRef[Any], timeout: float = 5.0
    ) -> AbstractAsyncContextManager[Transaction]:
        """All or nothing for several agents of this runtime, isolated and durable.

            async with runtime.transaction(alice, bob) as tx:
                await tx.call(alice, Account.withdraw, 10)
                await tx.call(bob, Account.deposit, 10)

        State, collections, events and casts of the agents are committed together or not
        at all. Leaving the block returns once they are; what is read inside is
        unconfirmed until then. It may take `timeout` seconds from entering to leaving
        (the commit apart); the agents handle nothing else meanwhile. What the block does
        besides `tx.call` is no part of it. An error in it undoes everything, and so does
        its cancellation; cancelled while it is committed, it stands.

        Raises:
            What comes out of the block, and of a handler in it: nothing was changed.
            TransactionTimeout: an agent was busy, or the block took too long.
            TransactionConflict: an agent ended meanwhile, or an outside one voted no.
            TransactionMisuse: yours to mend.
            AgentDown, NameUnknown, MailboxFull: an agent is not to be had.
            StoreBroken: the commit failed; nothing was changed.
        """
        return open_transaction(
            agents,
            timeout,
            directory=self.directory,
            surroundings=self.surroundings,
            participants=self.participants,
        )

    async def execute_serial_operations(
        self, operations: Iterable[SerialOperation]
    ) -> SerialOutcome:
        """Run operations one at a time, in order; nothing is rolled back.

        Each is a function without arguments, async or plain, that does something and
        returns what would undo it (a function of the same kind) or None. The first that
        raises ends the row, and what was done before it stays done: the outcome says
        where it stopped and why, and has the inverses, newest first, for whoever wants to
        run them. Look at it: dropped unread it warns. Cancelled, what was done stays done
        too, and nobody gets the inverses.

        For all or nothing use `transaction`, or `Registry.apply`.
        """
        return await execute_serially(operations)

    def tree(self) -> TreeSnapshot:
        """The whole tree at this moment."""
        return self.directory.snapshot(trio.current_time())

    def stop(self) -> None:
        """Stop the runtime: leave the `open_runtime` block, or `run`, in order."""
        self.stop_scope.cancel()
        root = self.directory.root
        if root is not None and root.life is not None and not root.life.ready:
            root.body.ask_to_stop(root.life)

    def row(self) -> RuntimeRow:
        """Who this is, for those who attach."""
        store = self.surroundings.store
        return RuntimeRow(
            name=self.name,
            pid=os.getpid(),
            boot=store.boot if store is not None else "",
            version=version(),
            started_at_ns=self.vitals.started_at_ns,
            level=self.config.level,
            store=str(self.store_file) if self.store_file is not None else None,
            rights=Rights(self.config.rights),
        )

    def record(
        self, topic: str, payload: dict[str, Any], *, source: str = "", trace: str = ""
    ) -> None:
        """Put a report into the journal; never waits, never fails."""
        self.news.record(topic, payload, source=source, trace=trace)

    # --- the trees ---------------------------------------------------------------------------

    def root_spec(self) -> SupervisorSpec:
        """The system first, then the application, then what works with both."""
        return SupervisorSpec(
            [
                ChildSpec("system", self._system()),
                ChildSpec("application", self.app.supervisor()),
                # Their steps call the application's agents: stopped before these.
                ChildSpec("workflows", self.workflows.supervisor()),
            ],
            strategy="rest_for_one",
            intensity=Intensity(3, 5.0),
        )

    def _system(self) -> SupervisorSpec:
        children = [ChildSpec("signals", self._signals)] if self.takes_signals else []
        children += [
            ChildSpec("store", self._store_part, shutdown=30.0, start_timeout=60.0),
            ChildSpec("bus", self._bus_part),
            ChildSpec("edge", self._edge()),
        ]
        # Agents hold on to the store and the bus: when one of these fails, it is not
        # restarted under them. /system gives up, and the root starts it and the
        # application again, in order.
        return SupervisorSpec(
            children, strategy="rest_for_one", intensity=Intensity(0, 5.0)
        )

    def _edge(self) -> SupervisorSpec:
        """Parts that nobody stands on; each is restarted alone."""
        children = [
            ChildSpec("pools", DynamicSupervisorSpec()),
            ChildSpec("transactions", self.participants.run),
            ChildSpec("circuits", self._circuits_part),
            ChildSpec("limits", self.limits.run),
            ChildSpec("cache", self.cache.run),
            ChildSpec("exchange", Exchange),
            ChildSpec("monitors", self.monitors.spec()),
            ChildSpec("programs", self.programs.serve),
            ChildSpec("http", DynamicSupervisorSpec()),
            ChildSpec("telemetry", self._telemetry_part, shutdown=4.0),
            ChildSpec("heartbeat", self._heartbeat),
            ChildSpec("watchdog", self._watchdog),
        ]
        if self.config.socket is not False:
            children.append(ChildSpec("control", self._control_part))
        return SupervisorSpec(children, intensity=Intensity(3, 5.0))

    async def _signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Started first and stopped last, so that a second signal still counts.

        That one kills this task too: from then on the process listens by itself.
        """
        try:
            with trio.open_signal_receiver(*STOP_SIGNALS) as received:
                for one in STOP_SIGNALS:
                    signal.signal(one, self._counting(signal.getsignal(one)))
                task_status.started()
                async for number in received:
                    self.signals.append(number)
                    if len(self.signals) == 1:
                        self.stop()
                    elif len(self.signals) == 2:
                        self.directory.hurry()
                    else:
                        self._end_at_once(number)
        finally:
            if len(self.signals) > 1:
                for one in STOP_SIGNALS:
                    signal.signal(one, self._end_at_once)

    def _counting(self, heed: _Heed) -> Callable[[int, FrameType | None], None]:
        """`heed`, unless it is the third time: a loop that is blocked hears of none."""

        def heard(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            if now - self._signalled_at > _MOMENT:
                self._signalled_at = now
                self._times_signalled += 1
            if self._times_signalled > 2:
                self._end_at_once(number)
            if callable(heed):
                heed(number, frame)

        return heard

    def _end_at_once(self, number: int, _: FrameType | None = None) -> None:
        os._exit(130 if signal.SIGINT in {*self.signals, number} else 143)

    @asynccontextmanager
    async def _store_part(self) -> AsyncIterator[Store]:
        level = Level(self.config.level)
        path = (
            None if level is Level.VOLATILE else self.config.store_path(self.app.name)
        )
        async with open_store(
            path,
            level=level,
            application=self.app.name,
            retention=Retention(
                days=self.config.journal_days,
                journal_bytes=self.config.journal_bytes,
            ),
        ) as store:
            self.surroundings.store = store
            self.store_file = path
            await self._kept_circuits.load(store)
            await self._kept_limits.load(store)
            store.delay_reports(self._later)
            self.news.catch_up()
            try:
                yield store
            finally:
                self.surroundings.store = None

    def _policy_rows(
        self, kind: str, is_over: Callable[[bytes, int], bool]
    ) -> PolicyRows:
        return PolicyRows(
            kind,
            is_over=is_over,
            store=lambda: self.store,
            later=self._later,
            unreadable=self.news.row_unreadable,
        )

    def _breakable(self, name: str) -> Breakable:
        node = self.directory.resolve(name)
        return Breakable(node, node.path, node.incarnation)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.directory.timers.at(trio.current_time() + seconds, callback)

    async def _bus_part(self, *, task_status: trio.TaskStatus[Bus]) -> None:
        bus = Bus(
            StoreJournal(self.store),
            inside_handler=_inside,
            hold=_hold,
            store=self.store,
            news=self.news.of_the_bus,
        )
        self.surroundings.bus = bus
        task_status.started(bus)
        try:
            await bus.serve()
        finally:
            self.surroundings.bus = None
            bus.close()

    async def _circuits_part(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Tell the bus of transitions; from here, and not from the calls they end."""
        with self.circuits.listen(_TRANSITIONS) as transitions:
            task_status.started()
            async for moved in transitions:
                self.news.signal_transition(moved)

    @asynccontextmanager
    async def _telemetry_part(self) -> AsyncIterator[None]:
        measure(self)
        async with export(
            self.telemetry,
            endpoint=self.config.otlp,
            service_name=self.name,
            service_instance=self.store.boot,
        ):
            yield

    async def _control_part(
        self, *, task_status: trio.TaskStatus[ControlServer]
    ) -> None:
        desk = self.desk()
        path = self.config.socket or socket_path(self.name)
        self.control = ControlServer(desk, path=path, cap=Rights(self.config.rights))
        try:
            await self.control.serve(task_status=task_status)
        finally:
            self.control = None

    def desk(self) -> Desk:
        """What the control server shows and does."""
        return Desk(
            runtime=self.row,
            directory=self.directory,
            surroundings=self.surroundings,
            circuits=self.circuits,
            policies=self.policies,
            injections=self.injections,
            dead_letters=self.dead_letters,
            places=self,
            workflows=self.workflows,
            monitors=self.monitors,
            http=self.http,
            programs=self.programs,
            vitals=self.vitals,
            stop=self.stop,
            record=self.news.operator_did,
        )

    async def _heartbeat(self) -> None:
        """Measure how late the loop is; end a demo whose console is gone."""
        while True:
            due = trio.current_time() + _BEAT
            await trio.sleep_until(due)
            self.vitals.loop_lag = max(0.0, trio.current_time() - due)
            if self._on_watch is not None:
                self._on_watch.notice()
            self._look_for_consoles()

    async def _watchdog(self, *, task_status: trio.TaskStatus[None]) -> None:
        watchdog = Watchdog(self.news.loop_blocked, on_busy=self.store.rest)
        self._on_watch = watchdog
        await watchdog.run(task_status=task_status)

    def _look_for_consoles(self) -> None:
        if self.control is None:
            return
        statistics = self.control.statistics()
        self.vitals.clients = statistics.clients
        patience = self.config.until_console_gone
        if patience is None:
            return
        now = trio.current_time()
        if statistics.consoles:
            self._had_console_at, self._vanished = now, statistics.vanished
        elif self._had_console_at is None or statistics.vanished == self._vanished:
            # There was none, or the last one said goodbye: the runtime is to go on.
            self._had_console_at = None
        elif now - self._had_console_at > patience:
            self.stop()


def _inside() -> bool:
    return current_body.get() is not None


def _hold(send: Callable[[], None]) -> bool:
    """Hold a signal until what its sender did is committed, or drop it if it is not."""
    sender = current_body.get()
    if sender is None:
        return False
    return sender.when_settled(lambda error: send() if error is None else None)


def version() -> str:
    """The installed version of treewarden."""
    try:
        return importlib.metadata.version("treewarden")
    except importlib.metadata.PackageNotFoundError:
        return "0"
