"""A4 of `spec/reliability.md`: the k-th thing that is asked of a disk fails.

`disk/disk.c` is the disk, `disk/faults.py` the runtime on it: its head says what it looks at.
Three errors share the k that come after a start; with `SOAK` each has all of them.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISK = Path(__file__).parent / "disk"
# Of these a run has any number.
MANY = ("write", "sync")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
LAST = 200
SOAK = "SOAK" in os.environ
PROCESSES = 2
HEALTH_SECONDS = 1.0


async def on_disk(library: Path, folder: Path, *options: str) -> list[str]:
    """Run `faults.py` there; what it printed."""
    watched = {"LD_PRELOAD": str(library), "DISK_ROOT": f"{folder}/"}
    done = await trio.run_process(
        [sys.executable, str(DISK / "faults.py"), str(folder), *options],
        env=os.environ | watched,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("kinds", [("write", "sync"), ("open", "truncate")])
async def test_whatever_fails_of_a_disk_costs_nothing_acknowledged_and_is_told(
    library: Path, tmp_path: Path, kinds: tuple[str, str]
) -> None:
    """A4, R4: each k up to 200, or until a run is clean."""
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    limit = trio.Semaphore(PROCESSES)

    async def fail(kind: str, share: int) -> None:
        folder = tmp_path / f"{kind}-{share}"
        folder.mkdir()
        number = str(ERRORS[share])
        sharing = () if SOAK or kind not in MANY else ("--share", str(share))
        async with limit:
            found[kind] += await on_disk(
                library, folder, kind, number, str(LAST), *sharing
            )

    async with trio.open_nursery() as nursery:
        for share in range(len(ERRORS)):
            for kind in kinds:
                nursery.start_soon(fail, kind, share)
    for kind, lines in found.items():
        said = [line.split(" ", 3) for line in lines]
        assert [line for *_, wrong in said if wrong for line in [kind, wrong]] == []
        # The machine makes one late now and then, not half of them.
        assert median(float(well) for *_, well, _ in said) <= HEALTH_SECONDS
        fates = [fate for _, fate, *_ in said]
        print(kind, {fate: fates.count(fate) for fate in set(fates)})  # noqa: T201 - says how much was tried
        assert "refused" in fates
        if kind in MANY:
            assert {int(at) for at, *_ in said} == set(range(1, LAST + 1))
            assert fates.count("failed") >= LAST * 3 // 4
        else:
            assert fates.count("clean") >= len(ERRORS)


@pytest.mark.alone
@pytest.mark.parametrize("number", [*ERRORS, errno.EROFS])
async def test_a_disk_that_is_well_again_is_noticed_within_a_second(
    library: Path,
    tmp_path: Path,
    number: int,
    until_within: Callable[[float], Iterator[list[float]]],
) -> None:
    """A4, A6: degraded at once, and well again without anybody's call."""
    for found in until_within(HEALTH_SECONDS):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        [line] = await on_disk(library, folder, "heal", str(number))
        degraded, well = map(float, line.split())
        found.append(max(degraded, well))
