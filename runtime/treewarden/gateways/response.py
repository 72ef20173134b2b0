"""What a site answered, read to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, overload

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An answer: any status but 429 and the five hundreds, which are failures.

    `url` is where it came from, without secrets; redirections are not followed, `location`
    says where one leads. `headers` are looked up in any case of letters. `attempts` says
    how often it was asked for.
    """

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    encoding: str = "utf-8"
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether it is one of the two hundreds."""
        return 200 <= self.status < 300

    @property
    def location(self) -> str | None:
        """Where a redirection leads; as the site wrote it, so it may be relative."""
        return self.headers.get("Location")

    @property
    def text(self) -> str:
        """The body in the encoding that the site names; what is none becomes `�`.

        Where it names none for text that can always be read, it is taken for UTF-8.
        """
        try:
            return self.body.decode(self.encoding, errors="replace")
        except (LookupError, UnicodeError):
            return self.body.decode(errors="replace")

    @overload
    def json(self) -> object: ...

    @overload
    def json(self, type: type[T]) -> T: ...

    def json(self, type: type[object] = object) -> object:  # noqa: A002 - msgspec's word for it
        """The body as JSON, of a type if one is given.

        Raises:
            msgspec.DecodeError: it is no JSON, or of another type.
        """
        return msgspec.json.decode(self.body, type=type)
