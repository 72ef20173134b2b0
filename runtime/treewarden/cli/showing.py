"""Answers as text for people and as JSON for programs.

Text from the runtime is never trusted: `plain` shows what a terminal would obey. JSON is
ASCII, so that no character in it means anything to a terminal either.
"""

from __future__ import annotations

import json
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
        CircuitRow,
        CollectionRow,
        EventRow,
        Explanation,
        FaultRow,
        Injections,
        NodeRow,
    )

# A cell that is longer than this says less, not more; `--json` has all of it.
_CELL: Final = 200
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


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their contents; every cell on one line."""
    cells = [list(headers), *([plain(str(one), _CELL) for one in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headers))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


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


def tree_text(rows: Sequence[NodeRow]) -> str:
    """An indented table of the nodes."""
    depths: dict[str, int] = {}
    for row in rows:
        depths[row.path] = depths.get(row.parent or "", -1) + 1
    return table(
        ("NODE", "KIND", "STATE", "INCARNATION", "RESTARTS", "LAST EXIT"),
        (
            (
                "  " * depths[row.path] + (row.id or row.path),
                row.kind,
                row.state,
                row.incarnation,
                row.restarts,
                row.last_exit,
            )
            for row in rows
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
    """A table of circuits."""
    return table(
        (
            "CIRCUIT",
            "STATE",
            "SINCE",
            "CALLS",
            "FAILED",
            "REJECTED",
            "OPENED",
            "LAST ERROR",
        ),
        (
            (
                row.name,
                row.state,
                when(row.since_ns),
                row.calls,
                row.failed,
                row.rejected,
                row.opened,
                row.last_error,
            )
            for row in rows
        ),
    )


def queues_text(rows: Sequence[CollectionRow]) -> str:
    """A table of durable queues and maps."""
    return table(
        ("AGENT", "NAME", "KIND", "ITEMS"),
        ((row.path, row.name, row.kind, row.items) for row in rows),
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
    """The story of a restart: the sentence first, then what it rests on."""
    lines = [plain(why.sentence, 2000)]
    at = when(why.at_ns) if why.at_ns is not None else ""
    for label, text in (
        ("when", at),
        ("began at", why.origin),
        ("by", why.by),
        ("in hand", why.message),
        ("took down", ", ".join(why.took_down)),
    ):
        if text:
            lines.append(f"{label:>10}: {plain(text, 2000)}")
    if why.fault is not None:
        lines += ["", *_fault_lines(why.fault)]
    for label, raw in (
        ("state before", why.state_before),
        ("state after", why.state_after),
    ):
        if bytes(raw) != b"null":
            lines += ["", f"{label}:", *value_lines(raw)]
    if why.faults:
        lines += ["", *_history(why)]
    return "\n".join(lines)


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
