"""The library: the standard library's documentation as HTML pages in a cache folder.

Rendered once for each Python version, in a child process, 5 s a page; complete when
`pages.json` is there. Two runtimes that render at the same time each fill a folder of
their own and the first to finish names it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs
import trio

from treewarden.clock import wall_ns

from .modules import MODULES

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SECONDS: Final = 5.0
SITES: Final = ("healthy", "slow", "flaky", "dying")
# Names end so because RFC 6761 gives .localhost to loopback: an address of ours can never
# be somebody's site.
DOMAIN: Final = ".localhost"

_RENDER: Final = Path(__file__).with_name("render.py")
_UNFINISHED: Final = ".rendering-"
_HOUR_NS: Final = 3600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What was rendered, and where it is; `skipped` says why pages are not there."""

    folder: Path
    names: tuple[str, ...]
    skipped: Mapping[str, str]

    def pages(self, site: str) -> dict[str, bytes]:
        """Path to content of everything that one site serves; reads the files."""
        pages = {
            f"/{name}.html": (self.folder / f"{name}.html").read_bytes()
            for name in self._names(site)
        }
        return {"/": self._index(site), **pages}

    def urls(self) -> frozenset[str]:
        """The address of every page that a crawl has to find."""
        return frozenset(map(url_of, self.names)) | frozenset(map(index_of, SITES))

    def _names(self, site: str) -> list[str]:
        return [name for name in self.names if site_of(name) == site]

    def _index(self, site: str) -> bytes:
        links = [f'<a href="/{name}.html">{name}</a>' for name in self._names(site)]
        others = [f'<a href="{index_of(other)}">{other}</a>' for other in SITES]
        title = f"Python {platform.python_version()}: modules at {site}"
        items = "\n".join(f"<li>{link}</li>" for link in [*links, *others])
        return (
            "<!DOCTYPE html>\n<html><head><meta charset='utf-8'>"
            f"<title>{title}</title></head><body><h1>{title}</h1>\n"
            f"<ul>\n{items}\n</ul></body></html>\n"
        ).encode()


def site_of(name: str) -> str:
    """The site that serves a module's page; the same on every machine."""
    return SITES[zlib.crc32(name.encode()) % len(SITES)]


def host_of(site: str) -> str:
    """A site's host name; its port is another one in each run."""
    return f"{site}{DOMAIN}"


def url_of(name: str) -> str:
    """The address of a module's page, without the port: it must outlive a restart."""
    return f"http://{host_of(site_of(name))}/{name}.html"


def index_of(site: str) -> str:
    """The address of a site's index."""
    return f"http://{host_of(site)}/"


def library_folder() -> Path:
    """Where this interpreter's pages are cached.

    Named by Python version, and by what else decides how the pages look.
    """
    addresses = " ".join(map(url_of, MODULES))
    made_by = _RENDER.read_bytes() + addresses.encode()
    digest = hashlib.sha256(made_by).hexdigest()[:8]
    name = f"pages-{platform.python_version()}-{digest}"
    return platformdirs.user_cache_path("treewarden") / "demo" / name


def read_library(folder: Path) -> Library:
    """The library in `folder`.

    Raises:
        FileNotFoundError: nothing was rendered there yet.
    """
    found = json.loads((folder / "pages.json").read_text("utf-8"))
    return Library(
        folder=folder, names=tuple(found["rendered"]), skipped=found["skipped"]
    )


async def render_library(
    folder: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """A child that fills `folder` unless it is full, then says it is ready and ends.

    Cancelled, it kills its process and leaves nothing that looks like a library.
    """
    if not await trio.Path(folder, "pages.json").exists():
        await _render_into(folder)
    task_status.started()


async def _render_into(folder: Path) -> None:
    await trio.Path(folder.parent).mkdir(parents=True, exist_ok=True)
    await trio.to_thread.run_sync(_sweep, folder.parent)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=_UNFINISHED, ignore_cleanup_errors=True
    ) as name:
        fresh = Path(name, "pages")
        await trio.Path(fresh).mkdir()
        await _run_renderer(fresh)
        try:
            await trio.Path(fresh).rename(folder)
        except OSError:
            # Somebody else was first; theirs is as good, unless it is something else.
            if not await trio.Path(folder, "pages.json").exists():
                raise


def _sweep(parent: Path) -> None:
    """Remove what killed runs left unfinished; nobody renders for as long as an hour."""
    for left in parent.glob(f"{_UNFINISHED}*"):
        if wall_ns() - left.stat().st_mtime_ns > _HOUR_NS:
            shutil.rmtree(left, ignore_errors=True)


async def _run_renderer(folder: Path) -> None:
    plan = {
        "folder": str(folder),
        "seconds": PAGE_SECONDS,
        "urls": {name: url_of(name) for name in MODULES},
    }
    # pydoc shows os.environ on the page of os: the child gets none of ours.
    result = await trio.run_process(
        [sys.executable, "-I", str(_RENDER)],
        stdin=json.dumps(plan).encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=folder,
        env={"LC_ALL": "C.UTF-8"},
    )
    if result.returncode != 0:
        last = result.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"rendering ended with {result.returncode}: {last[:500]}")
