"""What is recorded, compared with what is asked for: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewarden.store import StepState, StoredStep
from treewarden.workflows.step import Course, Mismatch, Step

NAMES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "undo"])))


def done(number: int, name: str, compensation: str = "") -> StoredStep:
    return StoredStep(
        workflow="w",
        number=number,
        name=name,
        state=StepState.DONE,
        attempts=1,
        compensation=compensation,
        undo_failures=0,
        at_ns=5,
        outcome=b"1",
    )


@given(recorded=NAMES, asked=NAMES)
def test_a_step_is_its_record_or_new_and_never_anothers(
    recorded: list[tuple[str, str]], asked: list[tuple[str, str]]
) -> None:
    rows = [done(number, *one) for number, one in enumerate(recorded, 1)]
    course = Course("w", rows)
    for number, one in enumerate(asked):
        if number < len(recorded) and recorded[number] != one:
            with pytest.raises(Mismatch):
                course.take(*one)
            return
        step = course.take(*one)
        assert (step.number, step.name, step.compensation) == (number + 1, *one)
        assert (step in rows) is (number < len(recorded))
    if len(asked) < len(recorded):
        with pytest.raises(Mismatch):
            course.check_end()
    else:
        course.check_end()


def test_what_is_owed_are_steps_that_are_done_and_have_a_compensation() -> None:
    steps = [done(number, "a", "undo") for number in range(1, 5)]
    steps[1] = replace(steps[1], state=StepState.COMPENSATED)
    steps[2] = replace(steps[2], compensation="")
    steps[3] = replace(steps[3], state=StepState.FAILED)
    assert Course("w", steps).owed == {1}


def test_each_step_and_each_compensation_has_a_key_of_its_own() -> None:
    keys = {
        Step(workflow=id_, number=number, name="a", attempt=1, is_compensation=undo).key
        for id_ in ("v", "w")
        for number in (1, 2)
        for undo in (False, True)
    }
    assert len(keys) == 8
