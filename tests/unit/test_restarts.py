"""When a process that ended begins again."""

from __future__ import annotations

from vqmon.daemon.processes import Restarts


def test_a_process_that_fails_in_a_row_waits_longer_each_time() -> None:
    restarts = Restarts((0.0, 5.0, 30.0), healthy=60.0)

    waits = []
    for clock in (100.0, 200.0, 300.0, 400.0):
        restarts.started(clock)
        waits.append(restarts.ended(clock + 1))

    assert waits == [0.0, 5.0, 30.0, 30.0]
    assert restarts.failures == 4
    assert not restarts.due(430.0)
    assert restarts.due(431.0)


def test_good_work_makes_up_for_earlier_failures() -> None:
    """Time alone does not: one that never answered has done none."""
    restarts = Restarts((0.0, 5.0, 30.0), healthy=60.0)
    for clock in (0.0, 10.0):
        restarts.started(clock)
        restarts.ended(clock)

    restarts.started(100.0)
    assert restarts.ended(200.0, worked=False) == 30.0
    restarts.started(300.0)
    assert restarts.ended(400.0) == 0.0


def test_one_that_could_not_be_started_waits_longest() -> None:
    """Until other settings are a reason to try at once."""
    restarts = Restarts((0.0, 5.0, 30.0), healthy=60.0)

    restarts.refused(100.0)

    assert not restarts.due(129.0)
    restarts.forget()
    assert restarts.due(100.0)
