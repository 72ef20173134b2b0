"""Workflows and their steps as rows: one a workflow, one a step that has begun.

What a step's result or a workflow's arguments look like is `workflows`' business; here they
are JSON text. A row is written whole, from what its only writer knows, so that its checksum
covers all of it; the arguments, the largest part, are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from treewarden.errors import RestoreError

from .checksums import as_stored, checksum, shown, whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from .unit import Write

KEPT: Final = 10_000
"""Finished workflows that are kept, of all names together."""
KEPT_NS: Final = 24 * 3600 * 1_000_000_000
"""How long a finished workflow can be asked about."""
PAGE: Final = 1000
"""The most rows that are read, or pruned, at a time."""


class WorkflowState(StrEnum):
    """How far a workflow is; see `UNFINISHED` and `ENDED`."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    PARKED = "parked"
    NEEDS_ATTENTION = "needs_attention"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"


UNFINISHED: Final = frozenset(
    {WorkflowState.RUNNING, WorkflowState.CANCELLING, WorkflowState.COMPENSATING}
)
"""There is something to do, and it is done without anybody asking."""
WAITING: Final = frozenset({WorkflowState.PARKED, WorkflowState.NEEDS_ATTENTION})
"""Somebody has to look at it."""
ENDED: Final = frozenset(WorkflowState) - UNFINISHED - WAITING
"""Nothing of it will change any more."""


class StepState(StrEnum):
    """How far a step is."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    COMPENSATED = "compensated"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWorkflow:
    """A workflow as it is kept; `arguments` and `outcome` are JSON.

    `attempts` count the incarnations since it last got on, `resume_as` is what a parked
    one was doing. `reason` is a line for people; `outcome` is the result of a completed
    one and the fault of one that failed. `ended_ns` is 0 until it has ended. One that is
    not `sound` had a checksum that did not match.
    """

    id: str
    name: str
    version: int
    state: WorkflowState
    attempts: int
    begun_ns: int
    ended_ns: int
    resume_as: str
    reason: str
    outcome: bytes
    arguments: bytes
    sound: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A step as it is kept; `outcome` is JSON: its result, or the fault of a failed one.

    `attempts` were begun. `compensation` is the name of what undoes it, "" for nothing,
    and `undo_failures` is how often that has failed.
    """

    workflow: str
    number: int
    name: str
    state: StepState
    attempts: int
    compensation: str
    undo_failures: int
    at_ns: int
    outcome: bytes


_COLUMNS: Final = (
    "id, name, version, state, attempts, begun_ns, ended_ns, resume_as, reason, outcome,"
    " arguments, crc"
)
_INSERT: Final = (
    f"INSERT INTO workflow ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own names
)
_UPDATE: Final = (
    "UPDATE workflow SET state = ?, attempts = ?, ended_ns = ?, resume_as = ?,"
    " reason = ?, outcome = ?, crc = ? WHERE id = ?"
)
_STEP_COLUMNS: Final = (
    "workflow, number, name, state, attempts, compensation, undo_failures, at_ns,"
    " outcome, crc"
)
_KEEP_STEP: Final = (
    f"INSERT OR REPLACE INTO workflow_step ({_STEP_COLUMNS})"  # noqa: S608 - our own names
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM workflow WHERE id = ?"  # noqa: S608 - our own names
_SELECT_UNFINISHED: Final = (
    f"SELECT {_COLUMNS} FROM workflow WHERE ended_ns = 0 AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - our own names
)
_SELECT_STEPS: Final = (
    f"SELECT {_STEP_COLUMNS} FROM workflow_step WHERE workflow = ? ORDER BY number"  # noqa: S608 - our own names
)
_COUNT_STEPS: Final = (
    "SELECT count(*) FROM workflow_step WHERE workflow = ? AND state != 'begun'"
)
_HAS_ENDED: Final = "SELECT 1 FROM workflow WHERE ended_ns > 0 LIMIT 1"
_OLDEST: Final = (
    "SELECT id FROM workflow WHERE ended_ns BETWEEN 1 AND ? ORDER BY ended_ns LIMIT ?"
)
_BEYOND: Final = (
    "SELECT id FROM workflow WHERE ended_ns > 0 ORDER BY ended_ns DESC LIMIT ? OFFSET ?"
)


def insert_workflow(workflow: StoredWorkflow) -> Write:
    """The statement that keeps a new workflow; it fails when there is one of that id."""
    return _INSERT, (
        workflow.id,
        workflow.name,
        workflow.version,
        str(workflow.state),
        workflow.attempts,
        workflow.begun_ns,
        workflow.ended_ns,
        workflow.resume_as,
        workflow.reason,
        workflow.outcome.decode(),
        workflow.arguments.decode(),
        _checksum(workflow),
    )


def update_workflow(workflow: StoredWorkflow) -> Write:
    """The statement that writes how far it is; what it began with stays."""
    return _UPDATE, (
        str(workflow.state),
        workflow.attempts,
        workflow.ended_ns,
        workflow.resume_as,
        workflow.reason,
        workflow.outcome.decode(),
        _checksum(workflow),
        workflow.id,
    )


def keep_step(step: StoredStep) -> Write:
    """The statement that writes how far a step is."""
    return _KEEP_STEP, (
        step.workflow,
        step.number,
        step.name,
        str(step.state),
        step.attempts,
        step.compensation,
        step.undo_failures,
        step.at_ns,
        step.outcome.decode(),
        _step_checksum(step),
    )


def prune_workflows(now_ns: int) -> list[Write]:
    """The statements that forget what ended too long ago, or too many workflows ago.

    At most `PAGE` of each, with their steps.
    """
    old = (now_ns - KEPT_NS, PAGE)
    many = (PAGE, KEPT)
    return [
        (f"DELETE FROM {table} WHERE {column} IN ({chosen})", values)  # noqa: S608 - our own names
        for chosen, values in ((_OLDEST, old), (_BEYOND, many))
        for table, column in (("workflow_step", "workflow"), ("workflow", "id"))
    ]


def has_ended(connection: sqlite3.Connection) -> bool:
    """Whether there is a workflow that could be pruned some day."""
    return connection.execute(_HAS_ENDED).fetchone() is not None


def load_workflow(connection: sqlite3.Connection, id_: str) -> StoredWorkflow | None:
    """The workflow of this id."""
    row = connection.execute(_SELECT, (id_,)).fetchone()
    return _workflow(row) if row is not None else None


def load_steps(connection: sqlite3.Connection, id_: str) -> list[StoredStep]:
    """The steps of a workflow that have begun, in order.

    Raises:
        RestoreError: one is damaged.
    """
    # All at once: an error halfway would keep the reader, and the log, at this moment.
    rows = connection.execute(_SELECT_STEPS, (id_,)).fetchall()
    return [_step(row) for row in rows]


def count_steps(connection: sqlite3.Connection, id_: str) -> int:
    """How many steps of a workflow are over."""
    (count,) = connection.execute(_COUNT_STEPS, (id_,)).fetchone()
    return int(count)


def load_workflows(
    connection: sqlite3.Connection, states: Collection[WorkflowState], limit: int
) -> list[StoredWorkflow]:
    """Workflows in one of these states, those that were started last first."""
    marks = ", ".join("?" for _ in states)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM workflow WHERE state IN ({marks})"  # noqa: S608 - our own names
        " ORDER BY begun_ns DESC, rowid DESC LIMIT ?",
        (*map(str, states), min(limit, PAGE)),
    )
    return [_workflow(row) for row in rows]


