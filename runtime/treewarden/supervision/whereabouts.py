"""Where a child hangs: what its tasks await at this moment, outermost call first.

For those that do not end although they were cancelled. A task that runs without awaiting
has no place to be told here, but then nothing else runs either, and the watchdog tells.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .node import current_life

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio.lowlevel import Task

    from .node import Life

# Whoever hangs does so in one place, seldom in two; and its deepest frames tell where.
_TASKS: Final = 3
_FRAMES: Final = 5
# How every task is begun, and how every wait ends: nobody learns from these.
_OURS: Final = str(Path(__file__).parent)
_TRAPS: Final = str(Path(trio.__file__).parent / "_core")


def whereabouts(life: Life, tasks: Iterable[Task]) -> str:
    """Where those of `tasks`, and of the tasks that they wait for, hang that are its own.

    Of a supervisor nothing: it waits for its children, and these are told of themselves.
    """
    places = [place for task in _innermost(life, tasks) if (place := _place(task))]
    more = len(places) - _TASKS
    if more > 0:
        places[_TASKS:] = [f"and {more} more"]
    return "; ".join(places)


def _innermost(life: Life, tasks: Iterable[Task]) -> Iterator[Task]:
    for task in tasks:
        if task.context.get(current_life) is life:
            inner = [
                one for nursery in task.child_nurseries for one in nursery.child_tasks
            ]
            deeper = list(_innermost(life, inner))
            yield from deeper or [task]


def _place(task: Task) -> str:
    calls = [
        f"{frame.f_code.co_name} ({_short(file)}:{line})"
        for frame, line in task.iter_await_frames()
        if not (file := frame.f_code.co_filename).startswith((_OURS, _TRAPS))
    ]
    return " > ".join(calls[-_FRAMES:])


def _short(file: str) -> str:
    """The name below the folder that it was imported from; reports have little room."""
    roots = [root for root in sys.path if root and file.startswith(f"{root}/")]
    return file.removeprefix(f"{max(roots, key=len)}/") if roots else file
