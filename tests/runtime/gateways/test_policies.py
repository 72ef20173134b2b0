"""What a policy of a gateway may say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from treewarden import CircuitPolicy, HttpPolicy, ProgramPolicy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"connections": 0}, "connections must be >= 1, not 0"),
        ({"connections": 2.0}, "connections must be an int, not 2.0"),
        ({"attempts": True}, "attempts must be an int, not True"),
        ({"queue": -1}, "queue must be >= 0, not -1"),
        ({"timeout": 0}, "timeout must be > 0 seconds and finite, not 0"),
        ({"attempt_timeout": math.inf}, "attempt_timeout must be > 0 seconds"),
        ({"connect_timeout": math.nan}, "connect_timeout must be > 0 seconds"),
        ({"max_wait": -1.0}, "max_wait must be >= 0 seconds, not -1.0"),
        ({"limit_bytes": 0}, "limit_bytes must be >= 1, not 0"),
        ({"max_hosts": 0}, "max_hosts must be >= 1, not 0"),
    ],
)
def test_an_http_policy_that_makes_no_sense_is_refused(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HttpPolicy(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit must be >= 1, not 0"),
        ({"queue": -1}, "queue must be >= 0, not -1"),
        ({"grace": math.inf}, "grace must be > 0 seconds and finite, not inf"),
        ({"cache_ttl": 0.0}, "cache_ttl must be > 0 seconds"),
        ({"cache_size": 0}, "cache_size must be >= 1, not 0"),
        ({"max_wait": math.nan}, "max_wait must be >= 0 seconds, not nan"),
        ({"allowed": "ls"}, "allowed must be a set of programs, not 'ls'"),
    ],
)
def test_a_program_policy_that_makes_no_sense_is_refused(
    wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ProgramPolicy(**wrong)


def test_policies_that_say_the_same_are_equal() -> None:
    """So that who asks for a client twice is told the same one."""
    circuit = CircuitPolicy(failure_threshold=2)
    assert HttpPolicy(circuit=circuit) == HttpPolicy(
        circuit=CircuitPolicy(failure_threshold=2)
    )
    assert HttpPolicy() != HttpPolicy(circuit=None)


def test_the_defaults_are_those_of_the_specification() -> None:
    """S23, S30: five programs; two seconds between asking and killing; 60 s a request."""
    programs, http = ProgramPolicy(), HttpPolicy()
    assert (programs.limit, programs.grace) == (5, 2.0)
    assert (programs.cache_ttl, programs.cache_size) == (30.0, 256)
    assert (http.timeout, http.connect_timeout) == (60.0, 5.0)
