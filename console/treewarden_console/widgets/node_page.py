"""The detail of a node: what it is, how it is doing, why it restarted or is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treewarden_console.state import (
    age,
    count,
    plural,
    rate,
    short_error,
    size,
    span,
    time_of_day,
)

from .ink import Ink, Span, Spans, Tone, node_look
from .page import BLANK, heading, labelled
from .why_page import summary

if TYPE_CHECKING:
    from treewarden.control.protocol import AgentRow, Explanation, NodeRow
    from treewarden_console.state import Desk

_GAUGE = 10
# What an explanation is of while a node does not run as it should.
_WHY = {
    "failed": "WHY IT IS DOWN",
    "restarting": "WHY IT IS DOWN",
    "stuck": "WHY IT IS STUCK",
}


def node_page(desk: Desk, ink: Ink, path: str | None, *, brief: bool) -> list[Spans]:
    """The page of a node; `brief` is for the few lines of a small terminal."""
    node = desk.shown.nodes.rows.get(path or "")
    if node is None:
        return [[("nothing is selected", Tone.MUTED)]]
    agent = desk.shown.agents.rows.get(node.path)
    lines: list[Spans] = [] if brief else [[(node.path, Tone.STRONG)]]
    budget = _budget(desk, ink, node)
    if brief:
        tail = [("   restarts ", Tone.MUTED), *_restarts(node)[1:]]
        lines = [[*_state(desk, ink, node), *tail]]
        lines += [labelled("budget", *budget)] if budget else []
    else:
        lines += [_state(desk, ink, node), _restarts(node)]
        lines += [labelled("budget", *budget)] if budget else []
    if agent is not None:
        lines += _agent(desk, node, agent, brief=brief)
    why = _why(desk, node, brief=brief)
    if brief:
        return lines + why
    lines += _place(desk, node)
    if node.last_exit and not why:
        lines.append(labelled("last exit", (node.last_exit, Tone.WORRY)))
    if node.parent is None:
        lines += _runtime(desk)
    return lines + ([BLANK, *why] if why else [])


def _state(desk: Desk, ink: Ink, node: NodeRow) -> list[Span]:
    look = node_look(node.state)
    up = age(desk.shown.seconds_since(node.started_at_ns, desk.now()))
    spans: list[Span] = [(ink.sign(look), look.tone)]
    if node.state == "running":
        spans.append((f" for {up}", Tone.TEXT))
    return labelled("state", *spans)


def _restarts(node: NodeRow) -> list[Span]:
    tone = Tone.WORRY if node.restarts else Tone.TEXT
    return labelled(
        "restarts",
        (f"{node.restarts}", tone),
        (f"  incarnation {node.incarnation}  {node.restart}", Tone.MUTED),
    )


def _budget(desk: Desk, ink: Ink, node: NodeRow) -> list[Span]:
    """The budget that this node's restarts spend: its own, or its supervisor's."""
    holder, whose = node, ""
    if node.budget_limit is None and node.parent is not None:
        holder = desk.shown.nodes.rows.get(node.parent, node)
        whose = f"  {holder.id}"
    if holder.budget_limit is None:
        return []
    return [*_gauge(ink, holder), (whose, Tone.MUTED)]


def _gauge(ink: Ink, holder: NodeRow) -> list[Span]:
    """How much of a restart budget is spent; the whole of it spent means giving up."""
    limit, spent = holder.budget_limit or 0, holder.budget_spent
    cells = min(_GAUGE, max(1, limit))
    full = min(cells, round(cells * spent / limit)) if limit else 0
    tone = Tone.GOOD if spent == 0 else Tone.WORRY if spent < limit else Tone.BAD
    period = f" in {holder.budget_period:g} s" if holder.budget_period else ""
    return [
        (ink.pick("▰", "#") * full, tone),
        (ink.pick("▱", "-") * (cells - full), Tone.FAINT),
        (f" {spent} of {limit}{period}", tone if spent else Tone.TEXT),
    ]


def _agent(desk: Desk, node: NodeRow, agent: AgentRow, *, brief: bool) -> list[Spans]:
    full = agent.capacity and agent.mailbox >= agent.capacity
    mailbox: list[Span] = [
        (
            f"{agent.mailbox} of {agent.capacity}",
            Tone.BAD if full else Tone.WORRY if agent.mailbox else Tone.TEXT,
        )
    ]
    if agent.waiting_senders:
        wait = plural(agent.waiting_senders, "sender waits", "senders wait")
        mailbox.append((f"  {wait}", Tone.BAD))
    # One that does not run is in its state, which is told already.
    if agent.doing not in ("", "idle", node.state):
        mailbox.append((f"  in {agent.doing}", Tone.MOVING))
    work = f"{count(agent.handled)} handled  {rate(desk.shown.rates.get(agent.path))}/s"
    handled: list[Span] = [(work, Tone.TEXT)]
    for number, word, tone in (
        (agent.failed, "failed", Tone.BAD),
        (agent.refused, "refused", Tone.WORRY),
    ):
        if number:
            handled.append((f"  {count(number)} {word}", tone))
    lines: list[Spans] = [labelled("mailbox", *mailbox), labelled("work", *handled)]
    if brief:
        return [labelled("mailbox", *mailbox, ("  ", Tone.TEXT), *handled)]
    return [*lines, _stored(agent)]


def _stored(agent: AgentRow) -> Spans:
    known = agent.state_version > 0
    text = f"v{agent.state_version}  {size(agent.state_bytes)}" if known else "none yet"
    spans: list[Span] = [(text, Tone.TEXT if known else Tone.MUTED)]
    if agent.uncommitted:
        spans.append(("  uncommitted", Tone.MOVING))
    if agent.type:
        spans.append((f"  {agent.type}", Tone.MUTED))
    return labelled("stored", *spans)


def _place(desk: Desk, node: NodeRow) -> list[Spans]:
    lines: list[Spans] = []
    if node.label:
        lines.append(labelled("label", (node.label, Tone.TEXT)))
    if node.strategy:
        lines.append(labelled("strategy", (node.strategy, Tone.TEXT)))
    if node.parent is not None:
        parent = desk.shown.nodes.rows.get(node.parent)
        strategy = parent.strategy if parent is not None else ""
        lines.append(
            labelled("parent", (node.parent, Tone.TEXT), (f"  {strategy}", Tone.MUTED))
        )
    return lines


def _runtime(desk: Desk) -> list[Spans]:
    model = desk.shown
    process, runtime = model.process, model.runtime
    if process is None or runtime is None:
        return []
    share = process.units / process.commits if process.commits else 0.0
    commits = f"{rate(model.totals.get('commits'))}/s  {share:.1f} units each"
    healthy = process.store_health == "ok"
    return [
        BLANK,
        heading("RUNTIME"),
        _fact("version", f"{runtime.version}  pid {runtime.pid}"),
        _fact("process", f"cpu {process.cpu_seconds:.1f} s  {size(process.rss_bytes)}"),
        _fact("tasks", f"{process.tasks}  loop lag {span(process.loop_lag)}"),
        labelled(
            "store",
            (f"{runtime.level}  {size(process.store_bytes)}  ", Tone.TEXT),
            (process.store_health, Tone.GOOD if healthy else Tone.BAD),
        ),
        _fact("commits", commits),
        _fact(
            "published",
            f"{count(process.published)} events  {count(process.dropped)} dropped",
        ),
        # Not `dead letters`: those are kept, and on the screen of the bus.
        _fact("lost", plural(process.dead_letters, "message")),
    ]


def _fact(label: str, text: str) -> Spans:
    return labelled(label, (text, Tone.TEXT))


def _why(desk: Desk, node: NodeRow, *, brief: bool) -> list[Spans]:
    told = desk.explanations.get(node.path)
    if told is None or told.cause == "none":
        return []
    when = time_of_day(told.at_ns, desk.zone) if told.at_ns else "now"
    if brief:
        return [labelled("why", (told.sentence, Tone.WORRY), (f"  {when}", Tone.MUTED))]
    return [
        heading(
            _WHY.get(node.state, "WHY IT RESTARTED"),
            ("   w: the whole story", Tone.FAINT),
        ),
        labelled("when", (when, Tone.TEXT), (f"  {told.cause}", Tone.MUTED)),
        labelled("what", (told.sentence, Tone.WORRY)),
        *_story(told),
    ]


def _story(told: Explanation) -> list[Spans]:
    lines: list[Spans] = []
    if told.fault is not None:
        lines.append(labelled("error", (short_error(summary(told.fault)), Tone.BAD)))
        if told.fault.frames:
            file, line, name = told.fault.frames[-1]
            short = file.rsplit("/", 1)[-1]
            lines.append(labelled("at", (f"{short}:{line} {name}", Tone.TEXT)))
    if told.by not in told.sentence:
        lines.append(labelled("by", (told.by, Tone.TEXT)))
    if told.took_down:
        lines.append(labelled("took down", (", ".join(told.took_down), Tone.TEXT)))
    return lines
