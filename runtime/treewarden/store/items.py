"""The items of a durable collection as bytes: JSON of one declared type, of bounded size."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from treewarden.errors import RestoreError, StateNotEncodable

T = TypeVar("T")

ITEM_BYTES: Final = 1 << 20
"""An item may not be larger, its key included: it is a message, not a file."""


def as_key(key: str) -> str:
    """A key as it is stored: of an enumeration's member, its text.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is text, not {key!r}")
    return str.__str__(key)


class Items(Generic[T]):
    """Encodes what goes into the collection `place`, and decodes what comes out of it.

    `remedy` says how to go on when an item is damaged.
    """

    def __init__(self, item_type: type[T], place: str, remedy: str) -> None:
        self._decoder = msgspec.json.Decoder(item_type)
        self._place = place
        self._remedy = remedy

    def encode(self, value: T, key: str = "") -> bytes:
        """The value as JSON.

        Raises:
            StateNotEncodable: it cannot be stored and read back as the item type, or is
                too large, or the key is no text.
        """
        try:
            payload = msgspec.json.encode(value)
            # What cannot be read back must not be acknowledged.
            self._decoder.decode(payload)
            size = len(key.encode()) + len(payload)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            kind = type(value).__name__
            raise StateNotEncodable(
                f"a {kind} cannot be an item of {self._place}: {error}"
            ) from error
        if size > ITEM_BYTES:
            raise StateNotEncodable(
                f"an item of {self._place} may have {ITEM_BYTES} bytes, not {size}"
            )
        return payload

    def decode(self, payload: bytes, key: str, *, sound: bool) -> T:
        """The value of an item; `sound`: its checksum was right.

        Raises:
            RestoreError: it is damaged, or of another type than the collection's.
        """
        name = f"item {key!r} of {self._place}"
        if not sound:
            raise RestoreError(
                f"{name} is damaged (its checksum does not match); {self._remedy}"
            )
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise RestoreError(
                f"{name} is not of the declared type any more: {error}"
            ) from error
