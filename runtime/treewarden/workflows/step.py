"""What is recorded of a workflow's steps, compared with what it asks for.

A workflow that was interrupted is run again from its beginning, and gets from the record
what its steps gave it before (event sourcing; Temporal and DBOS do so too). That is right
only if it asks for the same steps in the same order. So number and name of each step, and
of its compensation, are compared, and where they differ the workflow stands still: to skip
a step, or to take another's result, could do anything.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treewarden.clock import wall_ns
from treewarden.errors import NotRunning
from treewarden.store import StepState, StoredStep

if TYPE_CHECKING:
    from collections.abc import Iterable


class Mismatch(Exception):
    """The workflow asks for something else than what is recorded."""


class Course:
    """The steps of one workflow, asked for one after the other."""

    __slots__ = ("_id", "_recorded", "taken")

    def __init__(self, id_: str, recorded: Iterable[StoredStep] = ()) -> None:
        self._id = id_
        self._recorded = list(recorded)
        self.taken = 0

    def take(self, name: str, compensation: str) -> StoredStep:
        """The next step as it is recorded, or as it begins.

        Raises:
            Mismatch: another one is recorded in its place.
        """
        self.taken += 1
        if self.taken > len(self._recorded):
            return self._new(name, compensation)
        step = self._recorded[self.taken - 1]
        asked = (self.taken, name, compensation)
        if (step.number, step.name, step.compensation) != asked:
            raise Mismatch(
                f"step {self.taken} is recorded as {_said(step.name, step.compensation)},"
                f" and the code asks for {_said(name, compensation)}"
            )
        return step

    def check_end(self) -> None:
        """The workflow has returned.

        Raises:
            Mismatch: more steps are recorded than it has asked for.
        """
        if self.taken < len(self._recorded):
            raise Mismatch(
                f"{len(self._recorded)} steps are recorded, and the code ends after"
                f" {self.taken}"
            )

    @property
    def owed(self) -> frozenset[int]:
        """The numbers of recorded steps that were done, and have a compensation."""
        return frozenset(
            step.number
            for step in self._recorded
            if step.state is StepState.DONE and step.compensation
        )

    def _new(self, name: str, compensation: str) -> StoredStep:
        return StoredStep(
            workflow=self._id,
            number=self.taken,
            name=name,
            state=StepState.BEGUN,
            attempts=0,
            compensation=compensation,
            undo_failures=0,
            at_ns=wall_ns(),
            outcome=b"null",
        )


def _said(name: str, compensation: str) -> str:
    return f"{name}, undone by {compensation}" if compensation else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The step, or the compensation, that is running; see `current_step`.

    `attempt` is counted from 1, over restarts too. `key` is the same in all of them and
    in no other step of any workflow that is remembered: send it along as an idempotency
    key, so that the other side does once what it is asked several times.
    """

    workflow: str
    number: int
    name: str
    attempt: int
    is_compensation: bool = False

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"{self.workflow}/{self.number}{'/undo' if self.is_compensation else ''}"


running: ContextVar[Step | None] = ContextVar("treewarden_step", default=None)


def current_step() -> Step:
    """The step or compensation around the running code.

    Raises:
        NotRunning: outside of one.
    """
    step = running.get()
    if step is None:
        raise NotRunning("there is no workflow's step here")
    return step
