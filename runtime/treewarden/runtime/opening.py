"""Opening a runtime: in a block, or for a whole process."""

from __future__ import annotations

import logging
import signal
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from treewarden.config import Config
from treewarden.errors import (
    ChildStartFailed,
    ConfigError,
    ControlError,
    NotRunning,
    ShuttingDown,
    StoreError,
)
from treewarden.supervision import Application, Collector, open_tree

from .runtime import STOP_SIGNALS, Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_current: ContextVar[Runtime | None] = ContextVar("treewarden_runtime", default=None)


def current_runtime() -> Runtime:
    """The runtime around the running child.

    Raises:
        NotRunning: outside a runtime.
    """
    runtime = _current.get()
    if runtime is None:
        raise NotRunning("there is no runtime here: this is not one of its children")
    return runtime


@asynccontextmanager
async def open_runtime(
    app: Application, *, config: Config | None = None
) -> AsyncIterator[Runtime]:
    """Run an application for as long as the block lasts.

    Entered once every child is ready. Leaving it, in whatever way, stops the application,
    then the system, each in reverse order and within its shutdown times.

    Raises:
        ConfigError, StoreError, ControlError: a part of the system cannot start; bare.
        ChildStartFailed: a child of the application did not start.
        IntensityExceeded: the tree gave up; the block was cancelled.
    """
    if not isinstance(app, Application):
        raise TypeError(f"open_runtime takes an Application, not {app!r}")
    async with running(
        Runtime(app, config if config is not None else Config())
    ) as runtime:
        yield runtime


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Run the tree of a runtime that is made, and be it for whoever asks meanwhile."""
    before = _current.get()
    _current.set(runtime)
    collector = Collector()
    collector.take_over()
    runtime.directory.grown = collector.grown
    try:
        async with open_tree(
            runtime.root_spec(),
            directory=runtime.directory,
            shutdown=runtime.config.shutdown,
        ):
            with runtime.stop_scope:
                yield runtime
    except ChildStartFailed as failure:
        cause = _root_cause(failure)
        if cause is failure:
            raise
        raise cause from cause.__cause__
    finally:
        # Points are the process's, and may outlive this runtime.
        runtime.injections.lift_all()
        collector.give_back()
        _current.set(before)


def _root_cause(failure: ChildStartFailed) -> BaseException:
    """What the system could not start for, without the levels of the tree around it."""
    innermost: BaseException = failure
    while isinstance(innermost, ChildStartFailed) and innermost.__cause__ is not None:
        innermost = innermost.__cause__
    if isinstance(innermost, (ConfigError, StoreError, ControlError)):
        return innermost
    return failure


def run(app: Application, config: Config | None = None) -> None:
    """Run an application until it is told to stop; blocks.

    SIGTERM and SIGINT stop the tree in order; a second one turns every stop into a kill; a
    third ends the process at once, also one whose loop is blocked. SIGINT counts also where
    whoever started us ignores it, as a shell does for what its scripts leave in the
    background: who sends it means us.

    Raises:
        KeyboardInterrupt: it was stopped by SIGINT.
        What `open_runtime` raises.
    """
    if not isinstance(app, Application):
        raise TypeError(f"run takes an Application, not {app!r}")
    configuration = config if config is not None else Config()
    logging.basicConfig(
        level=configuration.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    runtime = Runtime(app, configuration)
    runtime.takes_signals = True
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        trio.run(_run, runtime)
    finally:
        if len(runtime.signals) > 1:
            # They end the process by now, which is no longer ours alone.
            for number, heed in before.items():
                signal.signal(number, heed)
    if signal.SIGINT in runtime.signals:
        raise KeyboardInterrupt


async def _run(runtime: Runtime) -> None:
    try:
        async with running(runtime):
            await trio.sleep_forever()
    except ShuttingDown:
        # Told to stop before it was up.
        if not runtime.signals:
            raise
