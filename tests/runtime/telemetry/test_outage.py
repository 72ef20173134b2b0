from __future__ import annotations

import pytest

from treewarden.telemetry.outage import Outage, sentence

REFUSED = (
    "Transient error HTTPConnectionPool(host='127.0.0.1', port=4318): Max retries exceeded"
    " with url: /v1/traces (Caused by NewConnectionError('[Errno 111] Connection refused'))"
    " encountered while exporting spans batch, retrying in 1.04s."
)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "treewarden.telemetry")
    return caplog


def test_an_outage_of_three_signals_is_told_once_and_so_is_its_end(
    said: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("http://127.0.0.1:4318")
    for signal in ("spans", "logs", "spans"):
        outage.begin(signal, REFUSED)
    outage.end("logs")
    assert [one.levelname for one in said.records] == ["WARNING"]
    outage.end("spans")
    outage.end("metrics")
    assert [one.getMessage() for one in said.records][1:] == [
        "the collector at http://127.0.0.1:4318 takes telemetry again"
    ]
    outage.begin("metrics", REFUSED)
    assert len(said.records) == 3


def test_the_sentence_says_what_is_wrong_and_what_to_do_not_the_sdks_words() -> None:
    told = sentence("http://127.0.0.1:4318", "spans", REFUSED)
    assert told == (
        "the collector at http://127.0.0.1:4318 does not take spans: nobody listens there;"
        " start the collector, or correct its address. Nothing waits for it: telemetry"
        " that finds no room is dropped and counted"
    )


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        (REFUSED, "nobody listens there"),
        ("Read timed out. (read timeout=10)", "it does not answer in time"),
        ("[Errno -2] Name or service not known", "its host is not known"),
        ("certificate verify failed: self-signed", "its certificate is not accepted"),
        ("Failed to export spans batch code: 401, reason: x", "it refuses who we are"),
        ("Failed to export logs batch code: 404, reason: x", "not at this path"),
        ("Failed to export spans batch code: 503, reason: x", "it is overloaded"),
        ("Transient error Service Unavailable encountered", "it is overloaded"),
        (
            "the moon\nis in the way" + "y" * 999,
            "it failed with the moon is in the wayy",
        ),
    ],
)
def test_every_usual_reason_has_words_and_a_remedy(reason: str, what: str) -> None:
    told = sentence("http://c:4318", "logs", reason)
    assert what in told
    assert "\n" not in told
    assert len(told) < 500
