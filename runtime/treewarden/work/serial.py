"""Operations one at a time, in order, that nothing takes back; and how far they came.

The honest half of what others call a transaction: whoever needs all or nothing for agents
uses `Runtime.transaction`, for the registry `Registry.apply`. Here what was done stays
done, and the outcome hands over what would undo it: a decision for whoever started it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from treewarden.exits import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

SerialOperation: TypeAlias = Callable[[], object]
"""Does something, async or not, and returns what would undo it: an operation, or None."""


class SerialOutcome:
    """How far a row of operations came. Look at it: dropped unread it warns.

    `index` (from 0) and `reason` are of the operation that failed, None when none did.
    `inverses` undo what was done, newest first, and can be executed as they are.
    """

    __slots__ = ("_index", "_inverses", "_is_read", "_reason")

    def __init__(
        self,
        inverses: tuple[SerialOperation, ...],
        index: int | None,
        reason: Fault | None,
    ) -> None:
        self._inverses = inverses
        self._index = index
        self._reason = reason
        self._is_read = False

    @property
    def index(self) -> int | None:
        """Which operation failed."""
        self._is_read = True
        return self._index

    @property
    def reason(self) -> Fault | None:
        """Why it failed."""
        self._is_read = True
        return self._reason

    @property
    def succeeded(self) -> bool:
        """Whether all were done."""
        self._is_read = True
        return self._index is None

    @property
    def inverses(self) -> tuple[SerialOperation, ...]:
        """What undoes what was done, newest first; operations without one are left out."""
        return self._inverses

    def __repr__(self) -> str:
        """For people; that is no looking at it."""
        if self._reason is None:
            return "<SerialOutcome: all done>"
        return f"<SerialOutcome: {self._index} failed: {self._reason.summary()}>"

    def __del__(self) -> None:
        """Say that nobody asked whether it went well."""
        if not self._is_read:
            warnings.warn(
                f"{self!r} was dropped and nobody looked at it; nothing is rolled back",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


async def execute_serially(operations: Iterable[SerialOperation]) -> SerialOutcome:
    """See `Runtime.execute_serial_operations`."""
    inverses: list[SerialOperation] = []
    for index, operation in enumerate(operations):
        await trio.lowlevel.checkpoint()
        try:
            inverse = await _run(operation)
        except Exception as error:  # noqa: BLE001 - the outcome says so
            return SerialOutcome(_newest_first(inverses), index, Fault.capture(error))
        if inverse is not None:
            inverses.append(inverse)
    await trio.lowlevel.checkpoint()
    return SerialOutcome(_newest_first(inverses), None, None)


async def _run(operation: SerialOperation) -> SerialOperation | None:
    inverse = operation()
    if inspect.isawaitable(inverse):
        inverse = await inverse
    if inverse is not None and not callable(inverse):
        raise TypeError(
            f"an operation returns what undoes it, or None, not {inverse!r};"
            " it was done and stays done"
        )
    return inverse


def _newest_first(inverses: list[SerialOperation]) -> tuple[SerialOperation, ...]:
    return tuple(reversed(inverses))
