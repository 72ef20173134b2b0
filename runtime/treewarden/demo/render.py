"""Renders module documentation to HTML; run as a program, and by file name.

It imports what it documents, so it runs in an interpreter of its own, isolated (`-I`),
without the caller's environment (pydoc prints `os.environ`), and imports nothing of
treewarden. A plan comes in on stdin as JSON: `folder`, `seconds` (for one page) and `urls`
(module to address). Out come `<folder>/<module>.html` and, last, `<folder>/pages.json`:
the `rendered` names, and the `skipped` ones with why.

Links between pages are written as addresses of the plan; a link to a page that is not
there is taken out, and so are links to source files on this machine.
"""

from __future__ import annotations

import importlib
import json
import pydoc
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

# pydoc links to a module by its bare file name: href="json.decoder.html#JSONDecoder".
_LINK = re.compile(r' href="([\w.]+)\.html(#[^"]*)?"')


class Pages(pydoc.HTMLDoc):
    """pydoc's own pages, without links into this machine's files."""

    def filelink(self, url: str, path: str) -> str:
        """The name of a source file, as text."""
        return path


def render(name: str) -> str:
    """The page of one module; imports it."""
    pages = Pages()
    module = importlib.import_module(name)
    html = pages.page(pydoc.describe(module), pages.document(module, name))
    # pydoc escapes a method's return annotation twice.
    return html.replace("-&amp;gt;", "-&gt;")


def rewrite(html: str, own: str, urls: Mapping[str, str]) -> str:
    """`html` of the page at `own`, its links leading to `urls` or nowhere."""
    host = urlsplit(own).netloc

    def address(link: re.Match[str]) -> str:
        url = urls.get(link[1])
        if url is None:
            return ""
        there = urlsplit(url)
        target = there.path if there.netloc == host else url
        return f' href="{target}{link[2] or ""}"'

    return _LINK.sub(address, html)


def render_all(
    names: Mapping[str, str], seconds: float
) -> tuple[dict[str, str], dict[str, str]]:
    """The pages that could be rendered, and why the others could not."""
    signal.signal(signal.SIGALRM, _too_slow)
    pages: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in names:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            pages[name] = render(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one page, not the rest
            skipped[name] = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return pages, skipped


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("rendering this page took too long")


def main() -> None:
    """Carry out the plan on stdin."""
    plan = json.load(sys.stdin)
    folder = Path(plan["folder"])
    warnings.simplefilter("ignore")
    pages, skipped = render_all(plan["urls"], plan["seconds"])
    urls = {name: plan["urls"][name] for name in pages}
    for name, html in pages.items():
        text = rewrite(html, urls[name], urls)
        (folder / f"{name}.html").write_text(text, "utf-8", errors="replace")
    found = {"rendered": sorted(pages), "skipped": skipped}
    (folder / "pages.json").write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
