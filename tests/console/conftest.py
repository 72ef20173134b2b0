"""A canned crawler: frames as a runtime would send them, at a frozen time.

`console()` makes an app over a `CannedLink`, which tells these frames and writes down
what is asked of it. Nothing ticks by itself: a test calls `app.tick()`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from treewarden.control.protocol import (
    METHODS,
    Act,
    AgentRow,
    AgentState,
    AgentsUpdate,
    AlarmRow,
    AlarmsUpdate,
    BusUpdate,
    CircuitRow,
    CircuitsUpdate,
    CollectionRow,
    DeadLetterRow,
    DeadLetters,
    Done,
    EventRow,
    Events,
    EventsUpdate,
    Exchanges,
    Explanation,
    FaultRow,
    GatewayRow,
    Gateways,
    GaugeRow,
    Gauges,
    HealthOfSubjects,
    HealthRow,
    LayerRow,
    LineRow,
    MeetingRow,
    Meetings,
    Message,
    NodeRow,
    OperationRow,
    Operations,
    PoliciesUpdate,
    PolicyRow,
    Preview,
    ProcessRow,
    ProcessUpdate,
    Queues,
    Raw,
    Rights,
    RuntimeRow,
    StepRow,
    Steps,
    SubscriptionRow,
    Subscriptions,
    TreeUpdate,
    Update,
    Watching,
    Welcome,
    WorkflowRow,
    Workflows,
)
from treewarden_console.app import TreewardenConsole
from treewarden_console.link import Connected, Lost, RequestFailed, Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot

NOON = 1_767_614_400_000_000_000  # 2026-01-05 12:00:00 UTC
NOW = NOON + 275_882_000_000  # 12:04:35.882
UPTIME = 1083.0


def ago(seconds: float) -> int:
    """An instant before the frozen present."""
    return NOW - int(seconds * 1e9)


def raw(value: object) -> Raw:
    """A value as it travels."""
    return Raw(msgspec.json.encode(value))


def node(
    path: str,
    kind: Any = "agent",
    state: Any = "running",
    *,
    order: int = 0,
    up: float = UPTIME,
    **more: Any,
) -> NodeRow:
    """A node; parent and id come from its path."""
    parent, _, id_ = path.rpartition("/")
    more.setdefault("incarnation", 1 + more.get("restarts", 0))
    return NodeRow(
        path=path,
        id=more.pop("id", id_),
        kind=kind,
        state=state,
        parent=more.pop("parent", parent or "/"),
        order=order,
        started_at_ns=ago(up),
        system=path.startswith("/system"),
        **more,
    )


def nodes() -> list[NodeRow]:
    """The crawler's tree: one fetcher restarts, one site has died for good."""
    budget: dict[str, Any] = {"budget_limit": 3, "budget_period": 5.0}
    return [
        node(
            "/",
            "supervisor",
            id="crawler",
            parent=None,
            strategy="one_for_one",
            **budget,
        ),
        node("/system", "supervisor", strategy="rest_for_one", order=0, **budget),
        node("/system/store", "task", order=0),
        node("/system/bus", "task", order=1),
        node("/system/control", "task", order=2),
        node("/sites", "supervisor", strategy="one_for_one", order=1, **budget),
        node("/sites/healthy", "task", order=0),
        node("/sites/slow", "task", order=1),
        node("/sites/flaky", "task", order=2),
        node(
            "/sites/dying",
            "task",
            "failed",
            order=3,
            restarts=4,
            last_exit="crashed: OSError: address already in use",
        ),
        node("/frontier", order=2, restarts=1, up=212, last_exit="crashed: Injected"),
        node(
            "/fetchers",
            "supervisor",
            strategy="dynamic",
            order=3,
            budget_spent=1,
            **budget,
        ),
        node("/fetchers/f-1", order=0, label="asyncio.html"),
        node("/fetchers/f-2", order=1, label="email.policy.html"),
        node(
            "/fetchers/f-3",
            order=2,
            restarts=2,
            up=4.2,
            last_exit="crashed: httpx.ReadTimeout: no answer within 2 s",
        ),
        node("/fetchers/f-4", state="restarting", order=3, restarts=1),
        node("/fetchers/f-5", order=4, state="suspended"),
        node("/fetchers/f-6", order=5, state="starting"),
        node("/indexer", order=4),
        node("/progress", order=5),
    ]


