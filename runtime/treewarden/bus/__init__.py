"""Publish and subscribe: topics, bounded subscriptions, and losses that are counted.

`Bus.publish` journals an event before anybody sees it; `Bus.signal` is memory only. A
subscription is bounded and says what happens when it is full; a durable one keeps a cursor
in the journal and gets each event at least once. `topic` matches patterns, `buffer` decides
who gets a place and what is lost, `deliveries` what a durable subscription delivers next
(all without tasks); `subscription` and `subscriber` wake whoever takes the events,
`durable` keeps the cursor, `records` writes it down, `pauses` holds publishers back when
the journal is full of what one has not taken, `replay` reads what was, `bus` puts them
together on a `Journal`.
"""

from treewarden.store import DurableRetention

from .buffer import Offered, Overflow, Reason
from .bus import DEFAULT_CAPACITY, Bus, BusStatistics
from .durable import DurableStatistics, DurableSubscription
from .event import Event, by_topic, to_json, unordered
from .journal import Decided, Journal, StoreJournal
from .pauses import Pause
from .policy import DurablePolicy, durable_id
from .replay import Replay
from .start import Start
from .subscriber import LeasedEvent, Subscriber
from .subscription import Sink, Subscription, SubscriptionStatistics
from .topic import Routes, check_pattern, check_topic, matches

__all__ = [
    "DEFAULT_CAPACITY",
    "Bus",
    "BusStatistics",
    "Decided",
    "DurablePolicy",
    "DurableRetention",
    "DurableStatistics",
    "DurableSubscription",
    "Event",
    "Journal",
    "LeasedEvent",
    "Offered",
    "Overflow",
    "Pause",
    "Reason",
    "Replay",
    "Routes",
    "Sink",
    "Start",
    "StoreJournal",
    "Subscriber",
    "Subscription",
    "SubscriptionStatistics",
    "by_topic",
    "check_pattern",
    "check_topic",
    "durable_id",
    "matches",
    "to_json",
    "unordered",
]
