"""Answers as text for people and as JSON for programs.

Text from the runtime is never trusted: `plain` shows what a terminal would obey. JSON is
ASCII, so that no character in it means anything to a terminal either.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.control.plain import plain, plain_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from treewarden.control import FoundRuntime
    from treewarden.control.protocol import (
        AgentRow,
        AgentState,
        AlarmRow,
        CircuitRow,
        CollectionRow,
        DeadLetterRow,
        EventRow,
        Explanation,
        FaultRow,
        GatewayRow,
        GaugeRow,
        HealthRow,
        Injections,
        LineRow,
        MeetingRow,
        NodeRow,
        OperationRow,
        PolicyRow,
        StepRow,
        SubscriptionRow,
        WorkflowRow,
    )

# A cell that is longer than this says less, not more; `--json` has all of it.
_CELL: Final = 200
# What stands last is the longest as a rule, and is cut where a terminal has no room, but
# not to less than this: then lines are broken anyway.
_LAST_CELL: Final = 12
_NODE_KEYS: Final = ("path", "id", "kind", "state", "incarnation", "restarts")


def as_json(value: object) -> str:
    """One line of JSON, all fields present, ASCII only."""
    return json.dumps(_builtins(value))


def _builtins(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, msgspec.Struct):
        return {
            key: _builtins(one) for key, one in msgspec.structs.asdict(value).items()
        }
    if isinstance(value, dict):
        return {key: _builtins(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_builtins(one) for one in value]
    return value


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None
) -> str:
    """Columns as wide as their contents; every cell on one line.

    Lines have at most `width` characters if cutting the last column is enough for that.
    None: as many as the terminal has; any number without one.
    """
    room = _terminal_width() if width is None else width
    cells = [list(headers), *([plain(str(one), _CELL) for one in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headers))]
    left = room - sum(widths[:-1]) - 2 * len(widths[:-1])
    last = left if left >= _LAST_CELL else sys.maxsize
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in ([*row[:-1], _cut(row[-1], last)] for row in cells)
    )
    return "\n".join(line.rstrip() for line in lines)


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


# --- the tree --------------------------------------------------------------------------------


def tree_json(rows: Sequence[NodeRow], level: str) -> str:
    """`{"level", "nodes": [...]}`: what an acknowledged change survives, and the nodes.

    Nested, each `path id kind state incarnation restarts children`.
    """
    nodes: dict[str, dict[str, Any]] = {}
    top: list[dict[str, Any]] = []
    for row in rows:
        node = {key: getattr(row, key) for key in _NODE_KEYS} | {"children": []}
        nodes[row.path] = node
        parent = nodes.get(row.parent) if row.parent is not None else None
        (top if parent is None else parent["children"]).append(node)
    # Plain values already, and as deep as the tree: not one call more a level than needed.
    return json.dumps({"level": level, "nodes": top})


def tree_text(rows: Sequence[NodeRow], *, fold: str = "") -> str:
    """An indented table of the nodes.

    Those below the node `fold` are only counted while they are all well: they run, and
    none was ever restarted.
    """
    depths: dict[str, int] = {}
    for row in rows:
        depths[row.path] = depths.get(row.parent or "", -1) + 1
    below = [row for row in rows if fold and row.path.startswith(f"{fold}/")]
    folded = {row.path for row in below}
    if any(row.state != "running" or row.restarts for row in below):
        folded = set()
    count = {fold: f" ({len(folded)})"} if folded else {}
    return table(
        ("NODE", "KIND", "STATE", "INCARNATION", "RESTARTS", "LAST EXIT"),
        (
            (
                "  " * depths[row.path]
                + (row.id or row.path)
                + count.get(row.path, ""),
                row.kind,
                row.state,
                row.incarnation,
                row.restarts,
                row.last_exit,
            )
            for row in rows
            if row.path not in folded
        ),
    )


# --- lists -----------------------------------------------------------------------------------


def runtimes_text(found: Sequence[FoundRuntime]) -> str:
    """A table of the runtimes on this machine."""
    return table(
        ("NAME", "PID", "LEVEL", "SINCE", "SOCKET", "STORE"),
        (
            (one.name, "?", "does not answer", "", one.path, "")
            if one.runtime is None
            else (
                one.name,
                one.runtime.pid,
                one.runtime.level,
                when(one.runtime.started_at_ns),
                one.path,
                one.runtime.store or "",
            )
            for one in found
        ),
    )


def runtimes_json(found: Sequence[FoundRuntime]) -> str:
    """`{"runtimes": [{"name", "socket", "runtime"}]}`; runtime null: it does not answer."""
    rows = [
        {"name": one.name, "socket": str(one.path), "runtime": one.runtime}
        for one in found
    ]
    return as_json({"runtimes": rows})


def agents_text(rows: Sequence[AgentRow]) -> str:
    """A table of agents."""
    return table(
        ("AGENT", "TYPE", "MAILBOX", "HANDLED", "FAILED", "REFUSED", "DOING"),
        (
            (
                row.path,
                row.type,
                f"{row.mailbox}/{row.capacity}",
                row.handled,
                row.failed,
                row.refused,
                row.doing,
            )
            for row in rows
        ),
    )


def injections_text(answer: Injections) -> str:
    """A table of the plans in force, if there are any, and one of all points."""
    points = table(
        ("POINT", "CAN", "REACHED", "ARMED", "WHERE"),
        (
            (row.name, " ".join(row.kinds), row.reached, row.armed, row.about)
            for row in answer.points
        ),
    )
    if not answer.plans:
        return points
    plans = table(
        ("PLAN", "BY", "INJECTIONS", "DONE", "SECONDS LEFT"),
        (
            (row.name, row.by, row.injections, row.done, f"{row.seconds_left:.0f}")
            for row in answer.plans
        ),
    )
    return f"{plans}\n\n{points}"


def circuits_text(rows: Sequence[CircuitRow]) -> str:
    """A table of circuits: where each stands, its window, and what was so far.

    FAILED and SLOW are those of the window, RATE the share that failed; PROBES are out, of
    so many at once; NEXT is when a rejected call may go.
    """
    return table(
        (
            "CIRCUIT",
            "STATE",
            "SINCE",
            "NEXT",
            "PROBES",
            "FAILED",
            "SLOW",
            "RATE",
            "OPENS AT",
            "CALLS",
            "REJECTED",
            "OPENED",
            "LAST ERROR",
        ),
        (
            (
                row.name,
                row.state,
                when(row.since_ns),
                "-" if row.retry_after is None else f"{row.retry_after:.1f} s",
                f"{row.probes}/{row.half_open_calls}",
                f"{row.window_failures}/{row.window_calls}",
                f"{row.window_slow}/{row.window_calls}",
                _share(row.window_failures, row.window_calls),
                row.threshold,
                row.calls,
                row.rejected,
                row.opened,
                row.last_error,
            )
            for row in rows
        ),
    )


def policies_text(rows: Sequence[PolicyRow]) -> str:
    """Each policy with its layers, the outermost first, and what they count.

    What is zero or empty is left out here; `--json` has all of it.
    """
    policies = table(
        ("POLICY", "CALLS", "SUCCEEDED", "FAILED", "CANCELLED", "IN FLIGHT"),
        (
            (
                row.name,
                row.calls,
                row.succeeded,
                row.failed,
                row.cancelled,
                row.in_flight,
            )
            for row in rows
        ),
    )
    return "\n\n".join([policies, *map(_layers_text, rows)])


def _layers_text(row: PolicyRow) -> str:
    lines = [f"{plain(row.name)}, the outermost layer first:"]
    for layer in row.layers:
        numbers = (
            _number(name, one)
            for name, one in layer.numbers.items()
            if one and one != "()"
        )
        lines.append(f"  {plain(layer.layer):<16}{plain('  '.join(numbers))}")
    return "\n".join(lines)


def _number(name: str, value: float | str) -> str:
    """One of a layer's numbers for people: an instant as such, seconds not to the last bit."""
    if name.endswith("_ns") and isinstance(value, int):
        return f"{name.removesuffix('_ns')}={when(value)}"
    return f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def queues_text(rows: Sequence[CollectionRow]) -> str:
    """A table of durable queues and maps."""
    return table(
        ("AGENT", "NAME", "KIND", "ITEMS"),
        ((row.path, row.name, row.kind, row.items) for row in rows),
    )


