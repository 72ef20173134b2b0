"""`python -m treewarden_console --socket PATH`: the console without the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .app import run_console


def main() -> int:
    """Parse the arguments and watch."""
    parser = argparse.ArgumentParser(
        prog="treewarden_console", description="Watch a running treewarden runtime."
    )
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--rights", choices=("ro", "rw", "chaos"), default="ro")
    parser.add_argument("--owner", choices=("demo", "run", "attach"), default="attach")
    parser.add_argument("--ascii", action="store_true", help="draw without glyphs")
    chosen = parser.parse_args()
    return run_console(
        chosen.socket,
        rights=chosen.rights,
        owner=chosen.owner,
        ascii_only=chosen.ascii or None,
    )


if __name__ == "__main__":
    sys.exit(main())
