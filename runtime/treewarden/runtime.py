"""The composed whole: one tree of system and application, wired together.

`open_runtime` builds the system's tree (store, bus, circuits, telemetry, control) under
`/system`, then the application; rest_for_one, so that what stands on a part that failed is
started again after it. It is the same in every environment. This module is the only one
that knows everybody; what it wires together does not know each other.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import signal
from collections import deque
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import msgspec
import trio

from .agents import (
    Agent,
    AgentBody,
    AgentRef,
    DeadLetters,
    Participants,
    Surroundings,
    Transaction,
    current_body,
    open_transaction,
)
from .bus import Bus, StoreJournal
from .clock import wall_ns
from .config import Config
from .control import ControlServer, Desk, Vitals, report_payload, socket_path
from .control.protocol import Rights, RuntimeRow
from .coordination import Barriers, Elections, Exchange, Locks, Quorums
from .errors import (
    ChildStartFailed,
    ConfigError,
    ControlError,
    NameUnknown,
    NotRunning,
    ShuttingDown,
    StoreError,
)
from .exits import is_rolled_back
from .gateways import Http, Programs
from .injection import Injections
from .monitors import (
    Alarms,
    Health,
    Monitors,
    Performance,
    Resources,
)
from .registry import Registry
from .resilience import Cache, Circuits, Limits, Policies, Transition
from .store import (
    Level,
    Retention,
    Store,
    Unit,
    forget_child,
    forget_policy_state,
    keep_policy_state,
    load_children,
    load_policy_states,
    open_store,
    remember_child,
)
from .supervision import (
    Application,
    Blocked,
    ChildInfo,
    ChildSpec,
    Directory,
    DynamicSupervisorSpec,
    Intensity,
    Kind,
    Node,
    Report,
    SupervisorRef,
    SupervisorSpec,
    TreeSnapshot,
    Watchdog,
    as_supervisor,
    crash_of,
    current_life,
    log_record,
    open_tree,
)
from .telemetry import (
    BUS_DROPPED,
    BUS_PENDING,
    BUS_PUBLISHED,
    CIRCUIT_STATE,
    CIRCUIT_TRANSITIONS,
    DURATION_BOUNDS,
    LOOP_LAG,
    MAILBOX_DEPTH,
    NODE_EXITS,
    NODE_RESTARTS,
    SIZE_BOUNDS,
    STORE_COMMIT_DURATION,
    STORE_GROUP_SIZE,
    TASKS,
    SpanKind,
    Telemetry,
    export,
    new_context,
)
from .work import Pools, SerialOperation, SerialOutcome, execute_serially
from .workflows import Workflows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from .exits import Exit, Fault

A = TypeVar("A", bound=Agent[Any])

_DEFAULT_GC = 700
_FEWER_GC = 5000
# How often the loop's lateness is measured: 4 wake-ups a second, under 0.1 % of a core.
_BEAT = 0.25
# Reports that come before the store is up (its own start) wait here for it.
_EARLY_REPORTS = 256
# Circuits' transitions that wait for the bus's turn; older ones are dropped.
_TRANSITIONS = 1000
# After a failed commit, until what a policy wants kept is tried again.
_WRITE_AGAIN = 1.0

_current: ContextVar[Runtime | None] = ContextVar("treewarden_runtime", default=None)


def current_runtime() -> Runtime:
    """The runtime around the running child.

    Raises:
        NotRunning: outside a runtime.
    """
    runtime = _current.get()
    if runtime is None:
        raise NotRunning("there is no runtime here: this is not one of its children")
    return runtime


class Runtime:
    """A running application and the system under it; made by `open_runtime`."""

    def __init__(self, app: Application, config: Config) -> None:
        self.app = app
        self.config = config
        self.name = config.name or app.name
        self.directory = Directory()
        self.telemetry = Telemetry()
        self.vitals = Vitals()
        self._kept_circuits = _PolicyRows(self, "circuit", self._later)
        self.circuits = Circuits(
            clock=trio.current_time,
            on_transition=self._circuit_moved,
            memory=self._kept_circuits,
            spans=self.telemetry.spans,
        )
        self.policies = Policies()
        self._kept_limits = _PolicyRows(self, "limiter", self._later)
        self.limits = Limits(memory=self._kept_limits)
        self.cache: Cache[Hashable, Any] = Cache(
            name="runtime", on_unavailable=self._cache_missed
        )
        self.injections = Injections(
            self._breakable,
            self._injected,
            record=self.record,
            cancel=_cancel_child,
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
            record=self._monitors_news,
            signal=self._signal_news,
            lag=lambda: self.vitals.loop_lag,
            disk=lambda: self.store_file,
        )
        self.surroundings = Surroundings(
            telemetry=self.telemetry, runtime=self, dead_letter=self._dead_letter
        )
        self.dead_letters = DeadLetters(
            lambda: self.store, self.directory, lambda: self.surroundings.bus
        )
        self.participants = Participants(lambda: self.store, self._transaction_news)
        self.workflows = Workflows(
            self.directory,
            "/workflows",
            store=lambda: self.store,
            open_transaction=self.transaction,
            tell=self._workflow_news,
        )
        self.directory.services = self.surroundings
        self.directory.transparent = frozenset({"/", "/application", "/system/edge"})
        self.directory.yielding = ("/system/", "/workflows/")
        self.directory.memory = _StoreMemory(self)
        self.directory.reporter = self._report
        self.control: ControlServer | None = None
        self.store_file: Path | None = None
        self._early: deque[tuple[str, bytes, str, str, bool]] = deque(
            maxlen=_EARLY_REPORTS
        )
        self.stop_scope = trio.CancelScope()
        self.takes_signals = False
        self.signals: list[int] = []
        self._had_console_at: float | None = None
        self._vanished = 0
        self._exits: dict[str, int] = {}
        self._moves: dict[tuple[str, str], int] = {}

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
            raise NameUnknown(path)
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
            raise NameUnknown(path)
        return SupervisorRef(self.directory, node.path)

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
        """Started first and stopped last, so that a second signal still counts."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            task_status.started()
            async for number in received:
                self.signals.append(number)
                if len(self.signals) == 1:
                    self.stop()
                elif len(self.signals) == 2:
                    self.directory.hurry()
                else:
                    os._exit(130 if signal.SIGINT in self.signals else 143)

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
            while self._early:
                topic, payload, source, trace, fault = self._early.popleft()
                store.report(topic, payload, source=source, trace=trace, fault=fault)
            try:
                yield store
            finally:
                self.surroundings.store = None

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.directory.timers.at(trio.current_time() + seconds, callback)

    async def _bus_part(self, *, task_status: trio.TaskStatus[Bus]) -> None:
        bus = Bus(
            StoreJournal(self.store),
            inside_handler=_inside,
            hold=_hold,
            store=self.store,
            news=self._bus_news,
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
                topic = f"circuit.{moved.new}"
                self.bus.signal(topic, _transition_payload(moved), source=moved.name)

    @asynccontextmanager
    async def _telemetry_part(self) -> AsyncIterator[None]:
        self._measure()
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
            vitals=self.vitals,
            stop=self.stop,
            record=self._operator,
        )

    async def _heartbeat(self) -> None:
        """Measure how late the loop is; end a demo whose console is gone."""
        while True:
            due = trio.current_time() + _BEAT
            await trio.sleep_until(due)
            self.vitals.loop_lag = max(0.0, trio.current_time() - due)
            self._look_for_consoles()

    async def _watchdog(self, *, task_status: trio.TaskStatus[None]) -> None:
        await Watchdog(self._loop_blocked).run(task_status=task_status)

    def _loop_blocked(self, blocked: Blocked) -> None:
        self.record(
            "runtime.blocked",
            {
                "seconds": blocked.seconds,
                "where": f"{blocked.file}:{blocked.line}",
                "function": blocked.function,
                "frames": blocked.frames,
            },
            source="/system/watchdog",
        )

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

    # --- reports -----------------------------------------------------------------------------

    def record(
        self, topic: str, payload: dict[str, Any], *, source: str = "", trace: str = ""
    ) -> None:
        """Put a report into the journal; never waits, never fails."""
        encoded = msgspec.json.encode(payload)
        self._note(topic, lambda: encoded, source, trace)

    def _note(
        self,
        topic: str,
        encode: Callable[[], bytes],
        source: str,
        trace: str = "",
        *,
        fault: bool = False,
    ) -> None:
        store = self.surroundings.store
        if store is not None:
            store.report(topic, encode, source=source, trace=trace, fault=fault)
        else:
            self._early.append((topic, encode(), source, trace, fault))

    def _report(self, report: Report) -> None:
        # Encoded later: a restart does not wait for it.
        encode = partial(_encoded, report)
        self._note(
            report.topic,
            encode,
            report.path,
            report.trace,
            fault=crash_of(report) is not None,
        )
        if report.topic == "supervision.restarted":
            self._restart_span(report)
        elif report.topic == "supervision.exited" and report.exit is not None:
            kind = _exit_kind(report.exit)
            self._exits[kind] = self._exits.get(kind, 0) + 1
        if self.telemetry.logs.enabled:
            self.telemetry.logs.defer(log_record, report)

    def _restart_span(self, report: Report) -> None:
        spans = self.telemetry.spans
        if not spans.enabled or report.cause is None:
            return

        spans.record(
            "restart",
            new_context(),
            None,
            report.cause.at_ns,
            report.at_ns,
            SpanKind.INTERNAL,
            {
                "treewarden.path": report.path,
                "treewarden.incarnation": report.incarnation,
                "treewarden.cause": report.cause.kind.value,
                "treewarden.origin": report.cause.origin,
            },
            (),
            report_payload(report).get("exit"),
        )

    def _operator(self, topic: str, payload: dict[str, Any], by: str) -> None:
        self.record(topic, {**payload, "by": by}, source=payload.get("path", ""))

    def _circuit_moved(self, moved: Transition) -> None:
        move = (moved.name, moved.new.value)
        self._moves[move] = self._moves.get(move, 0) + 1
        topic = f"circuit.{moved.new}"
        self.record(topic, _transition_payload(moved), source=moved.name)

    def _dead_letter(self, path: str, operation: str, reason: str) -> None:
        self.vitals.dead_letters += 1
        payload = {"operation": operation, "reason": reason}
        self._note("agent.dead_letter", partial(msgspec.json.encode, payload), path)

    def _bus_news(self, topic: str, payload: dict[str, object]) -> None:
        self._note(topic, partial(msgspec.json.encode, payload), "/system/bus")

    def _monitors_news(self, topic: str, payload: dict[str, Any], source: str) -> None:
        self.record(topic, payload, source=source)

    def _signal_news(self, topic: str, payload: dict[str, Any], source: str) -> None:
        self.bus.signal(topic, payload, source=source)

    def _cache_missed(self, operation: str) -> None:
        self.record("cache.closed", {"operation": operation}, source="/system/cache")

    def _transaction_news(self, topic: str, payload: dict[str, object]) -> None:
        self.record(topic, payload, source="/system/transactions")

    def _workflow_news(self, topic: str, payload: dict[str, Any]) -> None:
        self.record(topic, payload, source="/workflows")
        if self.surroundings.bus is not None:
            self.bus.signal(topic, payload, source="/workflows")

    def _injected(self, fault: Fault, by: str) -> None:
        self.record(
            "injection.crash",
            {"incarnation": fault.incarnation, "by": by},
            source=fault.path,
        )

    def _breakable(self, name: str) -> _Breakable:
        node = self.directory.resolve(name)
        return _Breakable(node, node.path, node.incarnation)

    # --- metrics -----------------------------------------------------------------------------

    def _measure(self) -> None:
        observe = self.telemetry.metrics.observe
        observe(MAILBOX_DEPTH, "{message}", "Messages waiting", self._mailbox_depths)
        observe(
            NODE_RESTARTS, "{restart}", "Restarts",
            lambda: [({"path": n.path}, n.restarts) for n in self.directory.nodes()],
            "counter",
        )  # fmt: skip
        observe(
            NODE_EXITS, "{exit}", "Ends by kind",
            lambda: [({"kind": kind}, n) for kind, n in self._exits.items()], "counter",
        )  # fmt: skip
        observe(
            BUS_PUBLISHED, "{event}", "Events published", self._published, "counter"
        )
        observe(BUS_DROPPED, "{event}", "Events dropped", self._dropped, "counter")
        observe(BUS_PENDING, "{event}", "Events waiting", self._pending)
        observe(CIRCUIT_STATE, "1", "1 for the state a circuit is in", self._states)
        observe(
            LOOP_LAG, "s", "Lateness of the loop", lambda: [({}, self.vitals.loop_lag)]
        )
        observe(TASKS, "{task}", "Tasks alive", _tasks)
        observe(
            CIRCUIT_TRANSITIONS, "{transition}", "Moves into a state",
            lambda: [
                ({"circuit": circuit, "state": state}, n)
                for (circuit, state), n in self._moves.items()
            ],
            "counter",
        )  # fmt: skip
        self._observe_commits()

    def _observe_commits(self) -> None:
        metrics, spans = self.telemetry.metrics, self.telemetry.spans
        seconds = metrics.histogram(STORE_COMMIT_DURATION, "s", DURATION_BOUNDS)
        sizes = metrics.histogram(STORE_GROUP_SIZE, "{unit}", SIZE_BOUNDS)

        def committed(took: float, units: int) -> None:
            seconds.record(took)
            sizes.record(units)
            if spans.enabled:
                ended = wall_ns()
                began = ended - int(took * 1e9)
                spans.record(
                    "commit",
                    new_context(),
                    None,
                    began,
                    ended,
                    SpanKind.CLIENT,
                    {"db.system.name": "sqlite", "treewarden.units": units},
                )

        self.store.observe_commits(committed)

    def _mailbox_depths(self) -> list[tuple[dict[str, str], float]]:
        return [
            ({"path": node.path}, len(cast("AgentBody", node.body).mailbox))
            for node in self.directory.nodes()
            if node.body.kind is Kind.AGENT
        ]

    def _published(self) -> list[tuple[dict[str, str], float]]:
        return [({}, self.bus.statistics().published)]

    def _dropped(self) -> list[tuple[dict[str, str], float]]:
        return [({}, self.bus.statistics().dropped)]

    def _pending(self) -> list[tuple[dict[str, str], float]]:
        found = self.bus.statistics()
        rows: list[tuple[str, float]] = [
            *((one.pattern, one.pending) for one in found.subscriptions),
            *((one.pattern, one.pending) for one in found.durable),
        ]
        return [({"pattern": pattern}, pending) for pattern, pending in rows]

    def _states(self) -> list[tuple[dict[str, str], float]]:
        return [
            ({"circuit": one.name, "state": one.state.value}, 1)
            for one in self.circuits.statistics()
        ]


