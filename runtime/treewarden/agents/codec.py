"""State as bytes: what an agent knows, encoded so that it can always be read again.

msgspec does not check types when it encodes and writes NaN as null. A state that was
acknowledged but that no incarnation can load would be lost for ever, so what is encoded
is decoded once before it counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.errors import RestoreError, StateNotEncodable

if TYPE_CHECKING:
    from .agent import Agent

MAX_STATE_BYTES: Final = 1 << 20
"""A larger state belongs into a durable collection: one row a state is rewritten whole."""


class StateCodec:
    """Encodes, checks and decodes one state type."""

    __slots__ = ("_decode", "_first", "type", "write")

    def __init__(self, state_type: Any) -> None:  # noqa: ANN401 - any msgspec type
        self.type = state_type
        self._first = b""
        # What `encode` does, without a word for what is wrong.
        self.write = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(state_type).decode

    def encode(self, state: object, path: str) -> bytes:
        """The state as JSON.

        Raises:
            StateNotEncodable: msgspec cannot write it.
        """
        try:
            return self.write(state)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateNotEncodable(
                f"the state of {path} cannot be encoded: {error}"
            ) from error

    def encode_first(self, state: object, path: str) -> bytes:
        """A state to begin with, checked; one copy for all that begin alike.

        Raises:
            StateNotEncodable: as `encode` and `check` do.
        """
        payload = self.encode(state, path)
        if payload != self._first:
            self.check(payload, path)
            self._first = payload
        return self._first

    def check(self, payload: bytes, path: str) -> None:
        """Refuse bytes that no incarnation could load.

        Raises:
            StateNotEncodable: they do not decode, or are too large.
        """
        if len(payload) > MAX_STATE_BYTES:
            raise StateNotEncodable(
                f"the state of {path} is {len(payload)} bytes, more than "
                f"{MAX_STATE_BYTES}; keep what grows in a DurableMap"
            )
        try:
            self._decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise StateNotEncodable(
                f"the state of {path} does not fit its own type: {error}"
            ) from error

    def decode(self, payload: bytes, path: str) -> Any:  # noqa: ANN401 - the state
        """The state that `payload` holds.

        Raises:
            RestoreError: it does not fit the type.
        """
        try:
            return self._decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RestoreError(
                f"the stored state of {path} cannot be read: {error}; where its type"
                " has changed, raise state_version and give it a migrate"
            ) from error

    def migrate(
        self, cls: type[Agent[Any]], payload: bytes, version: int, path: str
    ) -> bytes:
        """`payload`, written as `version`, brought to the class's `state_version`.

        Raises:
            RestoreError: it is newer than the class, or `migrate` failed.
        """
        if version == cls.state_version:
            return payload
        if version > cls.state_version:
            raise RestoreError(
                f"the stored state of {path} has version {version}, newer than "
                f"{cls.__qualname__}.state_version = {cls.state_version}"
            )
        try:
            data = cls.migrate(msgspec.json.decode(payload), version)
            return self.write(msgspec.convert(data, self.type))
        except Exception as error:
            raise RestoreError(
                f"the stored state of {path} could not be migrated from version "
                f"{version} to {cls.state_version}: {error}"
            ) from error


def refuse_any(state_type: object, where: str) -> None:
    """Refuse a state type that holds `Any`, or what msgspec cannot store.

    What goes in as a tuple or a struct comes out of `Any` as a list or a dict.

    Raises:
        TypeError: naming where it stands.
    """
    import msgspec.inspect as inspection

    seen: set[int] = set()

    def walk(node: object, trail: str) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, inspection.AnyType):
            raise TypeError(
                f"{where}: {trail} is Any, which does not come back as it was stored; "
                "say what it holds"
            )
        if isinstance(node, inspection.CustomType):
            raise TypeError(
                f"{where}: {trail} is {node.cls.__qualname__}, which cannot be stored"
            )
        if isinstance(node, inspection.Field):
            walk(node.type, f"{trail}.{node.name}")
            return
        if isinstance(node, inspection.Type):
            for name in node.__struct_fields__:
                value = getattr(node, name)
                for part in value if isinstance(value, tuple) else (value,):
                    if isinstance(part, (inspection.Type, inspection.Field)):
                        walk(part, trail)

    walk(inspection.type_info(state_type), getattr(state_type, "__name__", "state"))
