"""How many programs may run, which, for how long, and what there is to see of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from treewarden.resilience import check_count, check_seconds, check_wait

# S23 of the systems' specification.
TIMEOUT_SECONDS: Final = 10.0
LIMIT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramPolicy:
    """The rules of a gateway for programs. Seconds everywhere.

    At most `limit` programs run at once; `queue` more wait in line, each for at most
    `max_wait`, and the next one is refused at once (`BulkheadFull`). `allowed` are the
    programs that may be run, as they are written in front of their arguments: `ps` does
    not allow `/tmp/ps`. None allows all.

    A program that is to end is asked to (SIGTERM to its group), and after `grace` made to
    (SIGKILL). Answers that may be kept are, for `cache_ttl`; the `cache_size` newest.
    """

    limit: int = 5
    queue: int = 100
    max_wait: float = 10.0
    allowed: frozenset[str] | None = None
    grace: float = 2.0
    cache_ttl: float = 30.0
    cache_size: int = 256

    def __post_init__(self) -> None:
        """Refuse what could never work; the message shows the value."""
        check_count("limit", self.limit, 1)
        check_count("queue", self.queue, 0)
        check_count("cache_size", self.cache_size, 1)
        check_seconds("cache_ttl", self.cache_ttl)
        check_seconds("grace", self.grace)
        check_wait("max_wait", self.max_wait)
        if isinstance(self.allowed, str):
            raise TypeError(f"allowed must be a set of programs, not {self.allowed!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProgram:
    """A program that runs now; its arguments may be secrets, and are not shown."""

    program: str
    pid: int
    since: float
    caller: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramsStatistics:
    """A gateway for programs as it stands; counters since it was made.

    started = succeeded + failed + timed_out + cancelled + the running, at all times;
    `failed` ended with another status than 0, and their callers may have wanted that.
    `refused` found no room in the line, `denied` were not allowed, `not_started` the
    system could not start. `truncated` wrote more than was kept, `killed` did not end when
    they were asked to; `left_behind` run still, because SIGKILL has not ended them yet.
    `kept` answers may be given again, `hits` were, and `shared` came of what somebody else
    was running.
    """

    running: tuple[RunningProgram, ...]
    limit: int
    queue: int
    waiting: int
    started: int
    succeeded: int
    failed: int
    timed_out: int
    cancelled: int
    refused: int
    denied: int
    not_started: int
    truncated: int
    killed: int
    left_behind: int
    kept: int
    hits: int
    shared: int
