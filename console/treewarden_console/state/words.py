"""Numbers as an operator reads them: short, of steady width, never more precise than true."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def age(seconds: float | None) -> str:
    """How long, in at most five cells: `12s`, `2m10`, `2h11`, `3d04h`, `120d`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}"
    days = whole // _DAY
    return f"{days}d{whole % _DAY // _HOUR:02}h" if days < 10 else f"{days}d"


def count(number: float) -> str:
    """A count in at most five cells: `0`, `999`, `1.2k`, `12k`, `3.4M`."""
    if number < 1000:
        return f"{number:.0f}"
    for unit in ("k", "M", "G"):
        number /= 1000
        if number < 9.95:
            return f"{number:.1f}{unit}"
        if number < 999.5:
            return f"{number:.0f}{unit}"
    return f"{number:.0f}G"


def rate(per_second: float) -> str:
    """A rate per second: one decimal below ten, else a count."""
    if per_second == 0:
        return "0"
    return f"{per_second:.1f}" if per_second < 9.95 else count(per_second)


def size(size_bytes: float) -> str:
    """Bytes in binary steps: `512 B`, `1.2 KiB`, `18 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if size_bytes < 9.95:
            return f"{size_bytes:.1f} {unit}"
        if size_bytes < 1023.5:
            return f"{size_bytes:.0f} {unit}"
    return f"{size_bytes:.0f} GiB"


def span(seconds: float) -> str:
    """A short duration with its unit: `0.4 ms`, `40 ms`, `2.1 s`."""
    if seconds < 0.00095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 99.95 else age(seconds)


def time_of_day(at_ns: int, zone: tzinfo | None = None) -> str:
    """Wall time of day, to the millisecond; `zone` None is the operator's own."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    # Far instants (a clock that was never set) must not raise while drawing.
    try:
        instant = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return "??:??:??.???"
    return f"{instant:%H:%M:%S}.{rest // 1_000_000:03}"


def short_error(text: str) -> str:
    """`package.module.Error: why` without the way to the error's class."""
    kind, colon, why = text.partition(": ")
    name = kind.rpartition(".")[2]
    return name + colon + why if name.isidentifier() else text


def plural(number: int, one: str, many: str = "") -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