def agent(path: str, mailbox: int = 0, **more: Any) -> AgentRow:
    """An agent's row."""
    more.setdefault("incarnation", 1)
    more.setdefault("type", "Fetcher")
    return AgentRow(
        path=path,
        mailbox=mailbox,
        capacity=1000,
        handled=more.pop("handled", 40),
        state_version=more.pop("state_version", 12),
        state_bytes=more.pop("state_bytes", 412),
        **more,
    )


def agents() -> list[AgentRow]:
    """The agents of the crawler."""
    return [
        agent("/frontier", 3, type="Frontier", incarnation=2, handled=1204),
        *(agent(f"/fetchers/f-{n}", handled=40 + n) for n in (1, 2)),
        agent("/fetchers/f-3", 14, incarnation=3, handled=31, failed=2, doing="fetch"),
        agent("/fetchers/f-4", 1000, incarnation=2, waiting_senders=2),
        agent("/fetchers/f-5", 611),
        agent("/fetchers/f-6"),
        agent("/indexer", 1, type="Indexer", state_version=188, handled=188),
        agent("/progress", type="Progress", state_version=3, state_bytes=80),
    ]


def circuits() -> list[CircuitRow]:
    """A circuit in every state that matters."""
    return [
        CircuitRow(
            name="site:healthy",
            state="closed",
            since_ns=ago(UPTIME),
            window_calls=20,
            threshold="5 failures",
            calls=412,
            succeeded=412,
        ),
        CircuitRow(
            name="site:slow",
            state="half_open",
            since_ns=ago(2.5),
            window_calls=3,
            window_failures=1,
            threshold="5 failures",
            calls=88,
            succeeded=80,
            failed=8,
            rejected=4,
            opened=1,
            last_error="httpx.ReadTimeout: no answer within 2 s",
        ),
        CircuitRow(
            name="site:flaky",
            state="forced_open",
            since_ns=ago(62),
            threshold="5 failures",
            calls=120,
            succeeded=70,
            failed=50,
            opened=2,
        ),
        CircuitRow(
            name="site:dying",
            state="open",
            since_ns=ago(4),
            window_calls=5,
            window_failures=5,
            threshold="5 failures",
            retry_after=18.0,
            calls=31,
            succeeded=12,
            failed=19,
            rejected=41,
            opened=3,
            last_error="httpx.ConnectError: all connection attempts failed",
        ),
        CircuitRow(name="smtp", state="disabled", since_ns=ago(UPTIME)),
    ]


def policies() -> list[PolicyRow]:
    """The policies of two sites: one is well, of the other much is wrong."""

    def layer(name: str, **numbers: str | float | None) -> LayerRow:
        return LayerRow(layer=name, numbers={"name": name, **numbers})

    return [
        PolicyRow(
            name="site:healthy",
            calls=412,
            succeeded=411,
            in_flight=1,
            layers=[
                layer("timeout", seconds=10.0, calls=412, returned=411, in_flight=1),
                layer("bulkhead", limit=8, taken=1, in_flight=1, waiting=0),
            ],
        ),
        PolicyRow(
            name="site:dying",
            calls=41,
            succeeded=12,
            failed=27,
            cancelled=1,
            in_flight=1,
            layers=[
                layer("timeout", seconds=10.0, calls=41, returned=12, timed_out=2),
                layer(
                    "retry",
                    calls=41,
                    attempts=60,
                    retried=7,
                    exhausted=8,
                    waiting=1,
                    **{"budget.retries": 3, "budget.allowed": 4.25},
                ),
                layer("circuit", state="open", calls=31, failed=19, rejected=41),
                layer(
                    "rate",
                    limit="5 at once, then 20 a 1 s",
                    granted=31,
                    waiting=3,
                    penalty=1.5,
                ),
                layer("bulkhead", limit=4, taken=4, in_flight=4, waiting=2, refused=1),
            ],
        ),
    ]


