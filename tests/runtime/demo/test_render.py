from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from treewarden.demo.render import render, render_all, rewrite

if TYPE_CHECKING:
    from pathlib import Path

URLS = {
    "json": "http://healthy.localhost/json.html",
    "json.decoder": "http://healthy.localhost/json.decoder.html",
    "codecs": "http://slow.localhost/codecs.html",
}


@pytest.mark.parametrize(
    ("link", "rewritten"),
    [
        (' href="json.decoder.html"', ' href="/json.decoder.html"'),
        (' href="json.html#load"', ' href="/json.html#load"'),
        (' href="codecs.html"', ' href="http://slow.localhost/codecs.html"'),
        (' href="nowhere.html#x"', ""),
        (' href="#local"', ' href="#local"'),
        (' href="https://docs.python.org/x.html"', None),
    ],
)
def test_links_lead_to_pages_that_exist_or_nowhere(
    link: str, rewritten: str | None
) -> None:
    html = f"<a{link}>text</a>"
    expected = html if rewritten is None else f"<a{rewritten}>text</a>"
    assert rewrite(html, URLS["json"], URLS) == expected


def test_a_page_has_no_link_into_this_machine() -> None:
    assert "file:" not in render("json")
    assert "JSONDecoder" in render("json")


def test_a_return_annotation_is_escaped_once() -> None:
    html = render("asyncio.timeouts")
    assert "-&gt;" in html
    assert "&amp;gt;" not in html


def test_a_page_that_cannot_be_rendered_is_skipped_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo_raises.py").write_text("raise ValueError('no')")
    (tmp_path / "demo_leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "demo_hangs.py").write_text("while True: pass")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["demo_raises", "demo_leaves", "demo_hangs", "demo_missing", "json"]

    pages, skipped = render_all(dict.fromkeys(names, ""), seconds=0.2)

    assert list(pages) == ["json"]
    assert skipped["demo_raises"] == "ValueError: no"
    assert skipped["demo_leaves"] == "SystemExit: 3"
    assert skipped["demo_hangs"].startswith("TimeoutError")
    assert skipped["demo_missing"].startswith("ModuleNotFoundError")
