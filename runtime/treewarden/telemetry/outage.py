"""What people are told of a collector that takes nothing: one sentence, once an outage.

The SDK's exporters say the same several times a second, for each signal, in the words of
the library under them. Three signals that go to one collector are one outage here: told
when the first of them fails, over when the last of them gets through.
"""

from __future__ import annotations

import logging
import re
from threading import Lock
from typing import Final

_log = logging.getLogger("treewarden.telemetry")

# What is found in the SDK's words; what it means; what to do. The first that fits.
_MEANINGS: Final = (
    (
        r"connection refused|actively refused",
        "nobody listens there",
        "start the collector, or correct its address",
    ),
    (
        r"timed? ?out",
        "it does not answer in time",
        "look whether the collector is overloaded, or set OTEL_EXPORTER_OTLP_TIMEOUT",
    ),
    (
        r"name or service not known|nodename|getaddrinfo|resolve|name resolution",
        "its host is not known",
        "correct its address",
    ),
    (
        r"certificate|ssl",
        "its certificate is not accepted",
        "set OTEL_EXPORTER_OTLP_CERTIFICATE, or correct its address",
    ),
    (
        r"code: 40[13]",
        "it refuses who we are",
        "set OTEL_EXPORTER_OTLP_HEADERS",
    ),
    (
        r"code: 40[45]",
        "it answers, but not at this path",
        "correct its address: port 4318 speaks OTLP/HTTP",
    ),
    (
        r"code: (429|50[234])|service unavailable|too many requests",
        "it is overloaded, or not ready",
        "look at the collector",
    ),
)
_REASON_LIMIT: Final = 200


class Outage:
    """One collector, which some signals do not reach. Any thread."""

    def __init__(self, collector: str) -> None:
        self._collector = collector
        self._failing: set[str] = set()
        self._lock = Lock()

    def begin(self, signal: str, reason: str) -> None:
        """`signal` does not get through, in the SDK's words because of `reason`."""
        with self._lock:
            told = bool(self._failing)
            self._failing.add(signal)
        if not told:
            _log.warning("%s", sentence(self._collector, signal, reason))

    def end(self, signal: str) -> None:
        """`signal` got through again."""
        with self._lock:
            was = signal in self._failing
            self._failing.discard(signal)
            over = was and not self._failing
        if over:
            _log.info("the collector at %s takes telemetry again", self._collector)


def sentence(collector: str, signal: str, reason: str) -> str:
    """What is wrong and what to do; what it means for the program."""
    what, remedy = _meaning(reason)
    return (
        f"the collector at {collector} does not take {signal}: {what}; {remedy}. "
        "Nothing waits for it: telemetry that finds no room is dropped and counted"
    )


def _meaning(reason: str) -> tuple[str, str]:
    for pattern, what, remedy in _MEANINGS:
        if re.search(pattern, reason, re.IGNORECASE):
            return what, remedy
    line = " ".join(reason.split())[:_REASON_LIMIT]
    return f"it failed with {line}", "look at the collector"