def subscriptions() -> list[SubscriptionRow]:
    """A durable one that is behind, one that lost, one that is fine."""
    return [
        SubscriptionRow(
            id="/census:page.indexed",
            pattern="page.indexed",
            owner="/census",
            capacity=1000,
            published=1204,
            delivered=1190,
            pending=14,
            durable=True,
            cursor=4711,
            lag=21,
            leased=2,
            waiting=1,
            redelivered=3,
            last_fault="ValueError: no such site at census.py:40",
            retention="pause_publisher",
            holds=True,
            paused=2,
            refused=5,
        ),
        SubscriptionRow(
            id="subscription-2",
            pattern="site.>",
            owner="/progress",
            capacity=10,
            overflow="drop_oldest",
            published=40,
            delivered=24,
            dropped=6,
            pending=10,
            dropped_by={"overflow": 6},
        ),
        SubscriptionRow(
            id="subscription-3", pattern=">", capacity=1000, published=8, delivered=8
        ),
    ]


def asked_subscriptions() -> list[SubscriptionRow]:
    """All of them as they are answered: with how many bytes behind the durable ones are."""
    census, *others = subscriptions()
    behind = msgspec.structs.replace(census, lag_bytes=1_363_149)
    return [behind, *others, idle_subscription()]


def idle_subscription() -> SubscriptionRow:
    """A durable one that nobody takes events of."""
    return SubscriptionRow(
        id="reports",
        pattern="report.*",
        published=161,
        dropped=120,
        pending=41,
        dropped_by={"expired": 120},
        durable=True,
        members=0,
        cursor=4400,
        lag=332,
        retention="drop_and_mark_gap",
        gaps=1,
        lag_bytes=48_128,
    )


def letters() -> list[DeadLetterRow]:
    """A message and an event that were given up."""
    return [
        DeadLetterRow(
            number=7,
            path="/fetchers/f-3",
            operation="fetch",
            attempts=3,
            reason="max_attempts",
            at_ns=ago(62),
            sender="/frontier",
        ),
        DeadLetterRow(
            number=9,
            path="/census",
            subscription="page.indexed",
            operation="page.indexed",
            attempts=5,
            reason="max_attempts",
            at_ns=ago(9),
            content=raw({"url": "http://slow.localhost/abc.html", "site": "slow"}),
        ),
    ]


def lines() -> list[LineRow]:
    """A receiver that gets what it is sent, and one in trouble."""
    shared: dict[str, Any] = {"exchange": "/system/exchange", "capacity": 1000}
    return [
        LineRow(
            receiver="/indexer",
            circuit="closed",
            stalled=False,
            pending=1,
            accepted=1204,
            delivered=1203,
            failed=0,
            dropped=0,
            withdrawn=0,
            refused=0,
            attempts=0,
            **shared,
        ),
        LineRow(
            receiver="/mailer",
            circuit="open",
            stalled=True,
            pending=611,
            accepted=800,
            delivered=170,
            failed=9,
            dropped=4,
            withdrawn=6,
            refused=2,
            attempts=3,
            last_error="Refused: the disk is full",
            **shared,
        ),
    ]


def meetings() -> list[MeetingRow]:
    """One of each kind; the office is vacant."""
    return [
        MeetingRow(
            kind="lock",
            name="robots",
            number=41,
            waiting=3,
            holder="/fetchers/f-1",
            since_ns=ago(7),
        ),
        MeetingRow(kind="election", name="leader", number=7, waiting=2),
        MeetingRow(kind="barrier", name="crawled", number=6, waiting=4),
        MeetingRow(kind="ballot", name="reindex", number=3, waiting=1),
    ]


