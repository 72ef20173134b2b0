"""How one piece of work went, as a value: `Done` with what it returned, or `Failed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T_co]):
    """It returned `value`; `item` is the input that it was made from, if there was one."""

    value: T_co
    item: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It has no result; `item` is the input that it was made from, if there was one.

    `error` is what the function raised, as it is, or `WorkTimeout`, or `WorkStopped`.
    """

    error: BaseException
    item: object = None


Outcome: TypeAlias = Done[T] | Failed
