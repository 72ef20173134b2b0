"""Break one promise after the other, and see that a test named for it turns red.

    python -m tests.sabotage [-v] [word ...]    only the doubles whose names hold a word

Every test must first be green without a double. A double is caught when pytest ran and a
test failed; when nothing failed, nothing ran or it took too long, it survived. The status
is 0 when all were caught.

Each run of pytest is a fork of this process, which has imported everything but the tests:
a sixth of the time of a process of its own. Whatever a run leaves behind is killed with
its group.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest

from .double import replace
from .doubles import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import ForkProcess

    from .double import Double

_ROOT: Final = Path(__file__).parents[2]
# More would make tests late that look at real time.
_AT_ONCE: Final = min(os.cpu_count() or 2, 4)
# The slowest test takes five. A double may well make one hang; then it is not caught.
_SECONDS: Final = 300.0
_PLUGINS: Final = ("pytest_trio.plugin", "_hypothesis_pytestplugin")
_PYTEST: Final = (
    "-q",
    "-x",
    "--tb=short",
    "--show-capture=no",
    # Plain: modules that were imported before cannot be rewritten.
    "--assert=plain",
    "--disable-plugin-autoload",
    *(word for plugin in _PLUGINS for word in ("-p", plugin)),
    *("-p", "no:cacheprovider"),
)
# What pytest says with its exit status.
_GREEN, _RED = 0, 1


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of pytest, with or without a double; `status` None: out of time."""

    name: str
    tests: Sequence[str]
    double: Double | None = None
    status: int | None = None
    output: str = ""

    def begin(self, file: Path) -> Started:
        """Fork; what is printed goes to `file`."""
        process = get_context("fork").Process(target=self._run, args=(file,))
        process.start()
        return Started(run=self, process=process, file=file)

    def _run(self, file: Path) -> None:
        """In the fork, which never comes back from here."""
        os.setpgid(0, 0)
        os.environ["HYPOTHESIS_PROFILE"] = "sabotage"
        printed = os.open(file, os.O_WRONLY | os.O_CREAT)
        for shown in (1, 2):
            os.dup2(printed, shown)
        status = 3
        try:
            if self.double is not None:
                self.double.breaks(replace)
            status = int(pytest.main([*_PYTEST, *self.tests]))
        finally:
            sys.stdout.flush()
            # No clean-up, no waiting for what a broken test may have left.
            os._exit(status)

    def failed_test(self) -> str:
        """The name of the first test that failed, without its file."""
        for line in self.output.splitlines():
            if line.startswith(("FAILED tests/", "ERROR tests/")):
                return line.split(" - ")[0].rpartition("::")[2]
        return "?"


@dataclass(slots=True, kw_only=True)
class Started:
    """A run under way."""

    run: Run
    process: ForkProcess
    file: Path
    deadline: float = field(default_factory=lambda: time.monotonic() + _SECONDS)

    def is_over(self) -> bool:
        """Whether it ended by itself or has had its time."""
        return not self.process.is_alive() or time.monotonic() >= self.deadline

    def end(self) -> None:
        """Kill its group, whoever of it is left, and read what it said."""
        if not self.process.is_alive():
            self.run.status = self.process.exitcode
        self.kill()
        self.run.output = self.file.read_text("utf-8", errors="replace")

    def kill(self) -> None:
        """Nobody of its group is left, and it is reaped."""
        self.process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()


def _finished(runs: Sequence[Run]) -> Iterator[Run]:
    """Each run when it is over, a few at a time."""
    waiting = list(reversed(runs))
    going: list[Started] = []
    with TemporaryDirectory() as folder:
        try:
            while waiting or going:
                while waiting and len(going) < _AT_ONCE:
                    file = Path(folder) / str(len(waiting))
                    going.append(waiting.pop().begin(file))
                soonest = min(one.deadline for one in going) - time.monotonic()
                connection.wait(
                    [one.process.sentinel for one in going], max(soonest, 0)
                )
                for one in [one for one in going if one.is_over()]:
                    going.remove(one)
                    one.end()
                    yield one.run
        finally:
            for one in going:
                one.kill()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _chosen(words: Sequence[str]) -> dict[str, Double]:
    return {
        name: double
        for name, double in ALL.items()
        if not words or any(word in name for word in words)
    }


def _red_as_they_are(doubles: Sequence[Double]) -> set[str]:
    """The tests of files in which one fails without any double."""
    by_file: dict[str, list[str]] = {}
    for test in sorted({test for one in doubles for test in one.caught_by}):
        by_file.setdefault(test.partition("::")[0], []).append(test)
    red: set[str] = set()
    for run in _finished([Run(name=f, tests=tests) for f, tests in by_file.items()]):
        if run.status != _GREEN:
            red.update(run.tests)
            why = "out of time" if run.status is None else run.failed_test()
            _say(f"RED AS IT IS  {run.name}: {why}")
            _say(run.output)
    return red


def _survived(run: Run, red: set[str]) -> str | None:
    """Why a double was not caught; None when it was."""
    if not red.isdisjoint(run.tests):
        return "its test is red without it"
    if run.status is None:
        return f"not over after {_SECONDS:g} s"
    return None if run.status == _RED else f"pytest ended with {run.status}"


def _break_all(doubles: dict[str, Double], *, verbose: bool) -> int:
    red = _red_as_they_are(list(doubles.values()))
    runs = [Run(name=n, tests=d.caught_by, double=d) for n, d in doubles.items()]
    survivors = 0
    for run in _finished(runs):
        why = _survived(run, red)
        survivors += why is not None
        if why is None:
            _say(f"caught      {run.name}: {run.failed_test()}")
        else:
            _say(f"NOT CAUGHT  {run.name}: {why}")
        if verbose:
            _say(run.output)
    _say(f"{len(doubles) - survivors} passed, {survivors} failed")
    return 1 if survivors or not doubles else 0


def main(arguments: Sequence[str]) -> int:
    """Run the doubles that are asked for; the exit status."""
    os.chdir(_ROOT)
    for plugin in _PLUGINS:
        importlib.import_module(plugin)
    words = [word for word in arguments if word != "-v"]
    return _break_all(_chosen(words), verbose="-v" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