def _exit_kind(exit_: Exit) -> str:
    return "rolled_back" if is_rolled_back(exit_) else type(exit_).__name__.lower()


def _encoded(report: Report) -> bytes:
    return msgspec.json.encode(report_payload(report))


@dataclass(frozen=True, slots=True)
class _Breakable:
    node: Node
    path: str
    incarnation: int

    def crash(self, fault: Fault) -> None:
        """Fail now."""
        life = self.node.life
        if life is None or life.ended or life.stopping:
            raise NotRunning(f"{self.path} is not running; there is nothing to crash")
        supervisor = as_supervisor(self.node)
        if supervisor is not None:
            supervisor.crash(fault)
        else:
            life.fail(fault)


class _StoreMemory:
    """What dynamic supervisors remember, kept by the store that runs at the time."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def recall(self, supervisor: str) -> list[tuple[str, bytes | None]]:
        store = self._runtime.store
        # What the supervisor's last incarnation handed over is in the answer.
        with suppress(StoreError):
            await store.settled()
        return await store.read(partial(load_children, supervisor=supervisor))

    def write(
        self,
        supervisor: str,
        id_: str,
        spec: bytes | None,
        decided: Callable[[Exception | None], None],
    ) -> None:
        unit = Unit(supervisor)
        unit.writes = [
            forget_child(supervisor, id_)
            if spec is None
            else remember_child(supervisor, id_, spec)
        ]
        unit.release.append(decided)
        try:
            self._runtime.store.hand_over(unit)
        except (NotRunning, StoreError) as error:
            decided(error)


class _PolicyRows:
    """What the policies of one kind keep, in the store that runs at the time."""

    def __init__(
        self,
        runtime: Runtime,
        kind: str,
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._runtime = runtime
        self._kind = kind
        self._later = later
        self._states: dict[str, bytes] = {}
        self._loaded = False
        # Names whose row is not what it should be: a commit failed.
        self._unwritten: set[str] = set()

    async def load(self, store: Store) -> None:
        """Read what earlier runs kept, once: what this one knows since is newer.

        A damaged row is worth nothing: it is reported, and the policy begins anew.
        """
        if self._loaded:
            return
        question = partial(load_policy_states, kind=self._kind)
        found = await store.read(question)
        self._loaded = True
        for name, state in found.items():
            if state is not None:
                self._states[name] = state
            else:
                self._runtime.record(f"{self._kind}.unreadable", {"name": name})
                self.keep(name, None)

    def kept(self, name: str) -> bytes | None:
        return self._states.get(name)

    def keep(self, name: str, state: bytes | None) -> None:
        if state is None:
            self._states.pop(name, None)
        else:
            self._states[name] = state
        self._write(name)

    def _write(self, name: str) -> None:
        state = self._states.get(name)
        unit = Unit(f"/system/{self._kind}")
        unit.writes = [
            forget_policy_state(self._kind, name)
            if state is None
            else keep_policy_state(self._kind, name, state)
        ]
        unit.release.append(partial(self._decided, name))
        try:
            self._runtime.store.hand_over(unit)
        except (NotRunning, StoreError) as error:
            self._decided(name, error)

    def _decided(self, name: str, error: Exception | None) -> None:
        if error is None:
            self._unwritten.discard(name)
            return
        if not self._unwritten:
            self._later(_WRITE_AGAIN, self._write_again)
        self._unwritten.add(name)

    def _write_again(self) -> None:
        names, self._unwritten = self._unwritten, set()
        for name in names:
            self._write(name)


def _transition_payload(moved: Transition) -> dict[str, Any]:
    return {
        "circuit": moved.name,
        "from": moved.old,
        "reason": moved.reason,
        "calls": moved.window_calls,
        "failures": moved.window_failures,
        "slow": moved.window_slow,
        "by": moved.by,
    }


def _inside() -> bool:
    return current_body.get() is not None


def _hold(send: Callable[[], None]) -> bool:
    """Hold a signal until what its sender did is committed, or drop it if it is not."""
    sender = current_body.get()
    if sender is None:
        return False
    return sender.when_settled(lambda error: send() if error is None else None)


def _cancel_child() -> bool:
    """Kill the child in whose turn this runs; False when there is none."""
    life = current_life.get()
    if life is None or life.ended or life.killed:
        return False
    life.node.body.kill(life)
    return True


def _tasks() -> list[tuple[dict[str, str], float]]:
    return [({}, trio.lowlevel.current_statistics().tasks_living)]


def version() -> str:
    """The installed version of treewarden."""
    try:
        return importlib.metadata.version("treewarden")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@asynccontextmanager
async def open_runtime(
    app: Application, *, config: Config | None = None
) -> AsyncIterator[Runtime]:
    """Run an application for as long as the block lasts.

    Entered once every child is ready. Leaving it, in whatever way, stops the application,
    then the system, each in reverse order and within its shutdown times.

    Raises:
        ConfigError, StoreError, ControlError: a part of the system cannot start; bare.
        ChildStartFailed: a child of the application did not start.
        IntensityExceeded: the tree gave up; the block was cancelled.
    """
    if not isinstance(app, Application):
        raise TypeError(f"open_runtime takes an Application, not {app!r}")
    async with _open(
        Runtime(app, config if config is not None else Config())
    ) as runtime:
        yield runtime


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncIterator[Runtime]:
    before = _current.get()
    _current.set(runtime)
    collect_every = gc.get_threshold()
    if collect_every[0] == _DEFAULT_GC:
        # Python's default runs the collector every 700 objects: it doubled the start of
        # 10,000 agents and made the 99th percentile of restarts. Who has chosen a value
        # keeps it.
        gc.set_threshold(_FEWER_GC, *collect_every[1:])
    try:
        async with open_tree(
            runtime.root_spec(),
            directory=runtime.directory,
            shutdown=runtime.config.shutdown,
        ):
            with runtime.stop_scope:
                yield runtime
    except ChildStartFailed as failure:
        cause = _root_cause(failure)
        if cause is failure:
            raise
        raise cause from cause.__cause__
    finally:
        # Points are the process's, and may outlive this runtime.
        runtime.injections.lift_all()
        gc.set_threshold(*collect_every)
        _current.set(before)


def _root_cause(failure: ChildStartFailed) -> BaseException:
    """What the system could not start for, without the levels of the tree around it."""
    innermost: BaseException = failure
    while isinstance(innermost, ChildStartFailed) and innermost.__cause__ is not None:
        innermost = innermost.__cause__
    if isinstance(innermost, (ConfigError, StoreError, ControlError)):
        return innermost
    return failure


def run(app: Application, config: Config | None = None) -> None:
    """Run an application until it is told to stop; blocks.

    SIGTERM and SIGINT stop the tree in order; a second one turns every stop into a kill; a
    third ends the process at once.

    Raises:
        KeyboardInterrupt: it was stopped by SIGINT.
        What `open_runtime` raises.
    """
    if not isinstance(app, Application):
        raise TypeError(f"run takes an Application, not {app!r}")
    configuration = config if config is not None else Config()
    logging.basicConfig(level=configuration.log_level.upper())
    runtime = Runtime(app, configuration)
    runtime.takes_signals = True
    trio.run(_run, runtime)
    if signal.SIGINT in runtime.signals:
        raise KeyboardInterrupt


async def _run(runtime: Runtime) -> None:
    try:
        async with _open(runtime):
            await trio.sleep_forever()
    except ShuttingDown:
        # Told to stop before it was up.
        if not runtime.signals:
            raise
