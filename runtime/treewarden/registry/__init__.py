"""Names to refs, with values and searchable attributes; entries vanish with their owner.

`registry` keeps the entries and watches their owners; `keys` says which keys are equal,
`attributes`, `criteria`, `pattern` and `query` what can be searched, `index` how it is
found without looking at everything, `batch` what happens together or not at all.
"""

from treewarden.errors import KeyTaken, RegistryFull

from .batch import Register, Unregister, Update
from .criteria import Op, Where
from .entry import (
    Entry,
    Keys,
    Owner,
    OwnerScope,
    Registered,
    Unregistered,
    Updated,
)
from .pattern import ANY, Var
from .query import Query, Selection
from .registry import (
    BATCH_LIMIT,
    CAPACITY,
    IndexStatistics,
    Registry,
    RegistryStatistics,
)

__all__ = [
    "ANY",
    "BATCH_LIMIT",
    "CAPACITY",
    "Entry",
    "IndexStatistics",
    "KeyTaken",
    "Keys",
    "Op",
    "Owner",
    "OwnerScope",
    "Query",
    "Register",
    "Registered",
    "Registry",
    "RegistryFull",
    "RegistryStatistics",
    "Selection",
    "Unregister",
    "Unregistered",
    "Update",
    "Updated",
    "Var",
    "Where",
]