def workflows_text(rows: Sequence[WorkflowRow]) -> str:
    """A table of workflows."""
    return table(
        ("ID", "WORKFLOW", "STATE", "STEPS", "ATTEMPTS", "REASON"),
        (
            (
                row.id,
                f"{row.name} v{row.version}",
                row.state,
                row.steps_over,
                row.attempts,
                row.reason,
            )
            for row in rows
        ),
    )


def exchanges_text(rows: Sequence[LineRow]) -> str:
    """A table of what exchanges have for their receivers."""
    return table(
        (
            "RECEIVER", "CIRCUIT", "PENDING", "DELIVERED", "FAILED", "DROPPED", "REFUSED",
            "EXCHANGE", "LAST ERROR",
        ),
        (
            (
                row.receiver,
                row.circuit,
                f"{row.pending}/{row.capacity}",
                row.delivered,
                row.failed,
                row.dropped,
                row.refused,
                row.exchange,
                row.last_error,
            )
            for row in rows
        ),
    )  # fmt: skip


def alarms_text(rows: Sequence[AlarmRow]) -> str:
    """A table of what is wrong now."""
    return table(
        ("ID", "SEVERITY", "ALARM", "SUBJECT", "COUNT", "ACKNOWLEDGED", "MESSAGE"),
        (
            (
                row.id, row.severity, row.name, row.subject, row.count,
                row.acknowledged_by, row.message,
            )
            for row in rows
        ),
    )  # fmt: skip


