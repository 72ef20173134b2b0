"""Gateways that let out what they should not, or leave something behind."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import trio
from httpcore._async.http11 import AsyncHTTP11Connection

from treewarden.gateways import (
    client,
    http_span,
    programs,
    running,
    transport,
)
from treewarden.gateways.door import Door
from treewarden.gateways.http import Http
from treewarden.gateways.programs import Programs
from treewarden.gateways.running import Running
from treewarden.gateways.unpack import Body
from treewarden.resilience import Bulkhead, Timeout
from treewarden.supervision import endings

from .double import Area

if TYPE_CHECKING:
    from collections.abc import Iterator

    from treewarden.gateways import HttpClient

    from .double import Replace

DOUBLES: Final = Area("tests/system")

# --- http ----------------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_gateways_http.py::test_f49_two_clients_are_independent_and_a_name_taken_twice_is_told"
)
def one_client_for_all(replace: Replace) -> None:
    """F49: whatever the name, it is the first one's connections."""
    make = Http.client

    def first(self: Http, name: str, *args: Any, **options: Any) -> HttpClient:
        return next(iter(self._by_name.values()), None) or make(
            self, name, *args, **options
        )

    replace(Http, "client", first)


@DOUBLES.breaks(
    caught_by="test_gateways_http.py::test_f49_two_clients_are_independent_and_a_name_taken_twice_is_told"
)
def whoever_came_first_was_right(replace: Replace) -> None:
    """F49: another policy for a name that is taken is dropped without a word."""
    make = Http.client

    def known(self: Http, name: str, *args: Any, **options: Any) -> HttpClient:
        return self._by_name.get(name) or make(self, name, *args, **options)

    replace(Http, "client", known)


@DOUBLES.swaps(
    client,
    "Bulkhead",
    caught_by="test_gateways_http.py::test_f61_requests_beyond_the_slots_wait_or_are_refused_and_nobody_else_waits",
)
def a_line_without_end(limit: int, _: int, **options: Any) -> Bulkhead:
    """F61: nobody is refused, however many wait."""
    return Bulkhead(limit, 1_000_000, **options)


@DOUBLES.breaks(
    caught_by="test_gateways_http.py::test_f61_requests_beyond_the_slots_wait_or_are_refused_and_nobody_else_waits"
)
def nobody_is_called_back(replace: Replace) -> None:
    """F61: when the client's child is gone, who waits for it goes on waiting."""

    async def at_once(_: Door) -> None:
        await trio.lowlevel.checkpoint()

    def close(self: Door) -> None:
        self._opened = trio.Event()

    replace(Door, "close", close)
    replace(Door, "wait_home", at_once)


@DOUBLES.swaps(
    client,
    "Timeout",
    caught_by="test_gateways_http.py::test_f62_a_request_ends_at_its_deadline_and_its_socket_is_closed",
)
def all_the_time_in_the_world(_: float, **options: Any) -> Timeout:
    """F62: what the policy says of time is not kept."""
    return Timeout(1e9, **options)


@DOUBLES.swaps(
    AsyncHTTP11Connection,
    "aclose",
    caught_by="test_gateways_http.py::test_f62_a_request_ends_at_its_deadline_and_its_socket_is_closed",
)
async def a_socket_that_is_left_open(self: object) -> None:
    """F62: a request that is given up stays with the other side."""
    await trio.lowlevel.checkpoint()


@DOUBLES.swaps(
    (transport, http_span),
    "without_secrets",
    caught_by="test_gateways_http.py::test_secrets_are_in_no_error",
)
def addresses_as_they_are(url: str) -> str:
    """Design 11: errors and spans show passwords and tokens."""
    return url


@DOUBLES.swaps(
    transport,
    "_distrust",
    caught_by=(
        "test_gateways_tls.py::test_a_certificate_that_is_not_to_be_trusted_is_refused"
        "_and_not_tried_again",
    ),
)
def a_certificate_that_may_be_better_tomorrow(error: BaseException) -> None:
    """A host that is not to be trusted is asked three times, and its circuit opens."""


@DOUBLES.swaps(
    client,
    "sender_settled",
    caught_by=(
        "test_gateways_http.py::test_a_handlers_request_leaves_when_what_led_to_it_is_committed",
        "test_gateways_http.py::test_a_handlers_request_is_never_sent_for_what_is_lost",
    ),
)
async def asked_sooner_than_its_commit() -> None:
    """Design 6: a request tells of what is then lost."""


# --- programs ------------------------------------------------------------------------------


