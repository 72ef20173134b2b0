"""The terminal is given back as it was found, however the console ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"


class Terminal:
    """A console on a pseudo-terminal of 80x24 cells."""

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        self._end, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "treewarden_console", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )
        os.close(inner)

    def read_until(self, seen: Callable[[bytes], bool]) -> None:
        """Read what it draws until `seen`, or until it hung up."""
        deadline = time.monotonic() + 120
        while not seen(self.output):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._end], [], [], max(0.0, left))
            assert ready, f"nothing more came: {self.output[-300:]!r}"
            try:
                data = os.read(self._end, 65536)
            except OSError:
                return
            if not data:
                return
            self.output += data

    def press(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def wait(self) -> int:
        """Read to its end; its exit status."""
        self.read_until(lambda _: False)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._end)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal("--socket", str(tmp_path / "nobody.sock"))
    yield terminal
    terminal.close()


def given_back(output: bytes) -> bool:
    """The alternate screen was left after it was entered, and the cursor shows."""
    entered = output.rindex(ENTER)
    return LEAVE in output[entered:] and SHOW_CURSOR in output[entered:]


@pytest.mark.parametrize(
    "end",
    [
        lambda terminal: terminal.press(b"q"),
        lambda terminal: terminal.press(b"\x03"),
        lambda terminal: terminal.press(b"\x11"),
        lambda terminal: terminal.process.terminate(),
        lambda terminal: terminal.process.send_signal(signal.SIGHUP),
    ],
    ids=["q", "ctrl+c", "ctrl+q", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_given_back(
    terminal: Terminal, end: Callable[[Terminal], None]
) -> None:
    terminal.read_until(lambda output: b"CONNECTING" in output)
    end(terminal)
    assert terminal.wait() == 0
    assert given_back(terminal.output)


def test_where_no_cursor_can_be_moved_no_console_is_drawn() -> None:
    outer, inner = pty.openpty()
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "treewarden.cli", "attach"],
            stdin=inner,
            stdout=inner,
            stderr=subprocess.PIPE,
            env=os.environ | {"TERM": "dumb"},
            check=False,
        )
    finally:
        os.close(inner)
        os.close(outer)
    assert ended.returncode == 1
    assert b"a console needs a terminal that draws" in ended.stderr