def workflows() -> list[WorkflowRow]:
    """One that needs a person, one that runs, one that is over."""
    return [
        WorkflowRow(
            id="site:dying",
            name="crawl_site",
            version=2,
            state="needs_attention",
            steps_over=2,
            attempts=4,
            reason="compensation close failed: OSError: address already in use",
            begun_at_ns=ago(300),
            ended_at_ns=None,
        ),
        WorkflowRow(
            id="site:slow",
            name="crawl_site",
            version=2,
            state="running",
            steps_over=1,
            attempts=0,
            reason="",
            begun_at_ns=ago(280),
            ended_at_ns=None,
        ),
        WorkflowRow(
            id="site:healthy",
            name="crawl_site",
            version=2,
            state="completed",
            steps_over=3,
            attempts=0,
            reason="",
            begun_at_ns=ago(310),
            ended_at_ns=ago(250),
        ),
    ]


def steps() -> Steps:
    """What the one that needs a person has done."""
    return Steps(
        workflow="site:dying",
        rows=[
            StepRow(
                number=1,
                name="open",
                state="done",
                attempts=1,
                at_ns=ago(299),
                compensation="close",
                undo_failures=4,
            ),
            StepRow(
                number=2, name="fetch_rules", state="done", attempts=2, at_ns=ago(290)
            ),
            StepRow(
                number=3,
                name="crawl",
                state="failed",
                attempts=3,
                at_ns=ago(240),
                error="ConnectError: all connection attempts failed",
            ),
        ],
    )


def collections() -> list[CollectionRow]:
    """A queue and a map."""
    return [
        CollectionRow(path="/frontier", name="pending", kind="queue", items=1188),
        CollectionRow(path="/frontier", name="seen", kind="map", items=4021),
    ]


def health() -> list[HealthRow]:
    """A subject that is well, and one that does not answer."""
    return [
        HealthRow(
            subject="/indexer",
            status="healthy",
            reason="",
            since_ns=ago(UPTIME),
            checks=36,
            failures=0,
            late=0,
        ),
        HealthRow(
            subject="/sites/dying",
            status="unresponsive",
            reason="no answer within 5 s",
            since_ns=ago(40),
            checks=36,
            failures=4,
            late=2,
        ),
    ]


def gateways() -> list[GatewayRow]:
    """A client with a line before it, and a program that runs."""
    return [
        GatewayRow(
            kind="http",
            name="web",
            active=8,
            limit=8,
            waiting=3,
            queue=16,
            asked=651,
            succeeded=574,
            failed=68,
            cancelled=1,
            refused=2,
            numbers={"200": 560, "404": 14, "connect": 60, "timeout": 8},
        ),
        GatewayRow(
            kind="programs",
            name="programs",
            active=1,
            limit=4,
            waiting=0,
            queue=16,
            asked=3,
            succeeded=1,
            failed=1,
            cancelled=0,
            refused=0,
            numbers={"timed_out": 1},
            running=["/usr/bin/pandoc (4712) for /indexer"],
        ),
    ]


def gauges() -> list[GaugeRow]:
    """One that is moderate, and one that cannot be read."""
    return [
        GaugeRow(
            name="memory",
            value=float(750 << 20),
            limit=float(1 << 30),
            share=0.73,
            pressure="moderate",
            guards=True,
            age=12.0,
            failures=0,
        ),
        GaugeRow(
            name="connections",
            limit=200.0,
            pressure="normal",
            guards=False,
            failures=3,
            error="OSError: permission denied",
        ),
    ]


def operations() -> list[OperationRow]:
    """One that is timed."""
    return [
        OperationRow(
            name="http:site:slow",
            count=88,
            succeeded=80,
            failed=7,
            cancelled=1,
            minimum=0.012,
            mean=0.84,
            maximum=2.01,
            p95=1.9,
            recent=88,
            recent_failures=7,
        )
    ]


def event(position: int, seconds: float, topic: str, **payload: Any) -> EventRow:
    """A report of the journal, as the runtime words it."""
    return EventRow(
        position=position,
        topic=topic,
        at_ns=ago(seconds),
        kind="report",
        source=payload.pop("source", ""),
        trace=payload.pop("trace", ""),
        payload=raw(payload),
    )