def load_unfinished(connection: sqlite3.Connection, after: str) -> list[StoredWorkflow]:
    """Workflows that have not ended, by id, at most `PAGE` behind `after`.

    Whatever their state: in a damaged row it may say anything.
    """
    rows = connection.execute(_SELECT_UNFINISHED, (after, PAGE))
    return [_workflow(row) for row in rows]


_STATES: Final = frozenset(map(str, WorkflowState))


def _workflow(
    row: tuple[str, str, int, str, int, int, int, str, str, str, str, int],
) -> StoredWorkflow:
    id_, name, version, state, attempts, begun, ended = row[:7]
    resume_as, reason, outcome, arguments, crc = row[7:]
    if state in _STATES:
        found = StoredWorkflow(
            id=id_,
            name=name,
            version=version,
            state=WorkflowState(state),
            attempts=attempts,
            begun_ns=begun,
            ended_ns=ended,
            resume_as=resume_as,
            reason=reason,
            outcome=as_stored(outcome),
            arguments=as_stored(arguments),
        )
        if crc == _checksum(found):
            return found
    return StoredWorkflow(
        id=shown(id_),
        name=shown(name),
        version=whole(version),
        state=WorkflowState.PARKED,
        attempts=whole(attempts),
        begun_ns=whole(begun),
        ended_ns=0,
        resume_as="",
        reason="its row is damaged; compare with a backup",
        outcome=b"null",
        arguments=b"null",
        sound=False,
    )


def _step(
    row: tuple[str, int, str, str, int, str, int, int, str, int],
) -> StoredStep:
    (
        workflow,
        number,
        name,
        state,
        attempts,
        compensation,
        failures,
        at_ns,
        text,
        crc,
    ) = row
    covered = (workflow, number, name, state, attempts, compensation, failures, at_ns)
    outcome = as_stored(text)
    if crc != checksum(outcome, *covered):
        raise RestoreError(
            f"step {shown(number)} of workflow {shown(workflow)} is damaged"
        )
    return StoredStep(
        workflow=workflow,
        number=number,
        name=name,
        state=StepState(state),
        attempts=attempts,
        compensation=compensation,
        undo_failures=failures,
        at_ns=at_ns,
        outcome=outcome,
    )


def _checksum(workflow: StoredWorkflow) -> int:
    return checksum(
        workflow.arguments,
        workflow.id,
        workflow.name,
        workflow.version,
        str(workflow.state),
        workflow.attempts,
        workflow.begun_ns,
        workflow.ended_ns,
        workflow.resume_as,
        workflow.reason,
        workflow.outcome.decode("utf-8", "surrogateescape"),
    )


def _step_checksum(step: StoredStep) -> int:
    return checksum(
        step.outcome,
        step.workflow,
        step.number,
        step.name,
        str(step.state),
        step.attempts,
        step.compensation,
        step.undo_failures,
        step.at_ns,
    )
