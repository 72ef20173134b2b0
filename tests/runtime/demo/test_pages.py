from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING

import pytest
import trio

from treewarden.demo import pages
from treewarden.demo.modules import MODULES
from treewarden.demo.pages import (
    SITES,
    read_library,
    render_library,
    site_of,
    url_of,
)

if TYPE_CHECKING:
    from pathlib import Path


def make_library(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / f"{name}.html").write_text(name)
    found = {"rendered": names, "skipped": {"winreg": "ModuleNotFoundError"}}
    (folder / "pages.json").write_text(json.dumps(found))


def test_the_list_is_long_enough_sorted_and_leaves_out_what_acts_on_import() -> None:
    assert len(MODULES) > 220
    assert list(MODULES) == sorted(set(MODULES))
    acts = {
        "antigravity",
        "this",
        "idlelib",
        "turtledemo",
        "tkinter",
        "test",
        "lib2to3",
    }
    assert not acts.intersection(name.partition(".")[0] for name in MODULES)
    assert not any("__main__" in name for name in MODULES)


def test_every_site_has_a_fair_share_of_the_pages() -> None:
    shares = [sum(site_of(name) == site for name in MODULES) for site in SITES]
    assert min(shares) > len(MODULES) / len(SITES) / 2


def test_each_page_is_served_by_one_site_and_linked_from_its_index(
    tmp_path: Path,
) -> None:
    names = list(MODULES[:40])
    make_library(tmp_path, names)
    library = read_library(tmp_path)

    served = [f"http://{s}.localhost{path}" for s in SITES for path in library.pages(s)]
    assert len(served) == len(set(served))
    assert set(served) == library.urls()
    for site in SITES:
        served_here = library.pages(site)
        linked = re.findall(r'href="(/[^"]+)"', served_here["/"].decode())
        assert {*linked, "/"} == set(served_here)
    assert url_of(names[0]) in served


def test_a_folder_that_was_not_finished_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_library(tmp_path)


async def test_a_library_that_is_there_is_not_rendered_again(tmp_path: Path) -> None:
    make_library(tmp_path, ["json"])
    await render_library(tmp_path)
    assert (tmp_path / "json.html").read_text() == "json"


async def test_what_a_killed_run_left_is_removed_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MODULES", ("json", "no_such_module"))
    for name, age in ((".rendering-old", 4000), (".rendering-now", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)

    await render_library(tmp_path / "pages")

    library = read_library(tmp_path / "pages")
    assert library.names == ("json",)
    assert list(library.skipped) == ["no_such_module"]
    left = {path.name for path in await trio.Path(tmp_path).iterdir()}
    assert left == {"pages", ".rendering-now"}
