from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.agents.envelope import Envelope
from treewarden.agents.mailbox import Admission, Mailbox, MailboxPolicy
from treewarden.agents.operation import Operation


def nothing(self: object) -> None: ...


def message() -> Envelope:
    return Envelope(Operation("nothing", nothing), (), {})


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "3", None])
def test_a_capacity_that_is_no_bound_is_refused(capacity: object) -> None:
    with pytest.raises(ValueError, match="capacity must be an int >= 1"):
        MailboxPolicy(capacity=capacity)  # type: ignore[arg-type]


def test_an_unknown_overflow_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="wait, reject, drop_oldest, drop_newest"):
        MailboxPolicy(overflow="drop")


def test_a_sender_in_line_moves_up_when_a_message_is_taken() -> None:
    mailbox = Mailbox(MailboxPolicy(capacity=1))
    first, second, third = message(), message(), message()
    mailbox.offer(first)
    assert mailbox.offer(second) == (Admission.WAITING, None)
    assert mailbox.offer(third) == (Admission.WAITING, None)
    assert mailbox.take() == (first, second)
    assert mailbox.take() == (second, third)


def test_a_late_comer_does_not_overtake_the_line() -> None:
    mailbox = Mailbox(MailboxPolicy(capacity=2))
    for _ in range(3):
        mailbox.offer(message())
    mailbox.items.popleft()  # room, but somebody stands in line for it
    assert not mailbox.has_room
    assert mailbox.offer(message())[0] is Admission.WAITING


@given(
    st.sampled_from(["wait", "reject", "drop_oldest", "drop_newest"]),
    st.integers(1, 3),
    st.lists(
        # More come than go, so that most stories see it full, with a line behind it.
        st.sampled_from([*["offer"] * 5, "take", "take", "withdraw", "put_back"]),
        min_size=20,
        max_size=60,
    ),
)
def test_a_mailbox_does_what_two_lists_would(
    overflow: str, capacity: int, steps: list[str]
) -> None:
    """MSG-32: wait, reject, and drop the oldest or the newest."""
    mailbox = Mailbox(MailboxPolicy(capacity=capacity, overflow=overflow))
    items: list[Envelope] = []
    line: list[Envelope] = []
    in_hand: Envelope | None = None
    for step in steps:
        if step == "offer":
            one = message()
            admission, victim = mailbox.offer(one)
            if len(items) < capacity and not line:
                items.append(one)
                assert (admission, victim) == (Admission.ACCEPTED, None)
            elif overflow == "wait":
                line.append(one)
                assert (admission, victim) == (Admission.WAITING, None)
            elif overflow == "reject":
                assert (admission, victim) == (Admission.REJECTED, None)
            elif overflow == "drop_newest":
                assert (admission, victim) == (Admission.DROPPED, one)
            else:
                assert (admission, victim) == (Admission.ACCEPTED, items.pop(0))
                items.append(one)
        elif step == "take" and items:
            expected = items.pop(0)
            moved = line.pop(0) if line and len(items) < capacity else None
            if moved is not None:
                items.append(moved)
            assert mailbox.take() == (expected, moved)
            in_hand = expected
        elif step == "withdraw" and line:
            one = line.pop(len(line) // 2)
            assert mailbox.withdraw(one)
            assert not mailbox.withdraw(one)
        elif step == "put_back" and in_hand is not None:
            items.insert(0, in_hand)
            mailbox.put_back(in_hand)
            in_hand = None
        assert list(mailbox.items) == items
        assert list(mailbox.waiting) == line
        assert mailbox.has_room == (len(items) < capacity and not line)
        assert mailbox.accepted - mailbox.taken - (
            mailbox.dropped if overflow == "drop_oldest" else 0
        ) == len(items)
