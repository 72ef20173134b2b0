"""Partition supervisors: one child many times over, and a key that always finds the same.

Where one child would be a bottleneck (an agent takes one message at a time), N of them
share the work, each answering for its part of the keys. The idea is Elixir's
`PartitionSupervisor`. Which partition a key belongs to depends on nothing but the key and
N: not on the process, whose `hash(str)` is salted, nor on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from .intensity import Intensity
from .spec import ChildSpec, SupervisorSpec
from .strategy import Strategy

ArgsFor: TypeAlias = Callable[[int], Sequence[object]]
"""The arguments that the partition of this number, from 0, is started with."""

# Each is a child, made with the specification: a slip of the finger would fill the memory.
_MOST: Final = 65_536

# Nothing is rounded away.
_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True, init=False)
class PartitionSupervisorSpec(SupervisorSpec):
    """A supervisor of `partitions` children that differ in nothing but their arguments.

    Its children have the ids "0", "1", and so on. `child` is what each is started from,
    as in `ChildSpec(id, start)`, or a ChildSpec whose fields they all get, but for its
    id. `args_for(number)` gives the arguments of one partition; it is called for each
    when the specification is made. `SupervisorRef.partition(key)` finds the child that a
    key belongs to:

        ChildSpec("counters", PartitionSupervisorSpec(Counter, partitions=8))
        ...
        counters = runtime.supervisor("counters")
        await runtime.ref(counters.partition(user), Counter).call(Counter.add, 1)

    An agent keeps its state under the path of its partition: with another number of
    partitions most keys are somebody else's, who does not have what they had stored.

    Raises:
        TypeError, ValueError: a field is wrong; the message shows the value.
    """

    partitions: int = field(default=1, kw_only=True)
    _ids: frozenset[str] = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        child: object,
        *,
        partitions: int = 1,
        args_for: ArgsFor | None = None,
        strategy: str = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
    ) -> None:
        _check_partitions(partitions)
        template = child if isinstance(child, ChildSpec) else ChildSpec("0", child)
        object.__setattr__(self, "partitions", partitions)
        object.__setattr__(self, "_ids", frozenset(map(str, range(partitions))))
        # Not super(): it does not work in a dataclass with slots.
        SupervisorSpec.__init__(
            self,
            [_partition(template, number, args_for) for number in range(partitions)],
            strategy=strategy,
            intensity=intensity if intensity is not None else Intensity(),
        )

    def check_child(self, child: ChildSpec) -> None:
        """Refuse whatever is none of the partitions."""
        if child.id not in self._ids or child != self.children[int(child.id)]:
            raise ValueError(
                f"{child.id}: a partition supervisor has its {self.partitions} "
                "partitions and no other children"
            )
        SupervisorSpec.check_child(self, child)

    def partition_of(self, key: object) -> int:
        """The number of the partition that `key` belongs to.

        An int goes by its absolute value, anything else by a hash of what msgspec makes
        of it. Keys of different types are different keys: 1, 1.0 and True.

        Raises:
            TypeError: it is nothing that msgspec can encode.
            ValueError: it does not equal itself, like a NaN.
        """
        if isinstance(key, int) and not isinstance(key, bool):
            return abs(key) % self.partitions
        return _stable_hash(key) % self.partitions


def _check_partitions(partitions: object) -> None:
    if isinstance(partitions, bool) or not isinstance(partitions, int):
        raise TypeError(f"partitions must be an int, not {partitions!r}")
    if not 1 <= partitions <= _MOST:
        raise ValueError(f"partitions must be 1 to {_MOST}, not {partitions}")


def _partition(template: ChildSpec, number: int, args_for: ArgsFor | None) -> ChildSpec:
    if args_for is None:
        return replace(template, id=str(number))
    if not callable(args_for):
        raise TypeError(f"args_for must be a function, not {args_for!r}")
    if template.args:
        raise ValueError(
            f"args_for takes the place of args, which are {template.args!r}"
        )
    return replace(template, id=str(number), args=args_for(number))


def _stable_hash(key: object) -> int:
    try:
        return crc32(_encode(_plain(key)))
    except (TypeError, OverflowError, RecursionError, UnicodeError) as error:
        raise TypeError(f"{key!r} is no key of a partition: {error}") from error


def _plain(key: object) -> object:
    """Equal keys of one type, made so that they are encoded the same."""
    if isinstance(key, (tuple, list)):
        return [_plain(part) for part in key]
    if isinstance(key, dict):
        return {name: _plain(part) for name, part in key.items()}
    if isinstance(key, (float, Decimal)):
        return _written_once(key)
    return key


def _written_once(number: float | Decimal) -> float | Decimal:
    """There are two zeros, and many ways to write a decimal."""
    unlike = number.is_nan() if isinstance(number, Decimal) else math.isnan(number)
    if unlike:
        raise ValueError(f"{number!r} does not equal itself; nobody could find it")
    if isinstance(number, float):
        return number + 0.0
    return number.normalize(_EXACT) if number else Decimal()
