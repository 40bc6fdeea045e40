"""One piece of work for each of many things, spread over processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")

LEAN = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "8000000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
}
"""Environment of the measuring processes: one thread each, and memory that is kept, which is
five times faster than threads that fight and pages that are faulted in for every picture.
"""


class WorkerDied(RuntimeError):
    """A process ended in the middle of its work; the text says how far it had come."""


def spread(
    work: Callable[[Thing], Result], things: Sequence[Thing], processes: int, *, chunk: int = 1
) -> Iterator[Result]:
    """The results in order. chunk: things that a process takes at once.

    What `work` raises is raised here. Raises WorkerDied when a process ends under it, where
    multiprocessing's own Pool would wait for ever.
    """
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = 0
        try:
            for result in pool.map(work, things, chunksize=chunk):
                yield result
                done += 1
        except BrokenProcessPool as error:
            raise WorkerDied(
                f"a process died after {done} of {len(things)} were done; if the kernel ended it "
                f"for want of memory (`dmesg`), take fewer processes than {processes}"
            ) from error
