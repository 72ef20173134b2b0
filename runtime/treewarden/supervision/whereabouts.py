"""Where a child hangs: what its tasks await at this moment, outermost call first.

For those that do not end although they were cancelled, and for whoever asks. A task that
runs without awaiting has no place to be told here, but then nothing else runs either, and
the watchdog tells.
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

# Whoever hangs does so in one place, seldom in two. Its first frames tell what it was
# about, its deepest ones where it is; between them may be many of a library.
_TASKS: Final = 3
_FIRST: Final = 2
_DEEPEST: Final = 3
# How every task is begun, and how every wait ends: nobody learns from these.
_PACKAGE: Final = Path(__file__).parent.parent
_TRIO: Final = Path(trio.__file__).parent
_UNTOLD: Final = (f"{Path(__file__).parent}/", f"{_TRIO}/_core/")
# Nor from how a handler is begun, where there is one.
_AGENTS: Final = f"{_PACKAGE}/agents/"
_NOT_THEIRS: Final = (f"{_PACKAGE}/", f"{_TRIO}/")


def whereabouts(life: Life, tasks: Iterable[Task]) -> str:
    """Where those of `tasks`, and of the tasks that they wait for, hang that are its own.

    Of a supervisor nothing: it waits for its children, and these are told of themselves.
    """
    places = [place for task in _innermost(life, tasks) if (place := _place(task))]
    more = len(places) - _TASKS
    if more > 0:
        places[_TASKS:] = [f"and {more} more"]
    return "; ".join(places)


def hangs_at(life: Life) -> str:
    """As `whereabouts`, for who does not know its tasks: looks for them among all."""
    return whereabouts(life, _outermost(life))


def _outermost(life: Life) -> Iterator[Task]:
    root = trio.lowlevel.current_root_task()
    left = [root] if root is not None else []
    while left:
        task = left.pop()
        if task.context.get(current_life) is life:
            yield task
        else:
            left += [
                one for nursery in task.child_nurseries for one in nursery.child_tasks
            ]


def _innermost(life: Life, tasks: Iterable[Task]) -> Iterator[Task]:
    for task in tasks:
        if task.context.get(current_life) is life:
            inner = [
                one for nursery in task.child_nurseries for one in nursery.child_tasks
            ]
            deeper = list(_innermost(life, inner))
            yield from deeper or [task]


def _place(task: Task) -> str:
    frames = [
        (frame.f_code, line)
        for frame, line in task.iter_await_frames()
        if not frame.f_code.co_filename.startswith(_UNTOLD)
    ]
    if not all(code.co_filename.startswith(_NOT_THEIRS) for code, _ in frames):
        frames = [one for one in frames if not one[0].co_filename.startswith(_AGENTS)]
    calls = [f"{code.co_name} ({_short(code.co_filename)}:{n})" for code, n in frames]
    if len(calls) > _FIRST + _DEEPEST:
        calls[_FIRST:-_DEEPEST] = ["..."]
    return " > ".join(calls)


def _short(file: str) -> str:
    """The name below the folder that it was imported from; reports have little room."""
    roots = [root for root in sys.path if root and file.startswith(f"{root}/")]
    return file.removeprefix(f"{max(roots, key=len)}/") if roots else file
