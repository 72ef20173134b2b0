from __future__ import annotations

import pytest

from treewarden import HttpResponse
from treewarden.demo.web import AGENT, robots, robots_url

URL = "http://example.org/private/page?q=1"


def answer(status: int, body: str) -> HttpResponse:
    return HttpResponse(url=URL, status=status, headers={}, body=body.encode())


@pytest.mark.parametrize(
    ("status", "body", "allowed"),
    [
        (200, "User-agent: *\nDisallow: /private", False),
        (200, "User-agent: *\nDisallow:", True),
        (200, f"User-agent: {AGENT}\nDisallow: /\n\nUser-agent: *\nDisallow:", False),
        (200, "\x00 this is no robots.txt", True),
        (404, "Disallow: /", True),
        (401, "", False),
        (403, "", False),
    ],
)
def test_the_rules_of_a_site_are_obeyed(status: int, body: str, allowed: bool) -> None:
    rules = robots(answer(status, body))
    assert rules.can_fetch(AGENT, URL) is allowed


def test_the_wait_that_a_site_asks_for_is_known() -> None:
    body = "User-agent: *\nCrawl-delay: 7"
    rules = robots(answer(200, body))
    assert float(rules.crawl_delay(AGENT) or 0) == 7


def test_robots_txt_is_at_the_root_of_the_site() -> None:
    assert robots_url(URL) == "http://example.org/robots.txt"
