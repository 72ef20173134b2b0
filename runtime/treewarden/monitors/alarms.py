"""What is wrong now, once each: opened, updated while it lasts, and cleared.

An alarm is a rule over readings that has come true. While it is open, the same condition
only updates it; when the condition is over, it is cleared and gone (the journal has it).
Two things keep it from fluttering, both usual in monitoring (ISA-18.2): it clears at
another value than it opens at, and it may have to be true for some time before it opens.

A reading that is unknown (None, NaN) says nothing: it neither opens nor clears.

`AlarmTable` decides and takes the time as an argument; `Alarms` reads the clock and tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from treewarden.clock import wall_ns
from treewarden.errors import NameUnknown

if TYPE_CHECKING:
    from collections.abc import Callable

# Open alarms, conditions that wait for their time, and rules: at most so many of each.
_LIMIT: Final = 1000
_TEXT_LIMIT: Final = 300
# Seconds without a reading after which a waiting condition may make room for others.
_ABANDONED: Final = 3600.0


class Severity(StrEnum):
    """Look at it some time, or now."""

    WARNING = "warning"
    CRITICAL = "critical"


class AlarmMove(StrEnum):
    """What became of an alarm; mere updates are not told."""

    OPENED = "opened"
    CHANGED = "changed"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRule:
    """When readings of a name are an alarm: `above` or `below` a value.

    It clears when the value is at `clear_at` or beyond; the default is the value at which
    it opens. `for_seconds`: so long it must have been true, at each reading in between.
    """

    name: str
    reading: str
    above: float | None = None
    below: float | None = None
    clear_at: float | None = None
    for_seconds: float = 0.0
    severity: Severity = Severity.WARNING
    message: str = ""

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"rule {self.name!r} needs either above or below")
        for field in ("above", "below", "clear_at"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"{field} of rule {self.name!r} must be a number, not {value}"
                )
        if not 0 <= self.for_seconds < math.inf:
            raise ValueError(
                f"for_seconds must be >= 0 and finite, not {self.for_seconds}"
            )
        if self.clear_at is not None and self.holds(self.clear_at):
            raise ValueError(
                f"rule {self.name!r} would not clear at {self.clear_at}: it holds there"
            )

    @property
    def threshold(self) -> float:
        """The value at which it opens."""
        return self.above if self.above is not None else self.below or 0.0

    def holds(self, value: float) -> bool:
        """Whether it is true of this value."""
        if self.above is not None:
            return value > self.above
        return value < self.threshold

    def is_over(self, value: float) -> bool:
        """Whether an open one clears at this value."""
        line = self.clear_at if self.clear_at is not None else self.threshold
        return value <= line if self.above is not None else value >= line

    def describe(self, value: float) -> str:
        """What is wrong, for people."""
        side = "above" if self.above is not None else "below"
        seen = f"{self.reading} is {value:.4g}, {side} {self.threshold:.4g}"
        return f"{self.message} ({seen})" if self.message else seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One that is open; `count` readings have said so, the last one at `updated_at_ns`.

    `id` is of this run. `acknowledged_by`: an operator knows of it.
    """

    id: int
    name: str
    subject: str
    severity: Severity
    message: str
    value: float | None
    opened_at_ns: int
    updated_at_ns: int
    count: int = 1
    acknowledged_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmNews:
    """What happened to an alarm, and as it is since; cleared, as it was last."""

    move: AlarmMove
    alarm: Alarm


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmsStatistics:
    """What is open, and what was; opened = cleared + len(open), at all times.

    `refused`: there was no room for one more; a condition that lasts opens it later.
    `pending` conditions are true and wait for their time.
    """

    open: tuple[Alarm, ...]
    opened: int
    cleared: int
    acknowledged: int
    refused: int
    pending: int


Key = tuple[str, str]


