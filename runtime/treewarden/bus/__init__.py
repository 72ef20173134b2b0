"""Publish and subscribe: topics, bounded subscriptions, and losses that are counted.

`Bus.publish` journals an event before anybody sees it; `Bus.signal` is memory only. A
subscription is bounded and says what happens when it is full. `topic` matches patterns,
`buffer` decides who gets a place and what is lost (both without tasks), `subscription`
wakes the subscriber, `bus` puts them together on a `Journal`.
"""

from .buffer import Offered, Overflow, Reason
from .bus import DEFAULT_CAPACITY, Bus, BusStatistics
from .event import Event, to_json
from .journal import Decided, Journal
from .subscription import Sink, Subscription, SubscriptionStatistics
from .topic import Routes, check_pattern, check_topic, matches

__all__ = [
    "DEFAULT_CAPACITY",
    "Bus",
    "BusStatistics",
    "Decided",
    "Event",
    "Journal",
    "Offered",
    "Overflow",
    "Reason",
    "Routes",
    "Sink",
    "Subscription",
    "SubscriptionStatistics",
    "check_pattern",
    "check_topic",
    "matches",
    "to_json",
]
