"""Broken memories and partitions: children that are lost, come back, or change places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treewarden.supervision import PartitionSupervisorSpec, partition
from treewarden.supervision import ref as refs
from treewarden.supervision.ref import _Root
from treewarden.supervision.remembered import Remembered
from treewarden.supervision.supervisor import Supervisor

from .double import Area

if TYPE_CHECKING:
    from treewarden.exits import Exit
    from treewarden.supervision import Node

DOUBLES: Final = Area("tests/runtime")

_T: Final = "test_remember.py::"
_P: Final = "supervision/test_partition.py::"

_forget = Supervisor._forget


@DOUBLES.swaps(
    Supervisor,
    "written",
    caught_by=_T + "test_a_terminated_child_is_forgotten_when_that_is_answered",
)
async def answers_before_it_is_written(self: Supervisor, id_: str) -> None:
    """A kill after the answer loses the child, or brings it back."""


@DOUBLES.swaps(
    Supervisor,
    "_forget",
    caught_by=_T
    + "test_remembered_children_are_there_again_in_order_before_it_is_ready",
)
def a_stop_forgets(self: Supervisor, node: Node, exit_: Exit) -> None:
    """What ends with the tree is taken for what ended for good."""
    _forget(self, node, exit_)
    if self.remembered is not None:
        self.remembered.drop(node.id)


@DOUBLES.swaps(
    Remembered,
    "_drop_leftover",
    caught_by=_T
    + "test_what_could_not_be_forgotten_is_with_the_next_write_that_succeeds",
)
def a_row_that_stays(self: Remembered) -> None:
    """What could not be deleted once comes back in the next run."""


@DOUBLES.swaps(
    refs,
    "refuse_forgetful",
    caught_by=_T + "test_without_a_store_nothing_is_started",
)
def remembers_nowhere(start: object, memory: object) -> None:
    """F70: others are started before the missing store is noticed."""


@DOUBLES.swaps(
    PartitionSupervisorSpec,
    "partition_of",
    caught_by=_P + "test_other_keys_are_where_they_have_always_been",
)
def a_salted_partition(self: PartitionSupervisorSpec, key: object) -> int:
    """Pitfall 65: in the next run a key is somebody else's."""
    return hash(key) % self.partitions


@DOUBLES.swaps(
    partition,
    "_written_once",
    caught_by=_P + "test_keys_of_one_type_that_are_equal_have_one_partition",
)
def a_key_that_is_what_was_written(number: object) -> object:
    """PRT-01: 1.0 and 1.00 are looked for in different places."""
    return number


@DOUBLES.swaps(
    _Root,
    "_limit_stop",
    caught_by="supervision/test_root_deadline.py"
    "::test_the_children_share_what_is_left_and_then_are_killed",
)
def a_stop_without_end(self: _Root) -> None:
    """SHD-30, pitfall 21: the deadline of the whole stop holds nobody."""