def health_text(rows: Sequence[HealthRow]) -> str:
    """A table of the subjects of the health checks."""
    return table(
        ("SUBJECT", "STATUS", "CHECKS", "FAILED", "LATE", "REASON"),
        (
            (row.subject, row.status, row.checks, row.failures, row.late, row.reason)
            for row in rows
        ),
    )


def gauges_text(rows: Sequence[GaugeRow]) -> str:
    """A table of gauges; AGE is of the reading, GUARDS whether it refuses under pressure."""
    return table(
        ("RESOURCE", "PRESSURE", "VALUE", "LIMIT", "SHARE", "AGE", "GUARDS", "ERROR"),
        (
            (
                row.name,
                row.pressure,
                "-" if row.value is None else _amount(row.value),
                _amount(row.limit),
                "-" if row.share is None else f"{row.share:.0%}",
                "-" if row.age is None else f"{row.age:.1f} s",
                "yes" if row.guards else "no",
                row.error,
            )
            for row in rows
        ),
    )


def _amount(value: float) -> str:
    """As many digits as say something: all of a count of bytes, four of a share."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def operations_text(rows: Sequence[OperationRow]) -> str:
    """A table of how long operations take, in milliseconds."""
    return table(
        (
            "OPERATION", "RUNS", "FAILED", "CANCELLED", "MINIMUM", "MEAN", "P95",
            "MAXIMUM", "RECENTLY FAILED",
        ),
        (
            (
                row.name,
                row.count,
                row.failed,
                row.cancelled,
                *(
                    f"{seconds * 1000:,.1f}"
                    for seconds in (row.minimum, row.mean, row.p95, row.maximum)
                ),
                f"{row.recent_failures}/{row.recent}",
            )
            for row in rows
        ),
    )  # fmt: skip


def steps_text(rows: Sequence[StepRow]) -> str:
    """A table of the steps of one workflow."""
    return table(
        ("STEP", "NAME", "STATE", "ATTEMPTS", "SINCE", "UNDONE BY", "ERROR"),
        (
            (
                row.number,
                row.name,
                row.state,
                row.attempts,
                when(row.at_ns),
                row.compensation
                + (f" (failed {row.undo_failures}x)" if row.undo_failures else ""),
                row.error,
            )
            for row in rows
        ),
    )


def gateways_text(rows: Sequence[GatewayRow]) -> str:
    """A table of HTTP clients and programs; DETAIL is how calls ended, and what runs."""
    return table(
        (
            "GATEWAY", "KIND", "ACTIVE", "WAITING", "ASKED", "SUCCEEDED", "FAILED",
            "CANCELLED", "REFUSED", "DETAIL",
        ),
        (
            (
                row.name,
                row.kind,
                f"{row.active}/{row.limit}",
                f"{row.waiting}/{row.queue}",
                row.asked,
                row.succeeded,
                row.failed,
                row.cancelled,
                row.refused,
                "  ".join(
                    [*(f"{one}={n}" for one, n in row.numbers.items()), *row.running]
                ),
            )
            for row in rows
        ),
    )  # fmt: skip


def meetings_text(rows: Sequence[MeetingRow]) -> str:
    """A table of what agents hold, lead, wait for and vote on."""
    return table(
        ("KIND", "NAME", "HOLDER", "NUMBER", "WAITING"),
        ((row.kind, row.name, row.holder, row.number, row.waiting) for row in rows),
    )


def subscriptions_text(rows: Sequence[SubscriptionRow]) -> str:
    """A table of subscriptions and their accounts, and one of the durable ones' places."""
    durable = [row for row in rows if row.durable]
    tables = [_accounts(rows), _places(durable)] if durable else [_accounts(rows)]
    return "\n\n".join(tables)


