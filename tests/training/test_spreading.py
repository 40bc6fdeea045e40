"""Work over several processes, one of which may be killed."""

from __future__ import annotations

import os
import signal

import pytest

from trainer.spreading import WorkerDied, spread


def doubled(number: int) -> int:
    return 2 * number


def refusing(number: int) -> int:
    if number == 2:
        raise ValueError(f"{number} is no picture")
    return number


def dying(number: int) -> int:
    """As a process dies for which the kernel has no memory left."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order() -> None:
    assert list(spread(doubled, range(5), 2, chunk=2)) == [0, 2, 4, 6, 8]


def test_what_the_work_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="2 is no picture"):
        list(spread(refusing, range(4), 1))


@pytest.mark.timeout(60)
def test_a_process_that_is_killed_ends_the_run_with_a_word() -> None:
    """A night's extraction must not stand still until morning because memory ran out once."""
    with pytest.raises(WorkerDied, match=r"died after [0-2] of 4 .*fewer processes than 1"):
        list(spread(dying, range(4), 1))
