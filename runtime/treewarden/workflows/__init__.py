"""Durable workflows: async functions whose steps are recorded, one after the other.

A workflow that was interrupted, by a crash or by `kill -9`, goes on behind the last step
that is recorded as done (`step`, `flow`). When it fails for good, what it has done is taken
back by the compensations that its steps were given (`saga`). Each is a supervised child
with a budget of its own (`execution`), started by one task that compares the file with the
tree (`recovery`).
"""

from treewarden.store import StepState, WorkflowState

from .flow import Flow
from .step import Step, current_step
from .workflow import WorkflowStatistics, WorkflowStatus
from .workflows import WorkflowRef, Workflows

__all__ = [
    "Flow",
    "Step",
    "StepState",
    "WorkflowRef",
    "WorkflowState",
    "WorkflowStatistics",
    "WorkflowStatus",
    "Workflows",
    "current_step",
]