def _accounts(rows: Sequence[SubscriptionRow]) -> str:
    return table(
        (
            "SUBSCRIPTION",
            "PUBLISHED",
            "DELIVERED",
            "DROPPED",
            "PENDING",
            "REFUSED",
            "LOST TO",
            "LAST FAULT",
        ),
        (
            (
                row.id,
                _at_least(row.published, row.uncounted),
                row.delivered,
                row.dropped,
                _at_least(row.pending, row.uncounted),
                row.refused,
                " ".join(f"{reason}={n}" for reason, n in row.dropped_by.items()),
                row.last_fault,
            )
            for row in rows
        ),
    )


def _places(rows: Sequence[SubscriptionRow]) -> str:
    return table(
        (
            "DURABLE",
            "MEMBERS",
            "CURSOR",
            "LAG",
            "BYTES",
            "GAPS",
            "PAUSED",
            "RETENTION",
        ),
        (
            (
                row.id,
                row.members,
                row.cursor,
                row.lag,
                "-" if row.lag_bytes is None else row.lag_bytes,
                row.gaps,
                row.paused,
                f"{row.retention}, holds the journal" if row.holds else row.retention,
            )
            for row in rows
        ),
    )


def _at_least(number: int, uncounted: int) -> str:
    """A number, and whether it may be more."""
    return f"{number}+" if uncounted else f"{number}"


def letters_text(rows: Sequence[DeadLetterRow]) -> str:
    """A table of dead letters."""
    return table(
        ("NUMBER", "SINCE", "TO", "WHAT", "ATTEMPTS", "REASON", "CONTENT"),
        (
            (
                row.number,
                when(row.at_ns),
                f"{row.path}:{row.subscription}"
                if row.path and row.subscription
                else row.path or row.subscription,
                row.operation,
                row.attempts,
                row.reason,
                plain(bytes(row.content).decode("utf-8", "replace"), 200),
            )
            for row in rows
        ),
    )