def events() -> list[EventRow]:
    """What happened last."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    return [
        EventRow(
            position=1201,
            topic="page.indexed",
            at_ns=ago(9.1),
            source="/indexer",
            payload=raw({"url": "email.policy.html", "words": 2140}),
        ),
        event(
            1202,
            4.3,
            "circuit.open",
            source="site:dying",
            circuit="site:dying",
            **{"from": "closed"},
            reason="5 of 5 calls failed",
            calls=5,
            failures=5,
            trace=trace,
        ),
        event(
            1203,
            4.25,
            "supervision.exited",
            source="/fetchers/f-3",
            incarnation=2,
            exit="crashed: httpx.ReadTimeout: no answer within 2 s",
            where="fetchers.py:88",
            trace=trace,
        ),
        event(
            1204,
            4.2,
            "supervision.restarted",
            source="/fetchers/f-3",
            incarnation=3,
            exit="crashed: httpx.ReadTimeout: no answer within 2 s",
            cause="crash",
            origin="/fetchers/f-3",
            trace=trace,
        ),
        EventRow(
            position=1205,
            topic="page.fetched",
            at_ns=ago(0.4),
            source="/fetchers/f-1",
            payload=raw({"url": "asyncio.html", "bytes": 18201, "status": 200}),
        ),
    ]


def process() -> ProcessRow:
    """The process, now."""
    return ProcessRow(
        at_ns=NOW,
        uptime=UPTIME,
        cpu_seconds=41.2,
        rss_bytes=88 << 20,
        tasks=61,
        loop_lag=0.0028,
        nodes=20,
        commits=900,
        units=4100,
        store_bytes=3 << 20,
        published=2210,
        clients=1,
    )


def explanation() -> Explanation:
    """Why f-3 restarted."""
    return Explanation(
        path="/fetchers/f-3",
        incarnation=3,
        cause="crash",
        sentence="f-3 crashed in fetch: no answer within 2 s; it was restarted alone",
        at_ns=ago(4.2),
        origin="/fetchers/f-3",
        message="fetch('dying', 'xml.sax.html')",
        fault=FaultRow(
            type="httpx.ReadTimeout",
            message="no answer within 2 s",
            frames=[
                ("treewarden/agents/agent.py", 212, "_handle"),
                ("treewarden/demo/fetchers.py", 88, "fetch"),
                ("httpx/_transports/default.py", 118, "map_httpcore_exceptions"),
            ],
            path="/fetchers/f-3",
            incarnation=2,
            cause=FaultRow(
                type="httpcore.ReadTimeout",
                message="",
                frames=[("httpcore/_backends/trio.py", 33, "read")],
            ),
        ),
        took_down=[],
        state_before=raw({"pages": 31, "site": "dying", "url": "xml.sax.html"}),
        state_after=raw({"pages": 31, "site": "dying", "url": None, "tries": 1}),
        chain=events()[1:4],
    )


def preview() -> Preview:
    """What a crash of f-3 would do."""
    return Preview(
        act=Act.CRASH,
        path="/fetchers/f-3",
        incarnation=3,
        stops=["/fetchers/f-3"],
        starts=["/fetchers/f-3"],
        sentence="f-3 crashes and is restarted alone (dynamic under /fetchers)",
        spent=1,
        limit=3,
        period=5.0,
        messages_waiting=14,
    )


def agent_state() -> AgentState:
    """What the frontier knows."""
    return AgentState(
        path="/frontier",
        type="Frontier",
        version=12,
        incarnation=2,
        state=raw(
            {
                "site": "all",
                "handed_out": 1188,
                "acknowledged": 1181,
                "limits": {"healthy": 4, "slow": 1, "flaky": 2, "dying": 1},
                "note": "crawl of 3.11",
            }
        ),
        size_bytes=412,
        committed_at_ns=ago(0.4),
    )


def welcome(boot: str = "boot-1", rights: Rights = Rights.CHAOS) -> Welcome:
    """The runtime's answer to hello."""
    return Welcome(
        protocol=1,
        rights=rights,
        runtime=RuntimeRow(
            name="crawler",
            pid=4711,
            boot=boot,
            version="0.1.0",
            started_at_ns=ago(UPTIME),
            level="durable",
            rights=rights,
        ),
    )


