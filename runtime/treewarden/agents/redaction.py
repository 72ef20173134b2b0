"""What people may see of an agent: its state and its messages, redacted by its class.

A redactor that fails hides everything: what it would have removed is never shown.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

from treewarden.exits import writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from treewarden.exits import Fault

    from .codec import StateCodec
    from .envelope import Envelope

HOOKS: Final = ("redact", "redact_message", "redact_error")
_LONGEST: Final = 4096
_encode = msgspec.json.Encoder().encode
_NO_ARGUMENTS: Final = b'{"args":[],"kwargs":{}}'


class Redaction:
    """Worked out once for each class; None where a hook was not overridden."""

    __slots__ = ("_error", "_message", "_state")

    def __init__(self, cls: type[Any], root: type[Any]) -> None:
        """Raises TypeError when a hook is not a classmethod: it runs without an agent."""
        self._state = _overridden(cls, root, "redact")
        self._message = _overridden(cls, root, "redact_message")
        self._error = _overridden(cls, root, "redact_error")

    def state(self, payload: bytes, codec: StateCodec | None, path: str) -> bytes:
        """State as JSON; empty when there is none."""
        redact = self._state
        if redact is None or codec is None or not payload:
            return payload
        try:
            return _encode(redact(codec.decode(payload, path)))
        except Exception as error:  # noqa: BLE001 - somebody else's hook
            return _hidden("redact", error)

    def message(self, envelope: Envelope) -> bytes:
        """Arguments as JSON, of bounded length."""
        if self._message is None and not (envelope.args or envelope.kwargs):
            return _NO_ARGUMENTS
        shown: object = {"args": envelope.args, "kwargs": envelope.kwargs}
        if self._message is not None:
            try:
                shown = self._message(
                    envelope.operation.name, envelope.operation.named(envelope)
                )
            except Exception as error:  # noqa: BLE001 - somebody else's hook
                return _hidden("redact_message", error)
        try:
            text = _encode(shown)
        except Exception:  # noqa: BLE001 - looking at an argument may run anything
            return b'"not encodable"'
        return (
            text if len(text) <= _LONGEST else _encode(f"{len(text)} bytes, not kept")
        )

    def fault(self, fault: Fault) -> Fault:
        """A fault, its causes included, without what its texts are not to show."""
        if self._error is None:
            return fault
        cause = self.fault(fault.cause) if fault.cause is not None else None
        return msgspec.structs.replace(
            fault, message=self._text(fault.message), cause=cause
        )

    def _text(self, text: str) -> str:
        assert self._error is not None  # noqa: S101 - asked by whoever calls
        try:
            return writable(str(self._error(text)))
        except Exception as error:  # noqa: BLE001 - somebody else's hook
            return _not_shown("redact_error", error)


def _overridden(
    cls: type[Any], root: type[Any], name: str
) -> Callable[..., object] | None:
    hook = inspect.getattr_static(cls, name)
    if hook is inspect.getattr_static(root, name):
        return None
    if not isinstance(hook, classmethod):
        raise TypeError(f"{cls.__qualname__}.{name} must be a classmethod")
    found: Callable[..., object] = getattr(cls, name)
    return found


def _hidden(hook: str, error: Exception) -> bytes:
    return _encode(_not_shown(hook, error))


def _not_shown(hook: str, error: Exception) -> str:
    # The error's text may hold what was to be hidden.
    return f"not shown: {hook}() failed with {type(error).__name__}"
