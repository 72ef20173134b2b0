"""An import costs what it uses: the faces load their parts when they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    names: list[str] = json.loads(result.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in names}


def test_importing_treewarden_loads_none_of_the_heavy_libraries() -> None:
    heavy = {"sqlite_utils", "httpx", "opentelemetry", "trio_parallel", "textual"}
    assert loaded_by("import treewarden") & heavy == set()


def test_describing_an_application_loads_none_of_the_heavy_libraries() -> None:
    heavy = {"sqlite_utils", "httpx", "opentelemetry", "trio_parallel", "textual"}
    names = "Agent, Application, ChildSpec, SupervisorSpec, Intensity"
    assert loaded_by(f"from treewarden import {names}") & heavy == set()


def test_the_console_loads_neither_trio_nor_a_database_nor_an_http_client() -> None:
    loaded = loaded_by("import treewarden_console.app")
    assert "textual" in loaded
    assert loaded & {"trio", "sqlite3", "_sqlite3", "httpx", "sqlite_utils"} == set()


def test_the_wire_contract_loads_no_event_loop() -> None:
    loaded = loaded_by("import treewarden.control.protocol, treewarden.control.session")
    assert loaded & {"trio", "asyncio", "sqlite3", "textual"} == set()


def test_every_public_name_of_treewarden_can_be_had() -> None:
    assert "treewarden" in loaded_by("from treewarden import *")
    assert "treewarden" in loaded_by(
        "import treewarden\n"
        "assert treewarden.__all__\n"
        "assert set(treewarden.__all__) <= set(dir(treewarden))\n"
        "for name in treewarden.__all__: getattr(treewarden, name)"
    )