def alarm(
    id_: int, severity: Any = "warning", *, acknowledged_by: str = ""
) -> AlarmRow:
    """Something that is wrong since ten seconds."""
    return AlarmRow(
        id=id_,
        name="cpu",
        severity=severity,
        message="the process is busy",
        opened_at_ns=ago(10),
        updated_at_ns=ago(1),
        count=2,
        acknowledged_by=acknowledged_by,
    )


def alarms() -> AlarmsUpdate:
    """A critical alarm, and two warnings of which one is known."""
    known = alarm(3, acknowledged_by="ada")
    return AlarmsUpdate(
        sequence=1, full=True, rows=[alarm(1), alarm(2, "critical"), known]
    )


def snapshot() -> list[Update]:
    """A full update of every topic."""
    return [
        TreeUpdate(sequence=1, full=True, rows=nodes()),
        AgentsUpdate(sequence=1, full=True, rows=agents()),
        CircuitsUpdate(sequence=1, full=True, rows=circuits()),
        PoliciesUpdate(sequence=1, full=True, rows=policies()),
        BusUpdate(sequence=1, full=True, rows=subscriptions()),
        AlarmsUpdate(sequence=1, full=True),
        EventsUpdate(sequence=1, full=True, rows=events()),
        ProcessUpdate(sequence=1, full=True, rows=[process()]),
    ]


def answers() -> dict[str, Message | Exception]:
    """A reply for each method."""
    return {
        "why": explanation(),
        "preview": preview(),
        "state": agent_state(),
        "events": Events(rows=events(), position=1205),
        "inject": Done(sentence="f-3 crashed and runs again as incarnation 4"),
        "restart": Done(sentence="f-3 was restarted, incarnation 4"),
        "stop": Done(sentence="f-3 was stopped"),
        "circuit": Done(sentence="site:dying is closed"),
        "subscriptions": Subscriptions(rows=asked_subscriptions()),
        "dead_letters": DeadLetters(rows=letters()),
        "dead_letter": Done(sentence="dead letter 9 is to be delivered again"),
        "subscription": Done(sentence="subscription reports is forgotten"),
        "exchanges": Exchanges(rows=lines()),
        "meetings": Meetings(rows=meetings()),
        "workflows": Workflows(rows=workflows()),
        "steps": steps(),
        "workflow": Done(sentence="workflow site:dying is running now"),
        "queues": Queues(rows=collections()),
        "health": HealthOfSubjects(rows=health()),
        "gateways": Gateways(rows=gateways()),
        "gauges": Gauges(rows=gauges()),
        "operations": Operations(rows=operations()),
        "acknowledge": Done(sentence="alarm 1 is acknowledged by alice"),
        "shutdown": Done(sentence="the runtime stops"),
        "unwatch": Watching(topics=[]),
    }


@dataclass
class CannedLink:
    """Tells frames and answers requests as it was told to; writes down every request."""

    news: list[Connected | Lost | Told] = field(default_factory=list)
    answers: dict[str, Message | Exception] = field(default_factory=answers)
    asked: list[tuple[str, Message]] = field(default_factory=list)
    tell: Callable[[Connected | Lost | Told], None] | None = None

    async def run(self, tell: Callable[[Connected | Lost | Told], None]) -> None:
        """Tell what was canned, then wait for more through `send`."""
        self.tell = tell
        for one in self.news:
            tell(one)
        await asyncio.Event().wait()

    def send(self, *updates: Update) -> None:
        """Tell more."""
        assert self.tell is not None
        for update in updates:
            self.tell(Told(update=update))

    async def request(self, method: str, params: Message) -> Message:
        """Answer from the table."""
        self.asked.append((method, params))
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise RequestFailed("ControlError", f"no answer to {method} is canned")
        return answer

    async def farewell(self) -> None:
        """Leave."""
        self.asked.append(("farewell", Message()))

    def acts(self) -> list[tuple[str, Message]]:
        """The requests that change something."""
        return [
            (method, params)
            for method, params in self.asked
            if method in METHODS and METHODS[method].rights is not Rights.RO
        ]


class Clock:
    """The console's monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the app that `console` makes."""
    return Clock()


@pytest.fixture
def canned() -> Any:
    """This module's canned rows and frames, by name."""
    return _Canned


