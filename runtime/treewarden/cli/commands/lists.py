"""Commands that list one kind of thing that a runtime has."""

# No postponed annotations here: they are what typer reads.
from typing import Annotated

import typer

from . import complete
from .group import Section, app
from .options import Remote, asking


@app.command(rich_help_panel=Section.LIST)
@asking
def alarms(remote: Remote) -> None:
    """List what is wrong now, oldest first.

    \b
    --json: {"alarms": [{"id", "name", "severity", "message", "opened_at_ns",
             "updated_at_ns", "count", "subject", "value", "acknowledged_by"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetAlarms, OpenAlarms

    remote.list(
        "alarms",
        GetAlarms(),
        OpenAlarms,
        showing.alarms_text,
        key="alarms",
        none="no alarm is open",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def health(remote: Remote) -> None:
    """List what is checked, and how it is.

    \b
    --json: {"health": [{"subject", "status", "reason", "since_ns", "checks",
             "failures", "late"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetHealth, HealthOfSubjects

    remote.list(
        "health",
        GetHealth(),
        HealthOfSubjects,
        showing.health_text,
        key="health",
        none="nothing is checked; runtime.health.watch checks an agent",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def resources(remote: Remote) -> None:
    """List the gauges of resources, and their limits.

    \b
    --json: {"resources": [{"name", "limit", "pressure", "guards", "failures", "value",
             "share", "age", "error"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import Gauges, GetGauges

    remote.list(
        "gauges",
        GetGauges(),
        Gauges,
        showing.gauges_text,
        key="resources",
        none="nothing is measured; runtime.resources.add adds a gauge",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def performance(remote: Remote) -> None:
    """List how long operations take.

    P95 and RECENTLY FAILED are of the last runs, the others of all; times in milliseconds.

    \b
    --json: {"performance": [{"name", "count", "succeeded", "failed", "cancelled",
             "minimum", "mean", "maximum", "p95", "recent", "recent_failures"}]}
             in seconds
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetOperations, Operations

    remote.list(
        "operations",
        GetOperations(),
        Operations,
        showing.operations_text,
        key="performance",
        none="nothing is timed",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def circuits(remote: Remote) -> None:
    """List the circuits, and the policies around calls.

    \b
    --json: {"circuits": [{"name", "state", "since_ns", "window_calls",
             "window_failures", "window_slow", "in_a_row", "threshold", "retry_after",
             "probes", "half_open_calls", "probe_successes", "success_threshold",
             "calls", "succeeded", "failed", "rejected", "not_counted", "in_flight",
             "slow", "timed_out", "opened", "openings", "last_error"}],
             "policies": [{"name", "calls", "succeeded", "failed", "cancelled",
             "in_flight", "layers": [{"layer", "numbers"}]}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import Circuits, GetCircuits

    def text(answer: Circuits) -> str:
        parts = [showing.circuits_text(answer.rows)] if answer.rows else ["no circuits"]
        if answer.policies:
            parts.append(showing.policies_text(answer.policies))
        return "\n\n".join(parts)

    remote.show(
        "circuits",
        GetCircuits(),
        Circuits,
        text,
        lambda answer: {"circuits": answer.rows, "policies": answer.policies},
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def gateways(remote: Remote) -> None:
    """List the HTTP clients, and the programs that run.

    ASKED = SUCCEEDED + FAILED + CANCELLED + ACTIVE. Arguments of programs are not shown.

    \b
    --json: {"gateways": [{"kind", "name", "active", "limit", "waiting", "queue", "asked",
             "succeeded", "failed", "cancelled", "refused", "numbers", "running"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import Gateways, GetGateways

    remote.list(
        "gateways",
        GetGateways(),
        Gateways,
        showing.gateways_text,
        key="gateways",
        none="no gateways",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def queues(remote: Remote) -> None:
    """List the durable queues and maps of the agents.

    \b
    --json: {"queues": [{"path", "name", "kind", "items"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetQueues, Queues

    remote.list(
        "queues",
        GetQueues(),
        Queues,
        showing.queues_text,
        key="queues",
        none="no agent has a durable queue or map",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def workflows(remote: Remote) -> None:
    """List the workflows, the newest first.

    \b
    --json: {"workflows": [{"id", "name", "version", "state", "steps_over",
             "attempts", "reason", "begun_at_ns", "ended_at_ns"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetWorkflows, Workflows

    remote.list(
        "workflows",
        GetWorkflows(),
        Workflows,
        showing.workflows_text,
        key="workflows",
        none="no workflow was started within a day",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def steps(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="As `workflows` lists it.",
            autocompletion=complete.workflows,
        ),
    ],
    remote: Remote,
) -> None:
    """List the steps of a workflow that have begun.

    \b
    --json: {"steps": [{"number", "name", "state", "attempts", "at_ns", "compensation",
             "undo_failures", "error"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetSteps, Steps

    remote.list(
        "steps",
        GetSteps(workflow=workflow),
        Steps,
        showing.steps_text,
        key="steps",
        none="no step has begun",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def exchanges(remote: Remote) -> None:
    """List what exchanges have for each receiver.

    \b
    --json: {"exchanges": [{"exchange", "receiver", "circuit", "stalled", "pending",
             "capacity", "accepted", "delivered", "failed", "dropped", "withdrawn",
             "refused", "attempts", "last_error"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import Exchanges, GetExchanges

    remote.list(
        "exchanges",
        GetExchanges(),
        Exchanges,
        showing.exchanges_text,
        key="exchanges",
        none="no exchange has had anything to deliver",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def locks(remote: Remote) -> None:
    """List locks, elections, barriers and ballots.

    Those that somebody takes part in. NUMBER is the token of a lock, the term of a leader,
    how many a barrier is for, how many votes decide; WAITING who wants the lock or the
    office, has come, or has voted.

    \b
    --json: {"locks": [{"kind", "name", "holder", "number", "waiting", "since_ns"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetMeetings, Meetings

    remote.list(
        "meetings",
        GetMeetings(),
        Meetings,
        showing.meetings_text,
        key="locks",
        none="nothing is held, led, waited for or voted on",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def subscriptions(remote: Remote) -> None:
    """List the subscriptions, and how far they are.

    What became of the events published to them, with a + where not all are counted. Of
    the durable ones, also of those that nobody takes events of: how many entries and bytes
    of the journal they are behind, in how many gaps events are missing, what the journal
    does about it, whether it is beyond its limits for them, and how many publishers wait.

    \b
    --json: {"subscriptions": [{"id", "pattern", "owner", "capacity", "overflow",
             "published", "delivered", "dropped", "pending", "dropped_by", "refused",
             "durable", "members", "cursor", "lag", "leased", "waiting", "redelivered",
             "last_fault", "retention", "holds", "paused", "gaps", "lag_bytes",
             "uncounted"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import GetSubscriptions, Subscriptions

    remote.list(
        "subscriptions",
        GetSubscriptions(),
        Subscriptions,
        showing.subscriptions_text,
        key="subscriptions",
        none="no subscriptions",
    )


@app.command(rich_help_panel=Section.LIST)
@asking
def dead_letters(
    remote: Remote,
    after: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Those behind it.")
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
) -> None:
    """List messages and events that were given up.

    \b
    --json: {"dead_letters": [{"number", "path", "operation", "attempts", "reason",
             "at_ns", "sender", "subscription", "content"}]}
    """
    from treewarden.cli import showing
    from treewarden.control.protocol import DeadLetters, GetDeadLetters

    remote.list(
        "dead_letters",
        GetDeadLetters(after=after, limit=limit),
        DeadLetters,
        showing.letters_text,
        key="dead_letters",
        none="no dead letters",
    )
