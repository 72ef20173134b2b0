"""The console loads the wire contract and Textual, and nothing of the runtime's weight."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("trio", "sqlite3", "sqlite_utils", "httpx", "opentelemetry", "trio_parallel")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a statement brings into a fresh interpreter."""
    script = f"{statement}\nimport sys; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(out.stdout.split())


def test_the_console_loads_no_part_of_a_runtime() -> None:
    loaded = loaded_by("import treewarden_console.app, treewarden_console.__main__")
    assert "textual.app" in loaded
    assert not loaded & set(HEAVY)
    ours = {name for name in loaded if name.startswith("treewarden.")}
    assert ours <= {
        "treewarden.control",
        "treewarden.control.plain",
        "treewarden.control.protocol",
        "treewarden.control.session",
    }


def test_what_the_console_believes_needs_neither_textual_nor_asyncio() -> None:
    loaded = loaded_by("import treewarden_console.state")
    assert not {name for name in loaded if name.split(".")[0] in ("textual", "rich")}
    assert "asyncio" not in loaded