class _Canned:
    ago = staticmethod(ago)
    raw = staticmethod(raw)
    node = staticmethod(node)
    nodes = staticmethod(nodes)
    agent = staticmethod(agent)
    agents = staticmethod(agents)
    circuits = staticmethod(circuits)
    policies = staticmethod(policies)
    subscriptions = staticmethod(subscriptions)
    idle_subscription = staticmethod(idle_subscription)
    letters = staticmethod(letters)
    lines = staticmethod(lines)
    meetings = staticmethod(meetings)
    workflows = staticmethod(workflows)
    steps = staticmethod(steps)
    collections = staticmethod(collections)
    health = staticmethod(health)
    gateways = staticmethod(gateways)
    gauges = staticmethod(gauges)
    operations = staticmethod(operations)
    event = staticmethod(event)
    events = staticmethod(events)
    process = staticmethod(process)
    explanation = staticmethod(explanation)
    preview = staticmethod(preview)
    agent_state = staticmethod(agent_state)
    welcome = staticmethod(welcome)
    alarm = staticmethod(alarm)
    alarms = staticmethod(alarms)
    snapshot = staticmethod(snapshot)
    Link = CannedLink


@pytest.fixture
def console(clock: Clock) -> Callable[..., TreewardenConsole]:
    """Make an app over canned frames; `news` None is a live runtime in full."""

    def make(
        *,
        news: list[Connected | Lost | Told] | None = None,
        rights: Rights = Rights.CHAOS,
        answers: dict[str, Message | Exception] | None = None,
        **options: Any,
    ) -> TreewardenConsole:
        if news is None:
            told = [Told(update=update) for update in snapshot()]
            news = [Connected(welcome=welcome(rights=rights)), *told]
        link = CannedLink(news=news)
        link.answers.update(answers or {})
        return TreewardenConsole(
            link, operator="alice", zone=UTC, now=clock, ticking=False, **options
        )

    return make


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run a journey through an app: `drive(app, journey, size=(120, 36))`."""

    def run(
        app: TreewardenConsole,
        journey: Callable[[Pilot[None]], Awaitable[None]],
        size: tuple[int, int] = (120, 36),
    ) -> None:
        async def main() -> None:
            async with app.run_test(size=size) as pilot:
                await pilot.pause()
                app.tick()
                await pilot.pause()
                await journey(pilot)

        asyncio.run(main())

    return run


@pytest.fixture(autouse=True)
def _steady_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour is on unless a test switches it off."""
    monkeypatch.delenv("NO_COLOR", raising=False)


_LEAST, _MOST, _TURNS = 5, 100, 40
"""Rounds of a pause; in each of them all is drawn, and what that causes is let happen."""
_RESIZED = 0.02
"""Seconds after which Textual has passed on a new size; it waits for 1/120 s."""


@pytest.fixture(autouse=True)
def _steady_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pilot pauses for turns of the loop and rounds of drawing.

    Textual's own pause guesses from the process's share of the processor whether it has
    finished, draws by a timer meanwhile, and guesses wrong on a machine that is busy with
    something else. Nothing that these tests wait for takes time but two timers of Textual:
    that for a new size is due before our sleep is over, and while the other one holds back
    a new screen there is a batch. The link is canned and the clock stands still.
    """

    async def turns(*_: float) -> None:
        for _turn in range(_TURNS):
            await asyncio.sleep(0)

    async def pause(self: Pilot[None], delay: float | None = None) -> None:
        await asyncio.sleep(_RESIZED)
        for done in range(_MOST):
            await turns()
            app, screen = self.app, self.app.screen
            # A new screen is mounted after all that is on it.
            drawn = screen.is_mounted and not (
                screen._layout_required or screen._dirty_widgets
            )
            if app._exit or (done >= _LEAST and drawn and not app._batch_count):
                return
            if app._batch_count:
                await asyncio.sleep(_RESIZED)
            screen._on_timer_update()

    monkeypatch.setattr("textual.app.wait_for_idle", turns)
    monkeypatch.setattr("textual.pilot.Pilot.pause", pause)
