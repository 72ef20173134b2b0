"""The command line: `treewarden run`, `demo`, `attach` and those that ask a runtime.

`commands` says what can be typed and imports nothing that a command does not need, so
that `--help` is quick; `loading` finds the application, `launching` starts it beside a
console, `asking` talks to a running one, `showing` makes text and JSON of the answers.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process; ends it with the status of `design.md` 9."""
    from .commands import main as run

    run()


__all__ = ["main"]
