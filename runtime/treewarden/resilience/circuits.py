"""All circuits of a runtime, by name: a name has one circuit, and one policy."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import circuit_kept
from .circuit import Circuit
from .circuit_policy import CircuitPolicy
from .circuit_span import TracedCircuit
from .transition import TransitionFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from treewarden.telemetry import Spans

    from .circuit import CircuitStatistics
    from .circuit_kept import KeptCircuit
    from .memory import PolicyMemory
    from .transition import Transition

LIMIT: Final = 10_000
"""Circuits that are kept at most: names made from data must not fill the memory."""


class Circuits:
    """All circuits of a runtime, by name."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = trio.current_time,
        on_transition: Callable[[Transition], None] | None = None,
        memory: PolicyMemory | None = None,
        spans: Spans | None = None,
    ) -> None:
        """No circuits yet; see `Circuit` for `clock` and `on_transition`.

        `memory` is where circuits with `persist` are kept; without one they are not.
        Calls are recorded as `spans` while these are enabled.
        """
        self._clock = clock
        self._on_transition = on_transition
        self._memory = memory
        self._spans = spans
        self._by_name: dict[str, Circuit] = {}
        self._feeds: list[TransitionFeed] = []
        self._removed = 0

    def circuit(self, name: str, policy: CircuitPolicy | None = None) -> Circuit:
        """The circuit of this name, made at the first use.

        `policy` None takes whatever policy it has, or the default one.

        Raises:
            ValueError: no name, too many circuits, or it exists with another policy.
        """
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = self._make(name, policy or CircuitPolicy())
        elif policy is not None and policy != known.policy:
            raise ValueError(
                f"circuit {name!r} exists with another policy: {known.policy}"
            )
        return known

    def _make(self, name: str, policy: CircuitPolicy) -> Circuit:
        if not name:
            raise ValueError("a circuit needs a name")
        if len(self._by_name) >= LIMIT:
            raise ValueError(
                f"there are {LIMIT} circuits, and {name!r} is one too many"
            )
        persists = policy.persist and self._memory is not None
        make: Callable[..., Circuit] = Circuit
        if self._spans is not None:
            make = partial(TracedCircuit, spans=self._spans)
        return make(
            name,
            policy,
            clock=self._clock,
            on_transition=self._told,
            keep=partial(self._keep, name) if persists else None,
            kept=self._kept(name) if persists else None,
        )

    def _kept(self, name: str) -> KeptCircuit | None:
        text = self._memory.kept(name) if self._memory is not None else None
        return circuit_kept.decode(text) if text is not None else None

    def _keep(self, name: str, kept: KeptCircuit | None) -> None:
        if self._memory is not None:
            text = circuit_kept.encode(kept) if kept is not None else None
            self._memory.keep(name, text)

    def _told(self, transition: Transition) -> None:
        for feed in self._feeds:
            feed.put(transition)
        if self._on_transition is not None:
            self._on_transition(transition)

    @contextmanager
    def listen(self, capacity: int = 100) -> Iterator[TransitionFeed]:
        """Every transition of every circuit from now on, in a queue of its own.

            with runtime.circuits.listen() as transitions:
                async for transition in transitions:
                    ...

        For one task. Who is slow loses the oldest, counted, and delays nobody.
        """
        feed = TransitionFeed(capacity)
        self._feeds.append(feed)
        try:
            yield feed
        finally:
            self._feeds.remove(feed)

    def remove(self, name: str) -> bool:
        """Forget a circuit, and what is kept of it; whether there was one.

        Who holds it goes on with it; who asks for the name next makes another one.
        """
        known = self._by_name.pop(name, None)
        if known is None:
            return False
        # One more than what it takes away from the sum in `version`.
        self._removed += known.version + 2
        if known.policy.persist:
            known.keep_no_more()
            self._keep(name, None)
        return True

    def get(self, name: str) -> Circuit | None:
        """The circuit of this name, or None when nobody made it."""
        return self._by_name.get(name)

    def list(self) -> tuple[Circuit, ...]:
        """All circuits, by name."""
        return tuple(self._by_name[name] for name in sorted(self._by_name))

    def statistics(self) -> tuple[CircuitStatistics, ...]:
        """One record a circuit, by name."""
        return tuple(circuit.statistics() for circuit in self.list())

    @property
    def version(self) -> int:
        """A number that has changed when anything in `statistics` but times has."""
        counted = sum(circuit.version for circuit in self._by_name.values())
        return counted + len(self._by_name) + self._removed