class AlarmTable:
    """Which alarms are open; pure. Times are seconds, of any clock that only grows."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self.limit = limit
        self._open: dict[Key, Alarm] = {}
        self._keys: dict[int, Key] = {}
        # Since when a condition has been true, and when somebody said so last.
        self._since: dict[Key, tuple[float, float]] = {}
        self._numbers = count(1)
        self.opened = self.cleared = self.acknowledged = self.refused = 0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def pending(self) -> int:
        """How many conditions wait for their time."""
        return len(self._since)

    def list(self) -> tuple[Alarm, ...]:
        """All that are open, in the order of their opening."""
        return tuple(self._open.values())

    def read(
        self, rule: AlarmRule, subject: str, value: float | None, now: float, at_ns: int
    ) -> AlarmNews | None:
        """A rule meets a reading."""
        if value is None or math.isnan(value):
            return None
        key = rule.name, subject
        if key in self._open:
            if rule.is_over(value):
                return self.clear(*key)
            return self.open(*key, rule.severity, rule.describe(value), value, at_ns)
        if not rule.holds(value):
            self._since.pop(key, None)
            return None
        if not self._has_lasted(key, rule.for_seconds, now):
            return None
        return self.open(*key, rule.severity, rule.describe(value), value, at_ns)

    def _has_lasted(self, key: Key, seconds: float, now: float) -> bool:
        if not seconds:
            return True
        if key not in self._since and len(self._since) >= self.limit:
            self._drop_abandoned(now)
        if key not in self._since and len(self._since) >= self.limit:
            self.refused += 1
            return False
        since, _ = self._since.get(key, (now, now))
        self._since[key] = since, now
        return now - since >= seconds

    def _drop_abandoned(self, now: float) -> None:
        """Forget conditions that nobody speaks of any more: they would stay for ever."""
        for key, (_, read_at) in tuple(self._since.items()):
            if now - read_at > _ABANDONED:
                del self._since[key]

    def open(
        self,
        name: str,
        subject: str,
        severity: Severity,
        message: str,
        value: float | None,
        at_ns: int,
    ) -> AlarmNews | None:
        """Open one, or update it; None: it was open as severe as that, or no room."""
        key, message = (name, subject), message[:_TEXT_LIMIT]
        known = self._open.get(key)
        if known is not None:
            return self._update(key, known, severity, message, value, at_ns)
        if len(self._open) >= self.limit:
            self.refused += 1
            return None
        self._since.pop(key, None)
        alarm = Alarm(
            id=next(self._numbers),
            name=name,
            subject=subject,
            severity=severity,
            message=message,
            value=value,
            opened_at_ns=at_ns,
            updated_at_ns=at_ns,
        )
        self._open[key] = alarm
        self._keys[alarm.id] = key
        self.opened += 1
        return AlarmNews(move=AlarmMove.OPENED, alarm=alarm)

    def _update(
        self,
        key: Key,
        known: Alarm,
        severity: Severity,
        message: str,
        value: float | None,
        at_ns: int,
    ) -> AlarmNews | None:
        changed = severity is not known.severity
        # What somebody acknowledged was less than this.
        worse = changed and severity is Severity.CRITICAL
        alarm = self._open[key] = replace(
            known,
            severity=severity,
            message=message,
            value=value,
            updated_at_ns=at_ns,
            count=known.count + 1,
            acknowledged_by="" if worse else known.acknowledged_by,
        )
        return AlarmNews(move=AlarmMove.CHANGED, alarm=alarm) if changed else None

    def clear(self, name: str, subject: str) -> AlarmNews | None:
        """It is over; None: it was not open."""
        self._since.pop((name, subject), None)
        alarm = self._open.pop((name, subject), None)
        if alarm is None:
            return None
        del self._keys[alarm.id]
        self.cleared += 1
        return AlarmNews(move=AlarmMove.CLEARED, alarm=alarm)

    def acknowledge(self, id_: int, by: str) -> AlarmNews | None:
        """Somebody knows of it; None: he, or another one, did already.

        Raises:
            KeyError: it is not open.
        """
        key = self._keys[id_]
        if self._open[key].acknowledged_by:
            return None
        alarm = self._open[key] = replace(self._open[key], acknowledged_by=by)
        self.acknowledged += 1
        return AlarmNews(move=AlarmMove.ACKNOWLEDGED, alarm=alarm)

    def drop_rule(self, name: str) -> tuple[AlarmNews, ...]:
        """Clear everything of a rule that is no more."""
        for key in [key for key in self._since if key[0] == name]:
            del self._since[key]
        keys = [key for key in self._open if key[0] == name]
        return tuple(news for key in keys if (news := self.clear(*key)) is not None)


class Alarms:
    """The alarms of a runtime, and the rules that open them; `runtime.alarms`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = trio.current_time,
        told: Callable[[AlarmNews], None] = lambda _: None,
        limit: int = _LIMIT,
    ) -> None:
        """`told` is called of what happens to an alarm; it must not raise."""
        self._clock = clock
        self._told = told
        self._table = AlarmTable(limit)
        self._rules: dict[str, AlarmRule] = {}
        self._by_reading: dict[str, list[AlarmRule]] = {}
        self._version = 0

    def rule(self, rule: AlarmRule) -> None:
        """Look at readings by this rule from now on; one of its name is replaced.

        What the replaced one had opened is cleared.

        Raises:
            ValueError: there are too many rules.
        """
        if rule.name not in self._rules and len(self._rules) >= _LIMIT:
            raise ValueError(f"there are {_LIMIT} rules, and one more is too many")
        self.drop_rule(rule.name)
        self._rules[rule.name] = rule
        self._by_reading.setdefault(rule.reading, []).append(rule)

    def drop_rule(self, name: str) -> bool:
        """Go by a rule no more, and clear what it opened; whether there was one."""
        rule = self._rules.pop(name, None)
        if rule is None:
            return False
        siblings = self._by_reading[rule.reading]
        siblings.remove(rule)
        if not siblings:
            del self._by_reading[rule.reading]
        for news in self._table.drop_rule(name):
            self._tell(news)
        return True

    def rules(self) -> tuple[AlarmRule, ...]:
        """All rules, in the order in which they came."""
        return tuple(self._rules.values())

    def read(self, reading: str, value: float | None, *, subject: str = "") -> None:
        """A reading, of what it is (`subject`); None: it is unknown."""
        now = self._clock()
        for rule in tuple(self._by_reading.get(reading, ())):
            self._tell(self._table.read(rule, subject, value, now, wall_ns()))

    def forget(self, reading: str, subject: str) -> None:
        """There will be no more readings of it: clear what they opened."""
        for rule in self._by_reading.get(reading, ()):
            self.clear(rule.name, subject)

    def open(
        self,
        name: str,
        subject: str = "",
        *,
        severity: Severity = Severity.WARNING,
        message: str = "",
    ) -> None:
        """Something is wrong, without a rule: open an alarm, or update it."""
        self._tell(self._table.open(name, subject, severity, message, None, wall_ns()))

    def clear(self, name: str, subject: str = "") -> bool:
        """It is over; whether it was open."""
        news = self._table.clear(name, subject)
        self._tell(news)
        return news is not None

    def acknowledge(self, id_: int, by: str) -> Alarm:
        """An operator knows of it; it stays open until it is over.

        Raises:
            NameUnknown: there is no open alarm with this id.
            ValueError: nobody says so.
        """
        if not by:
            raise ValueError("somebody has to acknowledge it")
        try:
            self._tell(self._table.acknowledge(id_, by))
        except KeyError:
            raise NameUnknown(str(id_), f"no alarm {id_} is open") from None
        return next(one for one in self._table.list() if one.id == id_)

    def list(self) -> tuple[Alarm, ...]:
        """All that are open, in the order of their opening."""
        return self._table.list()

    def _tell(self, news: AlarmNews | None) -> None:
        self._version += 1
        if news is not None:
            self._told(news)

    @property
    def version(self) -> int:
        """A number that has changed when `list` has."""
        return self._version

    def statistics(self) -> AlarmsStatistics:
        """What is open, and counters since the beginning."""
        table = self._table
        return AlarmsStatistics(
            open=table.list(),
            opened=table.opened,
            cleared=table.cleared,
            acknowledged=table.acknowledged,
            refused=table.refused,
            pending=table.pending,
        )
