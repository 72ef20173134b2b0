"""Numbers that are read every half minute, for the rules of the alarms.

One task for all of them; a source is a plain function that must not block. A source that
raises is unknown, which is an alarm of its own until it can be read again: an unread number
is neither zero nor what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from treewarden.exits import Fault

if TYPE_CHECKING:
    from .alarms import Alarms

Source: TypeAlias = Callable[[], Mapping[str, float | None]]
"""Values by subject, None where one is unknown; without a subject `{"": number}`."""

_EVERY: Final = 30.0
_SOURCES: Final = 1000
UNKNOWN: Final = "reading_unknown"
"""The alarm of a source, or gauge, that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsStatistics:
    """Sources by name, how often all were read, and how often one raised."""

    sources: tuple[str, ...]
    rounds: int
    failures: int


class Readings:
    """The sources, and the task that reads them."""

    def __init__(self, alarms: Alarms, *, every: float = _EVERY) -> None:
        """`every`: seconds between two rounds."""
        self._alarms = alarms
        self._every = every
        self._sources: dict[str, Source] = {}
        # What each source spoke of last: whoever is not mentioned any more has no alarms.
        self._subjects: dict[str, frozenset[str]] = {}
        self._rounds = self._failures = 0

    def source(self, name: str, source: Source) -> None:
        """Read `source` every round, for the rules about `name`; it replaces the last.

        Raises:
            ValueError: there are too many.
        """
        if name not in self._sources and len(self._sources) >= _SOURCES:
            raise ValueError(f"there are {_SOURCES} sources, and {name!r} is too many")
        self._sources[name] = source

    def drop(self, name: str) -> bool:
        """Read it no more, and clear its alarms; whether there was one."""
        if self._sources.pop(name, None) is None:
            return False
        self._alarms.clear(UNKNOWN, name)
        for subject in self._subjects.pop(name, frozenset()):
            self._alarms.forget(name, subject)
        return True

    def read(self) -> None:
        """One round."""
        self._rounds += 1
        for name, source in tuple(self._sources.items()):
            self._read(name, source)

    def _read(self, name: str, source: Source) -> None:
        try:
            values = _numbers(source())
        except Exception as error:  # noqa: BLE001 - a source is somebody's, and fails alone
            self._failures += 1
            self._alarms.open(UNKNOWN, name, message=Fault.capture(error).summary())
            return
        self._alarms.clear(UNKNOWN, name)
        for subject, value in values.items():
            self._alarms.read(name, value, subject=subject)
        for subject in self._subjects.get(name, frozenset()) - values.keys():
            self._alarms.forget(name, subject)
        self._subjects[name] = frozenset(values)

    async def run(self) -> None:
        """A round now and then; for ever."""
        while True:
            self.read()
            await trio.sleep(self._every)

    def statistics(self) -> ReadingsStatistics:
        """What is read."""
        return ReadingsStatistics(
            sources=tuple(self._sources),
            rounds=self._rounds,
            failures=self._failures,
        )


def _numbers(values: Mapping[str, float | None]) -> dict[str, float | None]:
    # What is no number is found out here, where it costs its own source only.
    return {
        subject: None if value is None else float(value)
        for subject, value in values.items()
    }
