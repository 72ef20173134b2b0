"""Running many things, bounded and supervised: pools, streams over them, batches of calls.

`pool` is the node in the tree and `ref` its address, `policy` what it is as data, `pools`
the runtime's by name, `work` one piece of work, `handle` what its starter holds, `stream` one function over many items, `batch` many calls to
many agents, `outcome` how each of them went; `serial` runs operations in order that
nothing takes back. There is no way to run work without a running
pool: then it is `NotRunning`, and nothing was run.
"""

from .batch import Batch, BatchCall, BatchCounts, BatchOutcome, NotMade
from .handle import Handle, results, wait_done
from .outcome import Done, Failed, Outcome
from .policy import PoolKind, PoolPolicy, PoolStatistics
from .pool import PoolBody
from .pools import Pools
from .ref import Pool
from .serial import SerialOperation, SerialOutcome, execute_serially
from .stream import Stream
from .work import WorkState, WorkStatistics, callers

__all__ = [
    "Batch",
    "BatchCall",
    "BatchCounts",
    "BatchOutcome",
    "Done",
    "Failed",
    "Handle",
    "NotMade",
    "Outcome",
    "Pool",
    "PoolBody",
    "PoolKind",
    "PoolPolicy",
    "PoolStatistics",
    "Pools",
    "SerialOperation",
    "SerialOutcome",
    "Stream",
    "WorkState",
    "WorkStatistics",
    "callers",
    "execute_serially",
    "results",
    "wait_done",
]
