"""Something else instead of a failure: an older answer, a default, another way.

Only for failures that say nothing against the question: a bug, a wrong argument or a "no"
is not to be hidden behind an answer, so by default a fallback stands in for transient and
resource errors, and for what was tried often enough. A cancellation has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack, cast

from treewarden.errors import RetriesExhausted

from .kinds import DEFAULT_KINDS, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .kinds import ErrorKinds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PASSING: Final = (ErrorKind.TRANSIENT, ErrorKind.RESOURCE, RetriesExhausted)


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackStatistics:
    """A fallback as it stands; counters since it was made.

    Of `calls`, `stood_in` were answered by a fallback; for `failed` none of them could;
    `passed_on` failed in a way that it does not stand in for.
    """

    calls: int
    stood_in: int
    failed: int
    passed_on: int


class Fallback:
    """Calls a function and, when it fails, `instead`: the first that does not fail too.

    Each is an async function of the exception: of the call's own, for the first one, and
    of the fallback's before it for the others. `on` is what is stood in for: error kinds
    and classes of exceptions.
    """

    def __init__(
        self,
        *instead: Callable[[Exception], Awaitable[object]],
        on: Sequence[ErrorKind | type[Exception]] = _PASSING,
        kinds: ErrorKinds = DEFAULT_KINDS,
    ) -> None:
        """A fallback that nobody needed yet.

        Raises:
            ValueError: there is nothing to do instead.
            TypeError: `on` has something else in it.
        """
        if not instead:
            raise ValueError("a fallback needs something to do instead")
        for one in on:
            if not (isinstance(one, ErrorKind) or _is_error(one)):
                raise TypeError(
                    f"on takes error kinds and classes of exceptions, not {one!r}"
                )
        self._instead = instead
        self._error_kinds = frozenset(one for one in on if isinstance(one, ErrorKind))
        self._classes = tuple(one for one in on if isinstance(one, type))
        self._kinds = kinds
        self._calls = self._stood_in = self._failed = self._passed_on = 0

    async def call(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """`await fn(*args)` in this task, or what is answered instead.

        Raises:
            What `fn` raises, unless this stands in for it; else what the last fallback
            raises, from that.
        """
        self._calls += 1
        try:
            return await fn(*args)
        except Exception as error:
            if not self._stands_in_for(error):
                self._passed_on += 1
                raise
            return cast("T", await self._ask(error))

    def _stands_in_for(self, error: Exception) -> bool:
        if isinstance(error, self._classes):
            return True
        return self._kinds.of(error) in self._error_kinds

    async def _ask(self, error: Exception) -> object:
        *others, last = self._instead
        for instead in others:
            try:
                result = await instead(error)
            except Exception as failed:  # noqa: BLE001 - the next one is told of it
                error = failed
            else:
                self._stood_in += 1
                return result
        try:
            result = await last(error)
        except Exception:
            self._failed += 1
            raise
        self._stood_in += 1
        return result

    def statistics(self) -> FallbackStatistics:
        """How often it was needed."""
        return FallbackStatistics(
            calls=self._calls,
            stood_in=self._stood_in,
            failed=self._failed,
            passed_on=self._passed_on,
        )


def _is_error(one: object) -> bool:
    return isinstance(one, type) and issubclass(one, Exception)
