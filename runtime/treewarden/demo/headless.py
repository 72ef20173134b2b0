"""The demo without a console: it crawls, breaks itself twice, and settles the account."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from treewarden import (
    AgentError,
    Config,
    NameUnknown,
    NotRunning,
    StoreError,
    open_runtime,
)

from .application import PAGES, application
from .census import Census
from .frontier import Account, Frontier
from .index import indexed
from .pages import library_folder, read_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from treewarden import Application, Runtime

# What is broken, and after how many seconds: in the middle of the work.
_BREAKS: Final = ((2.0, "/fetchers/f-1"), (4.0, "/frontier"))
_LOOK_SECONDS: Final = 0.2
_HEALING_SECONDS: Final = 30.0
# A crawl that is done still waits for a site to go and come back: the first goes after
# 3 s, for 5 s.
_WAIT_SECONDS: Final = 40.0


_NOTHING: Final = Account(found=0, pending=0, held=0, skipped=0, announced=0)


@dataclass(slots=True)
class CircuitCount:
    """How often circuits opened and closed again, from looks at their states.

    An outage lasts seconds and looks are 0.2 s apart, so none is missed.
    """

    opened: int = 0
    closed: int = 0
    _open: set[str] = field(default_factory=set)

    def look(self, states: Mapping[str, str]) -> list[str]:
        """Count what has changed, and say it; half open is still open."""
        is_open = {name for name, state in states.items() if state != "closed"}
        opened, closed = is_open - self._open, self._open - is_open
        self.opened += len(opened)
        self.closed += len(closed)
        self._open = is_open
        news = [f"circuit {name} opened" for name in sorted(opened)]
        return news + [f"circuit {name} closed again" for name in sorted(closed)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run ended, in pages; what is still to be fetched is not lost.

    `lost` were found, or are served by the sites, and are neither in the index nor to be
    fetched any more. `miscounted` is how far the census is from what it was told of; as
    long as there is something to fetch nobody can say.
    """

    indexed: int
    lost: int
    twice: int
    miscounted: int
    complete: bool

    def status(self, *, cut_short: bool) -> int:
        """The exit status: 0, or 1 when something is wrong or was to be finished."""
        wrong = self.lost or self.twice or self.miscounted
        return 1 if wrong or not (self.complete or cut_short) else 0


def judge(
    account: Account,
    urls: frozenset[str],
    twice: int,
    served: frozenset[str],
    counted: int,
) -> Verdict:
    """Compare the frontier's account with index and census, and with what sites serve.

    A page that is indexed and not yet settled counts on both sides, hence the `max`.
    """
    complete = account.pending == 0
    missing = account.found - account.skipped - account.pending - len(urls)
    unfound = len(served - urls) if complete else 0
    return Verdict(
        indexed=len(urls),
        lost=max(missing, unfound, 0),
        twice=twice,
        miscounted=abs(account.announced - counted) if complete else 0,
        complete=complete,
    )


