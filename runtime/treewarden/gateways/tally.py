"""What an HTTP client has done, in numbers."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from treewarden.errors import HttpFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .response import HttpResponse


class Tally:
    """Counts requests as their callers see them, and attempts as hosts do."""

    def __init__(self) -> None:
        self.active = self.requests = 0
        self.answered = self.failed = self.cancelled = self.refused = 0
        self.attempts = self.cut_off = self.received_bytes = 0
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.most_seconds = self._seconds = 0.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request, with everything that happens to it."""
        self.requests += 1
        self.active += 1
        try:
            yield
        except Exception:
            self.failed += 1
            raise
        except BaseException:
            self.cancelled += 1
            raise
        else:
            self.answered += 1
        finally:
            self.active -= 1

    def attempt(self, outcome: HttpResponse | HttpFailed | None, took: float) -> None:
        """One attempt of `took` seconds is over; None: it was cancelled, or late."""
        self.attempts += 1
        if outcome is None:
            self.cut_off += 1
        elif outcome.status is None:
            assert isinstance(outcome, HttpFailed)  # noqa: S101 - an answer has a status
            self.errors[outcome.kind] += 1
        else:
            self.statuses[outcome.status] += 1
            self._seconds += took
            self.most_seconds = max(self.most_seconds, took)
        if outcome is not None and not isinstance(outcome, HttpFailed):
            self.received_bytes += len(outcome.body)

    @property
    def mean_seconds(self) -> float:
        """Of the attempts that got an answer; 0.0 before the first."""
        answers = self.statuses.total()
        return self._seconds / answers if answers else 0.0
