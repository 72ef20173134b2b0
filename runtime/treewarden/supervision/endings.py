"""Whether the system keeps how processes of ours end.

Who ignores SIGCHLD is told of nothing, and a process that failed would look as if it had
gone well; to ignore it is inherited from whoever started us.
"""

from __future__ import annotations

import errno
import signal
import threading


def hear_of_endings() -> None:
    """Have the system keep them from now on; only the main thread can change that."""
    if _is_deaf() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def check_endings() -> None:
    """To be asked before a process is started.

    Raises:
        ChildProcessError: nobody could tell how it ended.
    """
    if _is_deaf():
        raise ChildProcessError(
            errno.ECHILD, "SIGCHLD is ignored, so that nobody could tell how it ended"
        )


def _is_deaf() -> bool:
    return signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
