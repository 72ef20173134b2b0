"""Break one promise after the other, and see that a test named for it turns red.

    python -m tests.sabotage [word ...]    only the doubles whose names hold a word

Every test must first be green without a double. A double is caught when pytest ran and a
test failed; when nothing failed, nothing ran or it took too long, it is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .doubles import ALL

if TYPE_CHECKING:
    from collections.abc import Collection

    from .double import Double

_ROOT: Final = Path(__file__).parents[2]
_AT_ONCE: Final = 2
_SECONDS: Final = 120.0
_PYTEST: Final = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p"]
_PLAIN: Final = ["no:cacheprovider", "-p", "no:randomly", "--hypothesis-seed=1"]
# What pytest says with its exit status.
_GREEN, _RED = 0, 1


async def _pytest(tests: Collection[str], double: str | None) -> tuple[int | None, str]:
    """Status (None: out of time) and what was printed; nothing is left running."""
    plugin = ["-p", "tests.sabotage.plugin"] if double is not None else []
    command = [*_PYTEST, *_PLAIN, *plugin, *tests]
    with trio.move_on_after(_SECONDS):
        run = await trio.run_process(
            command,
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            cwd=_ROOT,
            env={**os.environ, "SABOTAGE": double or ""},
        )
        return run.returncode, run.stdout.decode(errors="replace")
    return None, ""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _failed_test(output: str) -> str:
    """The name of the test that failed, without its file."""
    for line in output.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" - ")[0].rpartition("::")[2]
    return "?"


async def _break(
    limit: trio.CapacityLimiter, name: str, double: Double, failed: list[str]
) -> None:
    async with limit:
        status, output = await _pytest(double.caught_by, name)
    if status == _RED:
        _say(f"caught      {name}: {_failed_test(output)}")
        return
    failed.append(name)
    why = "out of time" if status is None else f"pytest ended with {status}"
    _say(f"NOT CAUGHT  {name}: {why}")


async def _see_green(
    limit: trio.CapacityLimiter, file: str, tests: list[str], red: set[str]
) -> None:
    async with limit:
        status, output = await _pytest(tests, None)
    if status == _GREEN:
        return
    red.update(tests)
    _say(f"RED AS IT IS  {file}: {_failed_test(output)}")


def _chosen(words: list[str]) -> dict[str, Double]:
    named = {f"{area}: {one.name}": one for area, all_ in ALL.items() for one in all_}
    return {
        name: double
        for name, double in named.items()
        if not words or any(word in name for word in words)
    }


async def _run(words: list[str]) -> int:
    doubles = _chosen(words)
    failed: list[str] = []
    red: set[str] = set()
    limit = trio.CapacityLimiter(_AT_ONCE)
    by_file: dict[str, list[str]] = {}
    for test in sorted({test for one in doubles.values() for test in one.caught_by}):
        by_file.setdefault(test.partition("::")[0], []).append(test)

    async with trio.open_nursery() as nursery:
        for file, tests in by_file.items():
            nursery.start_soon(_see_green, limit, file, tests, red)
    async with trio.open_nursery() as nursery:
        for name, double in doubles.items():
            if red.isdisjoint(double.caught_by):
                nursery.start_soon(_break, limit, name, double, failed)
            else:
                failed.append(name)
                _say(f"NOT CAUGHT  {name}: its test is red without it")
    _say(f"{len(doubles) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not doubles else 0


if __name__ == "__main__":
    sys.exit(trio.run(_run, sys.argv[1:]))
