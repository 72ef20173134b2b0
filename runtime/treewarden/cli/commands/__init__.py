"""What can be typed. Each command imports what it needs when it is run.

`group` is the command `treewarden` itself, `options` what several commands have, `complete`
what a shell is told. The others are the sections of its help: `running`, `looking`, `lists`,
`acting`, `breaking`, and `files` for `treewarden db`.
"""

import os
import sys
from pathlib import Path

from . import acting, breaking, lists, looking, running
from .files import files
from .group import Section, app, give_up_stdout
from .options import Given
from .running import demo

app.add_typer(demo, name="demo", rich_help_panel=Section.RUN)
app.add_typer(files, name="db", rich_help_panel=Section.FILES)


def main() -> None:
    """Run the command line of this process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # It was closed, as daemons are started: what is printed is for nobody.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - it stays open
        # A terminal that lacks a letter gets its code instead of a traceback.
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        app(prog_name="treewarden")
    except OSError as error:
        if error.filename is not None:
            raise
        # No file, and no socket either: those are told of as what they are part of.
        print(f"treewarden: cannot write the answer: {error.strerror}", file=sys.stderr)
        give_up_stdout()
        sys.exit(1)


__all__ = [
    "Given",
    "acting",
    "app",
    "breaking",
    "lists",
    "looking",
    "main",
    "running",
]
