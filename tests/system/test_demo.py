"""The demo as a process: to its end, killed and started again, and judged by a stranger."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "20261121"))
# Pages may have to be rendered first, and a machine may be busy.
PATIENCE = 300
HEADLESS = """
import sys
from pathlib import Path
from treewarden import Config
from treewarden.demo import headless
seconds = float(sys.argv[2]) if sys.argv[2:] else None
sys.exit(headless(Config(store=Path(sys.argv[1]), socket=False), seconds=seconds))
"""
SUMMARY = re.compile(
    r"pages indexed (\d+) · circuits opened (\d+), closed (\d+) · "
    r"crashes injected 2, healed 2 · lost 0, indexed twice 0\n"
    r"pages counted (\d+) at 4 sites · miscounted 0"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own for the module, so that pages are rendered in one test only."""
    home = str(tmp_path_factory.mktemp("home"))
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": home, "XDG_CACHE_HOME": f"{home}/.cache"}


async def run_demo(
    folder: Path, environment: dict[str, str], *seconds: str
) -> tuple[int, str]:
    """Run it to its end, or for so many seconds; status and output."""
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, "-c", HEADLESS, str(folder / "demo.db"), *seconds],
            env=environment,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return result.returncode, result.stdout.decode()


async def kill_demo(folder: Path, environment: dict[str, str], requests: int) -> None:
    """Start it, and `kill -9` it when the sites have logged so many more requests."""
    logs = folder / "demo.requests"
    goal = count_lines(logs) + requests
    command = [sys.executable, "-c", HEADLESS, str(folder / "demo.db")]
    process = await trio.lowlevel.open_process(
        command, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(PATIENCE):
            while (  # noqa: ASYNC110 - another process has no event for us
                count_lines(logs) < goal and process.poll() is None
            ):
                await trio.sleep(0.002)
    finally:
        process.kill()
        await process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"


def count_lines(folder: Path) -> int:
    return sum(log.read_bytes().count(b"\n") for log in folder.glob("*.jsonl"))


async def judge(folder: Path) -> tuple[int, str]:
    result = await trio.run_process(
        [sys.executable, "-I", str(HERE / "check_crawl.py"), str(folder)],
        capture_stdout=True,
        check=False,
    )
    return result.returncode, result.stdout.decode()


async def test_the_demo_killed_three_times_at_random_loses_nothing_and_ends_well(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    moments = random.Random(SEED)  # noqa: S311 - a test that can be repeated
    for _ in range(3):
        # A busy machine is late to kill: there must be pages left to be asked for.
        requests = moments.randint(1, 45)
        sys.stdout.write(f"seed {SEED}: kill -9 after {requests} more requests\n")
        await kill_demo(tmp_path, environment, requests)

    status, output = await run_demo(tmp_path, environment)
    sys.stdout.write(output)

    assert status == 0
    summary = SUMMARY.search(output)
    assert summary is not None
    pages, opened, closed, counted = map(int, summary.groups())
    assert pages > 200
    assert counted == pages
    assert opened >= 1
    assert closed >= 1
    verdict, sentence = await judge(tmp_path)
    assert verdict == 0, sentence
    assert f"indexed {pages}," in sentence

    # Cut short before its own end, it still looks what the census has.
    status, output = await run_demo(tmp_path, environment, "0.5")
    assert status == 0, output
    assert f"pages counted {pages} at 4 sites · miscounted 0" in output


@pytest.mark.parametrize("phase", [b"state in", b"to go"], ids=["starting", "crawling"])
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 130)],
    ids=["term", "int"],
)
async def test_a_signal_ends_the_demo_in_order(
    tmp_path: Path,
    environment: dict[str, str],
    phase: bytes,
    number: signal.Signals,
    status: int,
) -> None:
    command = [sys.executable, "-c", HEADLESS, str(tmp_path / "demo.db")]
    process = await trio.lowlevel.open_process(
        command, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    output = b""
    with trio.fail_after(PATIENCE):
        while phase not in output:
            said = await process.stdout.receive_some(4096)
            assert said, output
            output += said
        process.send_signal(number)
        await process.wait()
    await process.stdout.aclose()
    assert process.returncode == status


@pytest.mark.parametrize(
    ("frontier", "index", "moment", "status", "finding"),
    [
        ("whole", "whole", "before", 0, "invented 0, sites miscounted 0"),
        ("whole", "whole", "after", 0, "invented 0, sites miscounted 0"),
        ("acknowledges_first", "whole", "before", 1, r"lost [1-9]\d*, indexed twice 0"),
        ("whole", "unguarded", "after", 1, r"lost 0, indexed twice [1-9]"),
        (
            "announces_first",
            "whole",
            "before",
            1,
            r"invented 0, sites miscounted [1-4]",
        ),
    ],
)
async def test_the_judge_tells_a_whole_crawl_from_a_broken_one(
    tmp_path: Path, frontier: str, index: str, moment: str, status: int, finding: str
) -> None:
    command = [sys.executable, str(HERE / "crawl_double.py"), str(tmp_path)]
    with trio.fail_after(PATIENCE):
        killed = await trio.run_process(
            [*command, frontier, index, moment], check=False
        )
        assert killed.returncode == -signal.SIGKILL
        await trio.run_process([*command, frontier, index, "never"])

    verdict, sentence = await judge(tmp_path)

    assert verdict == status, sentence
    assert re.search(finding, sentence)


async def test_the_judge_refuses_to_judge_nothing(tmp_path: Path) -> None:
    verdict, sentence = await judge(tmp_path)
    assert verdict == 2
    assert "nothing to judge" in sentence
