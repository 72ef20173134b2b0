"""The desk of the control server: what it shows of a runtime and does for an operator.

It answers from statistics, and writes every act into the journal with the name of who
asked for it. What an act would do is `radius`' business, why a node restarted `why`'s.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
import trio

from treewarden.agents import AgentBody, AgentRef, Surroundings
from treewarden.bus import durable_id
from treewarden.coordination import ExchangeBody
from treewarden.errors import NameUnknown, NotAllowed, NotRunning, Outdated
from treewarden.injection import POINTS, parse_plan
from treewarden.monitors import resident_bytes
from treewarden.store import (
    StateFilter,
    bytes_behind,
    load_backlog,
    load_steps,
    load_subscriptions,
)
from treewarden.supervision import (
    Directory,
    Kind,
    Node,
    Supervisor,
    statistics,
)
from treewarden.workflows import WorkflowState

from . import protocol as wire
from .radius import preview, subtree
from .views import (
    agent_row,
    alarm_row,
    ballot_row,
    barrier_row,
    circuit_row,
    client_row,
    collection_row,
    durable_row,
    election_row,
    event_row,
    gauge_row,
    health_row,
    idle_row,
    letter_row,
    line_row,
    lock_row,
    node_row,
    operation_row,
    plan_row,
    point_row,
    policy_row,
    programs_row,
    step_row,
    subscription_row,
    workflow_row,
)
from .why import explain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from treewarden.agents import DeadLetters
    from treewarden.coordination import Barriers, Elections, Locks, Quorums
    from treewarden.gateways import Http, Programs
    from treewarden.injection import Injections
    from treewarden.monitors import Monitors
    from treewarden.resilience import Circuits, Policies
    from treewarden.store import StoredSubscription
    from treewarden.workflows import Workflows

    from .protocol import Message, Topic
    from .target import Client

_MOST_ROWS = 1000
# Workflows in one answer.
_MOST_WORKFLOWS = 500
_LONGEST_ANSWER = wire.MAX_FRAME_BYTES - 4096


class MeetingPlaces(Protocol):
    """Where the agents of a runtime agree; the runtime itself is one."""

    locks: Locks
    elections: Elections
    barriers: Barriers
    quorums: Quorums


@dataclass(slots=True, kw_only=True)
class Vitals:
    """What a process says of itself; the runtime's heartbeat keeps it fresh."""

    started_at_ns: int = field(default_factory=time.time_ns)
    started: float = field(default_factory=time.monotonic)
    loop_lag: float = 0.0
    dead_letters: int = 0
    clients: int = 0


