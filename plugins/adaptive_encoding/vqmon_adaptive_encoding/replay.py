"""What the plugin would have asked for on stored segments: a dry run. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vqmon.domain import Comparison, Decision, Segment
from vqmon_adaptive_encoding.case import Case, Evidence
from vqmon_adaptive_encoding.deciding import next_decision
from vqmon_adaptive_encoding.memory import Memory, remember
from vqmon_adaptive_encoding.watching import Watched, end


def replayed(case: Case, segments: Iterable[Segment]) -> list[Decision]:
    """`observe` and `wait` decisions, oldest first; segments oldest first, of one stream.

    Nobody can know how the encoder would have answered, so the stream stays on its rung and
    nothing is judged. Cooldown and budget count as if each request had been made.
    """
    case = replace(case, mode="observe")
    decided: list[Decision] = []
    memory, watched = Memory(), Watched()
    for segment in segments:
        watched = watched.seen(segment, case.rules)
        decision = next_decision(case, memory, watched, end(segment), _NOTHING)
        if decision is not None:
            decided.append(decision)
            memory = remember(decided)
    return decided


def _never(_a: Segment, _b: Segment) -> Comparison:
    raise LookupError("a dry run changes nothing, so there is nothing to compare")


_NOTHING = Evidence(lambda _id: None, _never)
