from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.demo.document import absolute, read_page

URL = "http://healthy.localhost/json.html"


def test_a_page_is_its_title_and_its_text_without_markup() -> None:
    page, _ = read_page(
        URL,
        "<title>The\n json  module</title><style>b {}</style>"
        "<p>reads &amp; <b>writes</b><script>var x;</script> JSON</p>",
    )
    assert page.url == URL
    assert page.title == "The json module"
    assert page.text == "reads & writes JSON"


def test_a_page_without_a_title_is_called_by_its_address() -> None:
    assert read_page(URL, "<p>words</p>")[0].title == URL


def test_links_are_absolute_without_fragment_and_named_once_in_order() -> None:
    _, links = read_page(
        URL,
        '<a href="/b.html">b</a><a href="a.html#x">a</a><a href="a.html#y">a</a>'
        '<a href="http://slow.localhost">slow</a><a>none</a>',
    )
    assert links == (
        "http://healthy.localhost/b.html",
        "http://healthy.localhost/a.html",
        "http://slow.localhost/",
    )


@pytest.mark.parametrize(
    "link", ["mailto:a@b.example", "javascript:alert(1)", "http://[half"]
)
def test_a_link_that_leads_nowhere_on_the_web_is_none(link: str) -> None:
    assert absolute(URL, link) is None


@pytest.mark.parametrize("html", ["<![unknown[x]]>tail", "<a href=", "<", "</p"])
def test_broken_markup_is_read_as_far_as_it_makes_sense(html: str) -> None:
    page, _ = read_page(URL, f"<title>t</title>before{html}")
    assert page.text.startswith("before")


@given(html=st.text())
def test_reading_never_raises_and_every_link_is_an_address(html: str) -> None:
    _, links = read_page(URL, f'<a href="{html}">{html}</a>{html}')
    assert all(urlsplit(link).scheme in {"http", "https"} for link in links)
