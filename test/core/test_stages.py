"""Stages of a frame: what counts for which, and nothing where nobody measures."""

from __future__ import annotations

import time

import pytest

from d2a2_core.stages import StageClock, stage


def test_a_stage_counts_without_those_inside_it():
    with StageClock() as clock, stage("outer"):
        time.sleep(0.02)
        with stage("inner"):
            time.sleep(0.06)
    assert set(clock.seconds) == {"outer", "inner"}
    assert clock.seconds["inner"] >= 0.06
    assert 0.02 <= clock.seconds["outer"] < clock.seconds["inner"]


def test_stages_of_one_name_add_up_and_errors_end_them():
    with StageClock() as clock:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), stage("a"):
                1 / 0  # noqa: B018
        clock.add("a", 1.0)
    assert 1 <= clock.seconds["a"] < 1.5


def test_nothing_is_measured_outside_of_a_clock():
    clock = StageClock()
    with stage("before"):
        pass
    with clock:
        pass
    with stage("after"):
        pass
    assert not clock.seconds
