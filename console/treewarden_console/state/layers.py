"""Reading the layers of a policy: what they count travels by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treewarden.control.protocol import LayerRow, PolicyRow


def find_layer(policy: PolicyRow, name: str) -> LayerRow | None:
    """The layer of this name, or None: the policy does without."""
    return next((one for one in policy.layers if one.layer == name), None)


def layer_number(row: LayerRow | None, name: str) -> float | None:
    """A number of a layer; None when there is none of this name."""
    value = row.numbers.get(name) if row is not None else None
    return None if isinstance(value, str) else value


def layer_word(row: LayerRow | None, name: str) -> str | None:
    """A word of a layer; None when there is none of this name."""
    value = row.numbers.get(name) if row is not None else None
    return value if isinstance(value, str) else None
