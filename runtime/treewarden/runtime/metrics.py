"""What a runtime measures of itself, by OpenTelemetry's names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import trio

from treewarden.clock import wall_ns
from treewarden.supervision import Kind
from treewarden.telemetry import (
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
    new_context,
)

if TYPE_CHECKING:
    from treewarden.agents import AgentBody
    from treewarden.supervision import Directory

    from .runtime import Runtime

Rows: TypeAlias = list[tuple[dict[str, str], float]]


def measure(runtime: Runtime) -> None:
    """Have every metric of a runtime observed; its store is up."""
    metrics, directory = runtime.telemetry.metrics, runtime.directory
    news, vitals = runtime.news, runtime.vitals
    observe = metrics.observe
    observe(
        MAILBOX_DEPTH,
        "{message}",
        "Messages waiting",
        partial(_mailbox_depths, directory),
    )
    observe(
        NODE_RESTARTS, "{restart}", "Restarts",
        lambda: [({"path": n.path}, n.restarts) for n in directory.nodes()],
        "counter",
    )  # fmt: skip
    observe(
        NODE_EXITS, "{exit}", "Ends by kind",
        lambda: [({"kind": kind}, n) for kind, n in news.exits.items()], "counter",
    )  # fmt: skip
    observe(
        BUS_PUBLISHED,
        "{event}",
        "Events published",
        partial(_published, runtime),
        "counter",
    )
    observe(
        BUS_DROPPED, "{event}", "Events dropped", partial(_dropped, runtime), "counter"
    )
    observe(BUS_PENDING, "{event}", "Events waiting", partial(_pending, runtime))
    observe(
        CIRCUIT_STATE, "1", "1 for the state a circuit is in", partial(_states, runtime)
    )
    observe(LOOP_LAG, "s", "Lateness of the loop", lambda: [({}, vitals.loop_lag)])
    observe(TASKS, "{task}", "Tasks alive", _tasks)
    observe(
        CIRCUIT_TRANSITIONS, "{transition}", "Moves into a state",
        lambda: [
            ({"circuit": circuit, "state": state}, n)
            for (circuit, state), n in news.moves.items()
        ],
        "counter",
    )  # fmt: skip
    _observe_commits(runtime)


def _observe_commits(runtime: Runtime) -> None:
    metrics, spans = runtime.telemetry.metrics, runtime.telemetry.spans
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

    runtime.store.observe_commits(committed)


def _mailbox_depths(directory: Directory) -> Rows:
    return [
        ({"path": node.path}, len(cast("AgentBody", node.body).mailbox))
        for node in directory.nodes()
        if node.body.kind is Kind.AGENT
    ]


def _published(runtime: Runtime) -> Rows:
    return [({}, runtime.bus.statistics().published)]


def _dropped(runtime: Runtime) -> Rows:
    return [({}, runtime.bus.statistics().dropped)]


def _pending(runtime: Runtime) -> Rows:
    found = runtime.bus.statistics()
    rows: list[tuple[str, float]] = [
        *((one.pattern, one.pending) for one in found.subscriptions),
        *((one.pattern, one.pending) for one in found.durable),
    ]
    return [({"pattern": pattern}, pending) for pattern, pending in rows]


def _states(runtime: Runtime) -> Rows:
    return [
        ({"circuit": one.name, "state": one.state.value}, 1)
        for one in runtime.circuits.statistics()
    ]


def _tasks() -> Rows:
    return [({}, trio.lowlevel.current_statistics().tasks_living)]
