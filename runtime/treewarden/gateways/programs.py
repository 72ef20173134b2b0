"""Programs run outside: argument lists, bounded in number, time and output.

A program runs for whoever asked: it ends with them, and with the gateway's child. There is
no shell, so nothing in an argument is ever a command.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

import treewarden.telemetry as tracing
from treewarden.clock import wall_ns
from treewarden.errors import (
    BulkheadFull,
    ProgramFailed,
    ProgramRefused,
    ProgramTimeout,
)
from treewarden.injection import places
from treewarden.resilience import Bulkhead, Cache, check_count, check_seconds
from treewarden.supervision import (
    check_endings,
    cleanup,
    current_life,
    hear_of_endings,
)

from .door import Door, sender_settled
from .program_policy import (
    LIMIT_BYTES,
    TIMEOUT_SECONDS,
    ProgramPolicy,
    ProgramsStatistics,
    RunningProgram,
)
from .running import Order, ProgramResult, Running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from treewarden.telemetry import Telemetry

# What a program gets of our environment, unless it is given another one: where to find
# things and how to write them, but no credential.
_ENVIRONMENT: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
)  # fmt: skip
# How long the system may take to end and reap what it was told to kill.
_REAP_SECONDS: Final = 2.0


class Programs:
    """A gateway for programs; `runtime.programs` is the runtime's.

    Another one, with rules of its own, is a child like any other:
    `tools = Programs(ProgramPolicy(limit=2, allowed=frozenset({"git"})))` and
    `ChildSpec("tools", tools.serve)`. While that does not run, nothing is.
    """

    def __init__(
        self,
        policy: ProgramPolicy | None = None,
        *,
        name: str = "programs",
        telemetry: Telemetry | None = None,
    ) -> None:
        """A gateway that is closed; None: the default policy, no spans."""
        self.name = name
        self._spans = telemetry.spans if telemetry is not None else None
        self._door = Door(name)
        self._running: dict[Running, RunningProgram] = {}
        # What the system could not kill yet; it is reaped when somebody looks.
        self._left: list[Running] = []
        self._counts: Counter[str] = Counter()
        self.configure(policy or ProgramPolicy())

    def configure(self, policy: ProgramPolicy) -> None:
        """Go by another policy for what is asked from now on; kept answers are forgotten.

        What runs, or waits, goes on under the rules that it came by.
        """
        self.policy = policy
        self._places = Bulkhead(
            policy.limit, policy.queue, max_wait=policy.max_wait, name=self.name
        )
        self._cache: Cache[Order, ProgramResult] = Cache(
            policy.cache_ttl, policy.cache_size, name=self.name
        )

    async def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 - a policy value (design 4)
        limit_bytes: int = LIMIT_BYTES,
        stdin: bytes = b"",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        cached: bool = False,
    ) -> ProgramResult:
        """Run a program to its end, and return what it wrote.

        A handler's program starts once what its agent did before is committed. Cancelled,
        the program and its group are ended before this returns; what it did until then
        stays done.

        Args:
            argv: the program and its arguments; there is no shell.
            timeout: a policy value: seconds from its start until it is ended.
            limit_bytes: how much of its output is kept: of stdout the beginning, of stderr
                the end. The rest is read and dropped.
            stdin: its input; without any it reads end-of-file.
            cwd: where it runs; None: where we do.
            env: its whole environment; None: ours, of which it gets PATH, HOME, USER,
                LOGNAME, SHELL, LANG, LC_ALL, LC_CTYPE, TZ and TMPDIR.
            check: whether another status than 0 is an error.
            cached: whether an answer to the same question that is not older than the
                policy's `cache_ttl` will do; who asks at the same time shares one.

        Raises:
            ProgramFailed: it ended with another status than 0, and `check`.
            ProgramTimeout: it was ended.
            ProgramRefused: it is not allowed, or cannot be started.
            BulkheadFull: too many run and wait.
            StoreError: what led to it was not kept; it was not started.
            NotRunning: the gateway does not run, or was stopped meanwhile.
            TypeError, ValueError: an argument makes no sense.
        """
        await trio.lowlevel.checkpoint()
        order = Order(
            argv=_arguments(argv),
            timeout=timeout,
            limit_bytes=limit_bytes,
            stdin=stdin,
            cwd=os.fspath(cwd) if cwd is not None else None,
            env=tuple(sorted((_environment() if env is None else env).items())),
            check=check,
        )
        check_seconds("timeout", timeout)
        check_count("limit_bytes", limit_bytes, 1)
        if not isinstance(stdin, bytes):
            raise TypeError(f"stdin must be bytes, not {stdin!r}")
        self._check_allowed(order)
        self._door.check()
        await sender_settled()
        if cached:
            return await self._cache.get_or_load(order, self._run, order)
        return await self._run(order)

    def _check_allowed(self, order: Order) -> None:
        allowed = self.policy.allowed
        if allowed is not None and order.program not in allowed:
            self._counts["denied"] += 1
            names = ", ".join(sorted(allowed)) or "none"
            raise ProgramRefused(order.program, f"it is not among the allowed: {names}")

    async def _run(self, order: Order) -> ProgramResult:
        with self._door.outside():
            try:
                result = await self._places.call(self._live, order, self.policy.grace)
            except BulkheadFull:
                self._counts["refused"] += 1
                raise
        if order.check and result.status:
            raise ProgramFailed(order.program, result.status, result.error_text)
        return result

    async def _live(self, order: Order, grace: float) -> ProgramResult:
        """From its start until it is reaped."""
        try:
            running = Running(order, grace)
        except OSError as error:
            self._counts["not_started"] += 1
            raise ProgramRefused(order.program, str(error)) from error
        began = trio.current_time()
        with self._observed(running):
            try:
                with trio.move_on_after(order.timeout) as patience:
                    await self._start(running)
                    await running.finish()
                    await places.PROGRAM_END.pass_by()
            finally:
                with trio.CancelScope(shield=True) as scope:
                    scope.deadline = trio.current_time() + grace + _REAP_SECONDS
                    await running.end()
            if patience.cancelled_caught:
                raise ProgramTimeout(order.program, order.timeout, running.error_text)
            return running.result(trio.current_time() - began)

    async def _start(self, running: Running) -> None:
        try:
            check_endings()
            await places.PROGRAM_START.pass_by()
            await running.start()
        except OSError as error:
            raise ProgramRefused(running.order.program, str(error)) from error
        life = current_life.get()
        self._running[running] = RunningProgram(
            program=running.order.program,
            pid=running.pid,
            since=trio.current_time(),
            caller=life.node.path if life is not None else "",
        )

    # --- what there is to see --------------------------------------------------------------

    @contextmanager
    def _observed(self, running: Running) -> Iterator[None]:
        began_ns, parent = wall_ns(), tracing.current.get()
        ending = "cancelled"
        try:
            yield
            ending = "ended"
        except ProgramTimeout:
            ending = "timed_out"
            raise
        except ProgramRefused:
            ending = "not_started"
            raise
        finally:
            self._running.pop(running, None)
            self._count(running, ending)
            if self._spans is not None and self._spans.enabled:
                self._record(running, ending, began_ns, parent)

    def _count(self, running: Running, ending: str) -> None:
        counts = self._counts
        if ending == "ended":
            ending = "failed" if running.status else "succeeded"
        if running.pid or ending == "not_started":
            counts[ending] += 1
        counts["started"] += running.pid != 0
        counts["truncated"] += running.truncated
        counts["killed"] += running.killed
        if running.is_left_behind:
            self._left = [*self._still_left(), running]

    def _still_left(self) -> list[Running]:
        return [one for one in self._left if one.is_left_behind]

    def _record(
        self,
        running: Running,
        ending: str,
        began_ns: int,
        parent: tracing.SpanContext | None,
    ) -> None:
        assert self._spans is not None  # noqa: S101 - whoever calls has looked
        program = running.order.program
        attributes: dict[str, str | int] = {
            "process.executable.name": os.path.basename(program),  # noqa: PTH119 - a string it is
            "process.args_count": len(running.order.argv),
        }
        if running.pid:
            attributes["process.pid"] = running.pid
        if running.status is not None:
            attributes["process.exit.code"] = running.status
        error = ending if ending != "ended" else None
        if running.status:
            error = error or f"status {running.status}"
        if error is not None:
            attributes["error.type"] = error
        self._spans.record(
            f"run {attributes['process.executable.name']}",
            tracing.new_context(parent), parent, began_ns, wall_ns(),
            tracing.SpanKind.CLIENT, attributes, (), error,
        )  # fmt: skip

    def statistics(self) -> ProgramsStatistics:
        """The gateway as it stands; never waits for a program."""
        counts, places, cache = (
            self._counts, self._places.statistics(), self._cache.statistics(),
        )  # fmt: skip
        running = tuple(self._running.values())
        self._left = self._still_left()
        return ProgramsStatistics(
            running=running,
            limit=places.limit,
            queue=places.queue,
            waiting=places.waiting,
            started=counts["started"] + len(running),
            succeeded=counts["succeeded"],
            failed=counts["failed"],
            timed_out=counts["timed_out"],
            cancelled=counts["cancelled"],
            refused=counts["refused"],
            denied=counts["denied"],
            not_started=counts["not_started"],
            truncated=counts["truncated"],
            killed=counts["killed"],
            left_behind=len(self._left),
            kept=cache.entries,
            hits=cache.hits,
            shared=cache.shared,
        )

    def clear(self) -> int:
        """Forget the kept answers; how many they were."""
        return self._cache.clear()

    # --- life ------------------------------------------------------------------------------

    async def serve(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """A child while which programs can be run; with it they are ended.

        Whoever waits for one then is cancelled and gets NotRunning.
        """
        hear_of_endings()
        self._door.open()
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._door.close()
            with cleanup():
                await self._door.wait_home()


def _arguments(argv: object) -> tuple[str, ...]:
    if isinstance(argv, (str, bytes, os.PathLike)):
        raise TypeError(
            f"a program is run by a list of arguments, not by a command line: {argv!r}"
        )
    try:
        arguments = tuple(os.fspath(one) for one in argv)  # type: ignore[attr-defined] # told below
    except TypeError:
        arguments = ()
    if not arguments or not all(isinstance(one, str) for one in arguments):
        raise TypeError(f"argv must be a list of str and paths, not {argv!r}")
    return arguments


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
