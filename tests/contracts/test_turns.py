"""What `tests/conftest.py` promises to tests that run beside each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import os, signal, time
import pytest

def note(line):
    log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{line}\\n".encode())
    os.close(log)

@pytest.mark.parametrize("number", range(8))
def test_beside_others(number):
    note(f"beside {number} begins")
    time.sleep(0.01)
    note(f"beside {number} ends")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    note(f"alone {number} begins")
    time.sleep(0.01)
    note(f"alone {number} ends")

def test_of_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
"""
# As a shell has it that starts something in the background.
DEAF = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


def test_who_must_be_alone_is_and_comes_last_and_everybody_hears_ctrl_c(
    tmp_path: Path,
) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_turns.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    done = subprocess.run(
        [*DEAF, sys.executable, "-m", "pytest", "-n2", "--maxschedchunk=1"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    alone = [line for line in lines if line[0] == "alone"]
    assert len(lines) == 24
    assert len(alone) == 8
    # One after the other, with nothing between a beginning and its end.
    for begins, ends in zip(alone[::2], alone[1::2], strict=True):
        assert (begins[1:], ends[1:]) == ([ends[1], "begins"], [begins[1], "ends"])
        assert lines.index(ends) == lines.index(begins) + 1
    # When the first begins the other process has two tests in hand at most, as dealt out.
    later = [line[::2] for line in lines[lines.index(alone[0]) :]]
    assert later.count(["beside", "begins"]) <= 2