def event_text(row: EventRow) -> str:
    """One line: position, time, topic, source, payload."""
    position = row.position or "-"
    payload = bytes(row.payload).decode("utf-8", "replace")
    source = f" [{plain(row.source)}]" if row.source else ""
    body = "" if payload == "null" else f" {plain(payload, 2000)}"
    return f"{position:>8} {when(row.at_ns)} {plain(row.topic)}{source}{body}"


# --- one thing -------------------------------------------------------------------------------


def state_text(state: AgentState) -> str:
    """What an agent knows: a heading, and the state as indented JSON."""
    heading = f"{state.path} ({state.type}), incarnation {state.incarnation}"
    if state.committed_at_ns is None:
        return plain(f"{heading}: nothing was committed yet")
    version = f"version {state.version}, {state.size_bytes} bytes"
    saved = f"committed {when(state.committed_at_ns)}"
    if not state.durable:
        saved += ", in memory only"
    return "\n".join(
        [plain(f"{heading}, {version}, {saved}"), *value_lines(state.state)]
    )


def why_text(why: Explanation) -> str:
    """The story of a restart, or of an end: the sentence first, then what it rests on."""
    lines = [plain(why.sentence, 2000)]
    at = when(why.at_ns) if why.at_ns is not None else ""
    for label, text in (
        ("when", at),
        ("began at", why.origin if why.origin != why.path else ""),
        ("by", why.by),
        ("in hand", why.message),
        ("took down", ", ".join(why.took_down)),
        ("now in", why.now),
    ):
        if text:
            lines.append(f"{label:>10}: {plain(text, 2000)}")
    if why.fault is not None:
        lines += ["", *_fault_lines(why.fault)]
    for label, raw in _states(why):
        if bytes(raw) != b"null":
            lines += ["", f"{label}:", *value_lines(raw)]
    if why.faults:
        lines += ["", *_history(why)]
    return "\n".join(lines)


def _states(why: Explanation) -> list[tuple[str, msgspec.Raw]]:
    """Before the crash and after the restart: as a rule that is the same."""
    before, after = why.state_before, why.state_after
    if bytes(before) == bytes(after):
        return [("state before and after", before)]
    return [("state before", before), ("state after", after)]


def _history(why: Explanation) -> list[str]:
    """A line a fault, newest first."""
    count = why.faults_total
    times = "once" if count == 1 else f"{count} times"
    newest = "" if count == len(why.faults) else f"; the newest {len(why.faults)}"
    lines = [f"failed {times} within the last day{newest}:"]
    for fault in reversed(why.faults):
        told = msgspec.json.decode(fault.payload)
        what = told.get("exit") or told.get("detail") or fault.topic
        during = f", handling {told['operation']}" if told.get("operation") else ""
        where = f" at {told['where']}" if told.get("where") else ""
        lines.append(f"  {when(fault.at_ns)}  {plain(f'{what}{where}{during}', 300)}")
    return lines


def _fault_lines(fault: FaultRow) -> list[str]:
    lines = [] if fault.cause is None else [*_fault_lines(fault.cause), "which led to:"]
    lines += [plain(f"  {file}:{line} in {name}") for file, line, name in fault.frames]
    summary = f"{fault.type}: {fault.message}" if fault.message else fault.type
    return [*lines, *plain_lines(summary, 2000)]


def value_lines(raw: bytes | msgspec.Raw) -> list[str]:
    """JSON for a person: indented, letters of all scripts as they are."""
    value = msgspec.json.decode(raw)
    return plain_lines(json.dumps(value, indent=2, ensure_ascii=False))


def when(at_ns: int) -> str:
    """Local date and time, to the millisecond."""
    try:
        instant = datetime.fromtimestamp(at_ns / 1e9).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(at_ns)
    return instant.isoformat(sep=" ", timespec="milliseconds")[:-6]