def headless(
    config: Config | None = None,
    *,
    seconds: float | None = None,
    url: str | None = None,
    pages: int = PAGES,
) -> int:
    """Run the demo to its end, printing what happens; returns the exit status.

    Blocks; call it from the main thread. `url` and `pages` are `application`'s.

    It ends when everything is indexed, or `seconds` after it is ready. 0: nothing is
    lost, indexed twice or miscounted, what was crashed has healed, and the crawl is
    complete if it was not cut short. SIGTERM ends it with 0, SIGINT with 130; a later run
    goes on where it was.

    Raises:
        What `open_runtime` raises, and ConfigError for a `url` that is none.
    """
    config = config or Config()
    app = application(config, url=url, pages=pages)
    told: list[int] = []

    def as_interrupt(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        signal.raise_signal(signal.SIGINT)

    # While it runs it waits for signals itself. While it starts and stops, trio knows how
    # to unwind for SIGINT, and SIGTERM borrows that.
    before = signal.signal(signal.SIGTERM, as_interrupt)
    try:
        return trio.run(_headless, app, config, seconds, url is None, told)
    except KeyboardInterrupt:
        return 0 if told else 130
    finally:
        signal.signal(signal.SIGTERM, before)


async def _headless(
    app: Application,
    config: Config,
    seconds: float | None,
    own_sites: bool,
    told: list[int],
) -> int:
    store = config.store_path(app.name)
    _say(f"{app.name}: state in {store}")
    if own_sites and not library_folder().exists():
        _say("rendering the standard library's documentation, once")
    async with open_runtime(app, config=config) as runtime:
        run = _Run(
            runtime=runtime,
            ends_at=trio.current_time() + (math.inf if seconds is None else seconds),
            breaks=list(_BREAKS) if own_sites else [],
            wants_circuit=own_sites,
            # A shell that ignores SIGINT for it lets it come this far.
            signal=told[0] if told else None,
        )
        await run.until_done()
    if run.signal is not None:
        return 130 if run.signal == signal.SIGINT else 0
    served = read_library(library_folder()).urls() if own_sites else frozenset[str]()
    counted = sum(run.census.values())
    verdict = judge(run.account, *indexed(store), served, counted)
    _say(
        f"pages indexed {verdict.indexed} · {run.broken()} · "
        f"lost {verdict.lost}, indexed twice {verdict.twice}"
    )
    _say(
        f"pages counted {counted} at {len(run.census)} sites · "
        f"miscounted {verdict.miscounted}"
    )
    return verdict.status(cut_short=not run.done) or int(run.healed < run.injected)


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of the demo: what it has seen so far, and what it has yet to break."""

    runtime: Runtime
    ends_at: float
    breaks: list[tuple[float, str]]
    wants_circuit: bool
    account: Account = _NOTHING
    census: dict[str, int] = field(default_factory=dict)
    circuits: CircuitCount = field(default_factory=CircuitCount)
    injected: int = 0
    healed: int = 0
    done: bool = False
    signal: int | None = None

    async def until_done(self) -> None:
        """Look, break and report until there is nothing to do, or somebody says stop."""
        began = said = trio.current_time()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            while self.signal is None and trio.current_time() < self.ends_at:
                await self._look()
                now = trio.current_time()
                if now - said >= 1.0:
                    said = now
                    self._report(now - began)
                await self._break(now - began)
                self.done = self._is_done(now - began)
                if self.done:
                    break
                with trio.move_on_after(_LOOK_SECONDS):
                    self.signal = await anext(signals)
            if self.signal is None:
                await self._count()

    def broken(self) -> str:
        """What went wrong and came right again, for the summary."""
        return (
            f"circuits opened {self.circuits.opened}, closed {self.circuits.closed} · "
            f"crashes injected {self.injected}, healed {self.healed}"
        )

    def _is_done(self, after: float) -> bool:
        if self.breaks or not self.account.found or self.account.pending:
            return False
        return (
            not self.wants_circuit or self.circuits.closed > 0 or after > _WAIT_SECONDS
        )

    async def _look(self) -> None:
        states = {one.name: one.state for one in self.runtime.circuits.statistics()}
        for line in self.circuits.look(states):
            _say(line)
        # While the frontier is being healed there is no news of it.
        with contextlib.suppress(AgentError, StoreError):
            frontier = self.runtime.ref("/frontier", Frontier)
            self.account = await frontier.call(Frontier.account)

    async def _count(self) -> None:
        """Read the census, once the last events have reached it."""
        with trio.move_on_after(_HEALING_SECONDS):
            while sum(self.census.values()) < self.account.announced:
                with contextlib.suppress(AgentError, StoreError):
                    census = self.runtime.ref("/census", Census)
                    self.census = await census.call(Census.counts)
                await trio.sleep(_LOOK_SECONDS / 10)

    def _report(self, after: float) -> None:
        account = self.account
        _say(
            f"{after:4.0f} s  found {account.found}, to go {account.pending} "
            f"({account.held} in hand)"
        )

    async def _break(self, after: float) -> None:
        """Crash what is due, and see it heal."""
        if not self.breaks or after < self.breaks[0][0]:
            return
        path = self.breaks[0][1]
        try:
            fault = self.runtime.injections.crash(path, by="demo")
        except (NameUnknown, NotRunning):
            # Not there at this moment; it is tried again at the next look.
            return
        del self.breaks[0]
        self.injected += 1
        crashed_at = trio.current_time()
        with trio.move_on_after(_HEALING_SECONDS):
            while not self._is_up(path, fault.incarnation + 1):  # noqa: ASYNC110 - no event
                await trio.sleep(_LOOK_SECONDS / 10)
            self.healed += 1
            await self._look()
            _say(
                f"crashed {path}: incarnation {fault.incarnation} -> "
                f"{fault.incarnation + 1}, healed in "
                f"{(trio.current_time() - crashed_at) * 1000:.0f} ms; "
                f"found {self.account.found}, to go {self.account.pending}"
            )

    def _is_up(self, path: str, incarnation: int) -> bool:
        node = self.runtime.tree()[path]
        return node.state == "running" and node.incarnation >= incarnation


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