class Desk:
    """A `Target` for the control server."""

    def __init__(
        self,
        *,
        runtime: Callable[[], wire.RuntimeRow],
        directory: Directory,
        surroundings: Surroundings,
        circuits: Circuits,
        policies: Policies,
        injections: Injections,
        dead_letters: DeadLetters,
        places: MeetingPlaces,
        workflows: Workflows,
        monitors: Monitors,
        http: Http,
        programs: Programs,
        vitals: Vitals,
        stop: Callable[[], None],
        record: Callable[[str, dict[str, Any], str], None],
    ) -> None:
        self._runtime = runtime
        self._directory = directory
        self._surroundings = surroundings
        self._circuits = circuits
        self._policies = policies
        self._injections = injections
        self._dead_letters = dead_letters
        self._places = places
        self._workflows = workflows
        self._monitors = monitors
        self._http = http
        self._programs = programs
        self._vitals = vitals
        self._stop_runtime = stop
        self._record = record
        self._kept: dict[Topic, dict[str, Message]] = {}
        self._acts: dict[str, Callable[[Any, Client], Awaitable[Message]]] = {
            "tree": self._tree,
            "agents": self._agents,
            "state": self._state,
            "circuits": self._circuits_list,
            "queues": _listed(wire.Queues, self._collection_rows, None),
            "workflows": self._workflow_list,
            "workflow": self._workflow,
            "steps": self._steps,
            "exchanges": _listed(wire.Exchanges, self._line_rows),
            "meetings": _listed(wire.Meetings, self._meeting_rows),
            "alarms": _listed(wire.OpenAlarms, self._alarm_rows, None),
            "health": _listed(wire.HealthOfSubjects, self._health_rows),
            "gauges": _listed(wire.Gauges, self._gauge_rows),
            "operations": _listed(wire.Operations, self._operation_rows),
            "gateways": _listed(wire.Gateways, self._gateway_rows),
            "acknowledge": self._acknowledge,
            "subscriptions": self._subscriptions,
            "subscription": self._subscription,
            "dead_letters": self._letters,
            "dead_letter": self._letter,
            "events": self._events,
            "process": self._process,
            "why": self._why,
            "preview": self._preview,
            "restart": self._restart,
            "stop": self._stop,
            "suspend": self._suspend,
            "resume": self._resume,
            "inject": self._inject,
            "injections": self._injections_list,
            "load": self._load,
            "lift": self._lift,
            "circuit": self._circuit,
            "call": self._call,
            "shutdown": self._shutdown,
        }

    # --- a Target ----------------------------------------------------------------------------

    def runtime_row(self) -> wire.RuntimeRow:
        """Who answers."""
        return self._runtime()

    def version(self, topic: Topic) -> int:
        """A number that changes when the topic's rows may have."""
        match topic:
            case wire.Topic.TREE:
                return self._directory.version
            # What is waited for, and what is in a window, change with time too.
            case wire.Topic.CIRCUITS:
                return self._circuits.version + int(time.monotonic())
            case wire.Topic.POLICIES:
                return self._policies.version + int(time.monotonic())
            case wire.Topic.BUS if self._surroundings.bus is not None:
                return self._surroundings.bus.version
            case wire.Topic.ALARMS:
                return self._monitors.alarms.version
            case _:
                return time.monotonic_ns()

    def rows(self, topic: Topic) -> Mapping[str, Message]:
        """The rows of a topic; one that did not change is the same object as before."""
        kept = self._kept.get(topic, {})
        rows: dict[str, Message] = {}
        for key, row in self._fresh(topic):
            before = kept.get(key)
            rows[key] = before if before == row else row
        self._kept[topic] = rows
        return rows

    def _fresh(self, topic: Topic) -> list[tuple[str, Message]]:
        match topic:
            case wire.Topic.TREE:
                return [(row.path, row) for row in self._node_rows(self._root())]
            case wire.Topic.AGENTS:
                return [(row.path, row) for row in self._agent_rows()]
            case wire.Topic.CIRCUITS:
                return [(row.name, row) for row in self._circuit_rows()]
            case wire.Topic.POLICIES:
                return [(row.name, row) for row in self._policy_rows()]
            case wire.Topic.BUS:
                return [(row.id, row) for row in self._subscription_rows()]
            case wire.Topic.ALARMS:
                return [(f"{row.id}", row) for row in self._alarm_rows()]
            case _:
                return [("process", self._process_row())]

    def follow_events(
        self, sink: Callable[[Sequence[wire.EventRow]], None]
    ) -> Callable[[], None]:
        """Give every new entry of the journal to `sink`."""
        unfollow: Callable[[], None] = self._store().follow(
            lambda entries: sink([event_row(e) for e in entries])
        )
        return unfollow

    async def perform(self, method: str, params: Message, client: Client) -> Message:
        """Carry out a request."""
        return await self._acts[method](params, client)

    def refused(self, method: str, client: Client) -> None:
        """A client asked for what is above its rights."""
        self._record("operator.refused", {"method": method}, client.operator)

    # --- looking -----------------------------------------------------------------------------

    def _store(self) -> Any:  # noqa: ANN401 - a Store, which is there or is not
        if self._surroundings.store is None:
            raise NotRunning("the store is not running")
        return self._surroundings.store

    def _root(self) -> Node:
        if self._directory.root is None:
            raise NotRunning("the tree is not running")
        return self._directory.root

    def _node_rows(self, root: Node) -> list[wire.NodeRow]:
        now = trio.current_time()
        return [node_row(statistics(node, now)) for node in subtree(root)]

    def _agent_rows(self) -> list[wire.AgentRow]:
        return [agent_row(body.statistics()) for body in self._agent_bodies()]

    def _agent_bodies(self) -> list[AgentBody]:
        return [
            cast("AgentBody", node.body)
            for node in self._directory.nodes()
            if node.body.kind is Kind.AGENT
        ]

    def _circuit_rows(self) -> list[wire.CircuitRow]:
        return [circuit_row(one) for one in self._circuits.statistics()]

    def _policy_rows(self) -> list[wire.PolicyRow]:
        return [policy_row(one) for one in self._policies.statistics()]

    def _alarm_rows(self) -> list[wire.AlarmRow]:
        return [alarm_row(one) for one in self._monitors.alarms.list()]

    def _collection_rows(self) -> list[wire.CollectionRow]:
        return [
            collection_row(one)
            for body in self._agent_bodies()
            for one in body.memory.open_collections
        ]

    def _line_rows(self) -> list[wire.LineRow]:
        found = [
            node.body.deliveries.statistics()
            for node in self._directory.nodes()
            if isinstance(node.body, ExchangeBody)
        ]
        return [line_row(one, line) for one in found for line in one.lines]

    def _meeting_rows(self) -> list[wire.MeetingRow]:
        places = self._places
        return [
            *map(lock_row, places.locks.statistics().locks),
            *map(election_row, places.elections.statistics().elections),
            *map(barrier_row, places.barriers.statistics().barriers),
            *map(ballot_row, places.quorums.statistics().ballots),
        ]

    def _health_rows(self) -> list[wire.HealthRow]:
        return [*map(health_row, self._monitors.health.statistics().subjects)]

    def _gauge_rows(self) -> list[wire.GaugeRow]:
        return [*map(gauge_row, self._monitors.resources.statistics().gauges)]

    def _operation_rows(self) -> list[wire.OperationRow]:
        operations = self._monitors.performance.statistics().operations
        return [*map(operation_row, operations)]

    def _gateway_rows(self) -> list[wire.GatewayRow]:
        programs = self._programs
        return [
            *map(client_row, self._http.statistics()),
            programs_row(programs.name, programs.statistics()),
        ]

    def _subscription_rows(self) -> list[wire.SubscriptionRow]:
        bus = self._surroundings.bus
        if bus is None:
            return []
        found = bus.statistics()
        rows = [subscription_row(one) for one in found.subscriptions]
        return rows + [
            durable_row(one, bus.pause((one.owner, one.name))) for one in found.durable
        ]

    def _process_row(self) -> wire.ProcessRow:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        store, bus = self._surroundings.store, self._surroundings.bus
        stored = store.statistics() if store is not None else None
        events = bus.statistics() if bus is not None else None
        telemetry = self._surroundings.telemetry
        spans = telemetry.statistics().spans_dropped if telemetry is not None else 0
        return wire.ProcessRow(
            at_ns=time.time_ns(),
            uptime=time.monotonic() - self._vitals.started,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            rss_bytes=resident_bytes(),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            loop_lag=self._vitals.loop_lag,
            nodes=len(self._directory),
            commits=stored.commits if stored is not None else 0,
            units=stored.units if stored is not None else 0,
            commit_seconds=stored.commit_seconds_total if stored is not None else 0.0,
            store_bytes=stored.file_bytes if stored is not None else 0,
            store_health=stored.health if stored is not None else "not running",
            published=events.published if events is not None else 0,
            dropped=events.dropped if events is not None else 0,
            dead_letters=self._vitals.dead_letters,
            spans_dropped=spans,
            clients=self._vitals.clients,
        )

    async def _tree(self, params: wire.GetTree, _: Client) -> wire.Tree:
        return wire.Tree(rows=self._node_rows(self._directory.resolve(params.root)))

    async def _agents(self, params: wire.GetAgents, _: Client) -> wire.Agents:
        if not (params.type or params.where):
            return wire.Agents(rows=self._agent_rows())
        filters = [_as_filter(one) for one in params.where]
        paths: set[str] = set()
        examined, after = 0, ""
        while True:
            answer = await self._store().query(params.type, filters, after=after)
            paths.update(one.path for one in answer.found)
            examined += answer.rows_examined
            if answer.after is None:
                break
            after = answer.after
        rows = [
            row
            for row in self._agent_rows()
            if row.path in paths and _shows(self._body(row.path), filters)
        ]
        return wire.Agents(rows=rows, rows_examined=examined)

    async def _workflow_list(
        self, asked: wire.GetWorkflows, _: Client
    ) -> wire.Workflows:
        known = set(WorkflowState)
        states = {one for one in known if one in asked.states} or known
        limit = max(0, min(asked.limit, _MOST_WORKFLOWS))
        found = await self._workflows.list(states, limit=limit)
        return wire.Workflows(
            rows=[workflow_row(one) for one in found], more=len(found) == limit
        )

    async def _steps(self, params: wire.GetSteps, _: Client) -> wire.Steps:
        status = await self._workflows.status(params.workflow)
        found = await self._store().read(partial(load_steps, id_=status.id))
        return wire.Steps(
            workflow=status.id,
            rows=[step_row(one) for one in found[:_MOST_ROWS]],
            more=len(found) > _MOST_ROWS,
        )

    async def _workflow(self, params: wire.WorkflowAct, client: Client) -> wire.Done:
        by = client.operator or client.name
        self._record(f"operator.workflow.{params.act}", {"workflow": params.id}, by)
        act = self._workflows.cancel
        if params.act == "resume":
            act = self._workflows.resume
        try:
            status = await act(params.id)
        except ValueError as error:
            raise NotAllowed(str(error)) from error
        return wire.Done(sentence=f"workflow {status.id} is {status.state} now")

    async def _acknowledge(self, params: wire.Acknowledge, client: Client) -> wire.Done:
        by = client.operator or "somebody"
        alarm = self._monitors.alarms.acknowledge(params.alarm, by)
        return wire.Done(
            sentence=f"alarm {alarm.id} is acknowledged by {alarm.acknowledged_by}"
        )

    async def _subscriptions(
        self, _: wire.GetSubscriptions, __: Client
    ) -> wire.Subscriptions:
        stored = await self._store().read(load_subscriptions)
        rows = self._subscription_rows()
        there = {one.id for one in rows if one.durable}
        looked_up = [await self._with_lag_bytes(one) for one in rows]
        idle = [one for one in stored if durable_id(*one.key) not in there]
        return wire.Subscriptions(
            rows=looked_up + [await self._idle_row(one) for one in idle]
        )

    async def _with_lag_bytes(self, row: wire.SubscriptionRow) -> wire.SubscriptionRow:
        if not row.durable:
            return row
        behind = partial(bytes_behind, after=row.cursor)
        return msgspec.structs.replace(row, lag_bytes=await self._store().read(behind))

    async def _idle_row(self, one: StoredSubscription) -> wire.SubscriptionRow:
        store, bus = self._store(), self._surroundings.bus
        if bus is None:
            raise NotRunning("the bus is not running")
        behind = partial(load_backlog, after=one.cursor, pattern=one.pattern)
        backlog = await store.read(behind)
        return idle_row(one, bus.pause(one.key), backlog, store.position)

    async def _subscription(
        self, params: wire.SubscriptionAct, client: Client
    ) -> wire.Done:
        store, bus = self._store(), self._surroundings.bus
        if bus is None:
            raise NotRunning("the bus is not running")
        by = client.operator or client.name
        self._record(
            f"operator.subscription.{params.act}", {"subscription": params.id}, by
        )
        for owner, name in [one.key for one in await store.read(load_subscriptions)]:
            if durable_id(owner, name) == params.id and await bus.forget_durable(
                name, owner=owner
            ):
                return wire.Done(sentence=f"subscription {params.id} is forgotten")
        raise NameUnknown(params.id, f"there is no durable subscription {params.id!r}")

    async def _letters(
        self, params: wire.GetDeadLetters, _: Client
    ) -> wire.DeadLetters:
        limit = max(1, min(params.limit, 1000))
        found = await self._dead_letters.list(after=params.after, limit=limit)
        rows: list[wire.DeadLetterRow] = []
        size = 0
        for letter in found:
            row = letter_row(letter)
            size += len(msgspec.json.encode(row)) + 1
            if rows and size > _LONGEST_ANSWER:
                return wire.DeadLetters(rows=rows, more=True)
            rows.append(row)
        return wire.DeadLetters(rows=rows, more=len(rows) == limit)

    async def _letter(self, params: wire.DeadLetterAct, client: Client) -> wire.Done:
        by = client.operator or client.name
        self._record(
            f"operator.dead_letter.{params.act}", {"number": params.number}, by
        )
        letters = self._dead_letters
        if params.act == "purge":
            purged = await letters.purge(before_ns=params.before_ns)
            return wire.Done(sentence=f"{purged} dead letters are forgotten")
        act = letters.retry if params.act == "retry" else letters.discard
        if not await act(params.number):
            raise NameUnknown(
                str(params.number),
                f"there is no dead letter {params.number} that could be"
                f" {'tried again' if params.act == 'retry' else 'forgotten'}",
            )
        done = "is to be delivered again" if params.act == "retry" else "is forgotten"
        return wire.Done(sentence=f"dead letter {params.number} {done}")

    async def _circuits_list(self, _: wire.GetCircuits, __: Client) -> wire.Circuits:
        return wire.Circuits(rows=self._circuit_rows(), policies=self._policy_rows())

    async def _process(self, _: wire.GetProcess, __: Client) -> wire.ProcessRow:
        return self._process_row()

    async def _events(self, params: wire.GetEvents, _: Client) -> wire.Events:
        store = self._store()
        entries = await store.entries(
            since=params.since,
            limit=max(1, min(params.limit, 1000)),
            pattern=params.pattern,
        )
        rows: list[wire.EventRow] = []
        size = 0
        for entry in entries:
            size += len(entry.payload) + 256
            if size > _LONGEST_ANSWER:
                break
            rows.append(event_row(entry))
        return wire.Events(rows=rows, position=store.position)

    async def _state(self, params: wire.GetState, _: Client) -> wire.AgentState:
        body = self._body(params.agent)
        seen = body.statistics()
        state = body.memory.shown()
        return wire.AgentState(
            path=body.node.path,
            type=seen.type,
            version=seen.state_revision,
            incarnation=seen.incarnation,
            state=wire.Raw(state or b"null"),
            size_bytes=len(state),
            committed_at_ns=body.memory.committed_at_ns,
            durable=body.agent_type.persistence == "write_through",
        )

    def _body(self, name: str) -> AgentBody:
        node = self._directory.resolve(name)
        if node.body.kind is not Kind.AGENT:
            raise NotAllowed(f"{node.path} is a {node.body.kind}, not an agent")
        return cast("AgentBody", node.body)

    # --- telling what was, and what would be ---------------------------------------------------

    async def _why(self, params: wire.Why, _: Client) -> wire.Explanation:
        return await explain(self._directory.resolve(params.path), self._store())

    async def _preview(self, params: wire.GetPreview, _: Client) -> wire.Preview:
        if params.act in (wire.Act.SUSPEND, wire.Act.RESUME):
            self._body(params.path)
        return preview(params.act, self._directory.resolve(params.path))

    # --- acting --------------------------------------------------------------------------------

    def _aim(self, path: str, incarnation: int | None) -> tuple[Node, Supervisor]:
        node = self._directory.resolve(path)
        if incarnation is not None and node.incarnation != incarnation:
            raise Outdated(
                f"{node.path} is in incarnation {node.incarnation} now, not "
                f"{incarnation}; look again"
            )
        if not isinstance(node.parent, Supervisor):
            raise NotAllowed("this is the root: shut the runtime down instead")
        return node, node.parent

    async def _restart(self, params: wire.Restart, client: Client) -> wire.Done:
        node, parent = self._aim(params.path, params.incarnation)
        by = client.operator or client.name
        self._record("operator.restart", {"path": node.path}, by)
        await parent.ask(lambda: parent.bounce(node.id, by), about=node.id)
        return wire.Done(
            sentence=f"{node.path} was restarted and is in incarnation "
            f"{node.incarnation}",
            path=node.path,
            incarnation=node.incarnation,
        )

    async def _stop(self, params: wire.Stop, client: Client) -> wire.Done:
        node, parent = self._aim(params.path, params.incarnation)
        by = client.operator or client.name
        self._record("operator.stop", {"path": node.path}, by)
        await parent.ask(lambda: parent.terminate(node.id), about=node.id)
        await parent.written(node.id)
        return wire.Done(
            sentence=f"{node.path} was stopped",
            path=node.path,
            incarnation=node.incarnation,
        )

    async def _suspend(self, params: wire.Suspend, client: Client) -> wire.Done:
        ref = self._agent_to("suspend", params, client)
        ref.suspend()
        return wire.Done(
            sentence=f"{ref.path} takes no more messages until it is resumed",
            path=ref.path,
            incarnation=ref.incarnation,
        )

    async def _resume(self, params: wire.Resume, client: Client) -> wire.Done:
        ref = self._agent_to("resume", params, client)
        ref.resume()
        return wire.Done(
            sentence=f"{ref.path} takes messages",
            path=ref.path,
            incarnation=ref.incarnation,
        )

    def _agent_to(
        self, act: str, params: wire.Suspend | wire.Resume, client: Client
    ) -> AgentRef[Any]:
        """The agent that is aimed at; that somebody did it is recorded."""
        node, _ = self._aim(params.path, params.incarnation)
        path = self._body(node.path).node.path
        by = client.operator or client.name
        self._record(f"operator.{act}", {"path": path}, by)
        return AgentRef(self._directory, path)

    async def _inject(self, params: wire.Inject, client: Client) -> wire.Done:
        node, _ = self._aim(params.path, params.incarnation)
        self._injections.crash(node.path, by=client.operator or client.name)
        return wire.Done(
            sentence=f"a crash was injected into {node.path}",
            path=node.path,
            incarnation=node.incarnation,
        )

    async def _injections_list(
        self, _: wire.GetInjections, __: Client
    ) -> wire.Injections:
        return wire.Injections(
            points=[point_row(point) for point in POINTS.values()],
            plans=[plan_row(loaded) for loaded in self._injections.loaded],
        )

    async def _load(self, params: wire.Load, client: Client) -> wire.Done:
        by = client.operator or client.name
        loaded = self._injections.load(parse_plan(params.plan), by=by)
        return wire.Done(
            sentence=f"the plan {loaded.plan.name!r} is loaded; it ends by itself in"
            f" {loaded.plan.seconds:g} s"
        )

    async def _lift(self, params: wire.Lift, client: Client) -> wire.Done:
        self._record(
            "operator.lift", {"plan": params.name}, client.operator or client.name
        )
        loaded = self._injections.lift(params.name)
        return wire.Done(
            sentence=f"the plan {loaded.plan.name!r} is lifted; done {loaded.done} times"
        )

    async def _circuit(self, params: wire.CircuitAct, client: Client) -> wire.Done:
        circuit = self._circuits.get(params.name)
        if circuit is None:
            known = ", ".join(one.name for one in self._circuits.list()) or "none"
            raise NameUnknown(
                params.name, f"there is no circuit {params.name!r}; there are: {known}"
            )
        by = client.operator or client.name
        self._record(f"operator.{params.act}", {"circuit": params.name}, by)
        acts = {
            "trip": circuit.trip,
            "reset": circuit.reset,
            "disable": circuit.disable,
            "metrics-only": circuit.observe,
        }
        acts[params.act](by=by)
        return wire.Done(sentence=f"circuit {circuit.name} is {circuit.state} now")

    async def _call(self, params: wire.Call, client: Client) -> wire.CallResult:
        body = self._body(params.agent)
        operation = body.operation(params.operation)
        arguments = operation.parse(params.arguments)
        by = client.operator or client.name
        self._record(
            "operator.call", {"path": body.node.path, "operation": operation.name}, by
        )
        ref: AgentRef[Any] = AgentRef(self._directory, body.node.path)
        if params.seconds is not None:
            ref = ref.with_timeout(params.seconds)
        value = await ref.send_call(operation.name, (), arguments)
        return wire.CallResult(value=wire.Raw(msgspec.json.encode(value)))

    async def _shutdown(self, _: wire.Shutdown, client: Client) -> wire.Done:
        self._record("operator.shutdown", {}, client.operator or client.name)
        self._stop_runtime()
        return wire.Done(sentence="the runtime is stopping")


def _listed(
    kind: Callable[..., Message],
    rows: Callable[[], Sequence[Message]],
    most: int | None = _MOST_ROWS,
) -> Callable[[Message, Client], Awaitable[Message]]:
    """How a request for the rows of something is answered: with the first `most`."""

    async def answer(_: Message, __: Client) -> Message:
        found = rows()
        shown = found[:most]
        return kind(rows=shown, more=len(shown) < len(found))

    return answer


def _as_filter(criterion: wire.Criterion) -> StateFilter:
    try:
        return StateFilter(criterion.field, criterion.op, criterion.value)
    except (TypeError, ValueError) as error:
        raise NotAllowed(str(error)) from error


def _shows(body: AgentBody, filters: Sequence[StateFilter]) -> bool:
    """Whether people may see all that was asked: an answer would tell what is redacted."""
    shown, kept = body.memory.shown(), body.memory.committed
    if shown == kept:
        return True
    seen, whole = (msgspec.json.decode(one or b"null") for one in (shown, kept))
    return all(one.look_up(seen) == one.look_up(whole) for one in filters)