@DOUBLES.swaps(
    programs,
    "sender_settled",
    caught_by="test_gateways_programs.py::test_a_handlers_program_starts_when_what_led_to_it_is_committed",
)
async def run_sooner_than_its_commit() -> None:
    """Design 6: a program is run for what is then lost."""


@DOUBLES.swaps(
    programs,
    "Bulkhead",
    caught_by="test_gateways_programs.py::test_f63_a_late_program_is_ended_and_nobody_else_waits_for_it",
)
def any_number_of_programs(_: int, queue: int, **options: Any) -> Bulkhead:
    """F63: the sixth of five programs is run, too."""
    return Bulkhead(1_000, queue, **options)


@DOUBLES.swaps(
    Programs,
    "_check_allowed",
    caught_by="test_gateways_programs.py::test_only_what_is_allowed_is_run",
)
def everything_is_allowed(*_: object) -> None:
    """F63: the list of allowed programs is not looked at."""


@DOUBLES.breaks(
    caught_by="test_gateways_programs.py::test_f63_a_thousand_runs_leave_no_zombie_and_no_open_file"
)
def pipes_that_stay_open(replace: Replace) -> None:
    """F63: each run costs a file or two, for ever."""
    replace(Running, "_close", lambda self: None)


@DOUBLES.swaps(
    running,
    "_signal_group",
    caught_by="test_gateways_programs.py::test_h08_who_does_not_end_at_its_deadline_is_made_to_with_all_it_started",
)
def the_one_and_not_its_group(pid: int, number: signal.Signals) -> None:
    """H08: what a program has started outlives it."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@DOUBLES.breaks(
    caught_by="test_gateways_programs.py::test_h08_who_does_not_end_at_its_deadline_is_made_to_with_all_it_started"
)
def asked_and_never_made_to(replace: Replace) -> None:
    """H08: who ignores SIGTERM survives its deadline."""
    signal_group = running._signal_group

    def ask(group: int, _: signal.Signals) -> None:
        signal_group(group, signal.SIGTERM)

    replace(running, "_signal_group", ask)


# --- who means harm ----------------------------------------------------------------------------


@DOUBLES.breaks(
    caught_by="test_gateways_hostile.py::test_a_client_that_is_closed_while_it_is_asked_leaves_no_child_behind"
)
def a_closed_client_is_started_again(replace: Replace) -> None:
    """Who asks while a client closes starts a child that nobody ends."""

    @contextmanager
    def later(self: HttpClient) -> Iterator[None]:
        yield
        self._retired = True

    replace(client.HttpClient, "retiring", later)


@DOUBLES.breaks(
    caught_by="test_gateways_hostile.py::test_a_link_that_leads_nowhere_is_refused_whoever_wrote_it"
)
def any_name_for_a_host(replace: Replace) -> None:
    """A link on somebody's page raises what nobody expects, and counts against him."""
    replace(transport, "_check_name", lambda _: None)


@DOUBLES.breaks(
    caught_by="test_gateways_hostile.py::test_a_packed_answer_is_unpacked_and_a_damaged_one_leaves_nothing_open"
)
def streams_left_to_the_collector(replace: Replace) -> None:
    """What is wrong with a body is raised in the middle of it."""
    add = Body.add

    def raising(self: Body, chunk: bytes) -> bool:
        wanted = add(self, chunk)
        if self.wrong:
            raise ValueError(self.wrong)
        return wanted

    replace(Body, "add", raising)


@DOUBLES.breaks(
    caught_by="test_gateways_hostile.py::test_a_failure_is_told_even_if_whoever_started_us_ignores_sigchld"
)
def whatever_ended_went_well(replace: Replace) -> None:
    """Who inherited to ignore SIGCHLD takes each failure for a success."""
    replace(endings, "_is_deaf", lambda: False)


@DOUBLES.swaps(
    Running,
    "_hang_up",
    caught_by="test_gateways_hostile.py::test_a_program_may_end_in_any_way_and_is_told_of_as_it_ended",
)
def a_pipe_that_is_closed_is_the_end(self: Running, pipe: Any) -> None:
    """Who closes its output is taken to have ended."""
    self._selector.unregister(pipe.fileno())
    self._over = True


@DOUBLES.breaks(
    caught_by="test_gateways_hostile.py::test_a_client_starts_though_all_of_trios_threads_are_taken"
)
def a_thread_of_everybodys(replace: Replace) -> None:
    """Forty lookups of names that hang, and no other client starts."""
    init = client.HttpClient.__init__

    def shared(self: HttpClient, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self._opening = trio.to_thread.current_default_thread_limiter()

    replace(client.HttpClient, "__init__", shared)
