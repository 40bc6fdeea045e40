"""After a change: did it help? Ends every one in `keep` or `roll_back`. Pure.

Down is the safe direction: what cannot be judged in time goes back when it was a raise and
stays when it was a lowering.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from vqmon.domain import Comparison, Decision, Segment
from vqmon_adaptive_encoding.case import REMEMBERED, Case, Evidence, keeping, undoing
from vqmon_adaptive_encoding.memory import Change
from vqmon_adaptive_encoding.watching import (
    Watched,
    congested,
    kbps,
    typical,
    usual_kbps,
    worst,
)

FOLLOWED = 0.05
"""A bitrate that moved by less than this share the way that was asked did not follow."""


def judged(
    case: Case, change: Change, watched: Watched, now: datetime, evidence: Evidence
) -> Decision | None:
    """None while it is too early to tell."""
    if change.failed:
        return undoing(case, change, f"the encoder was not reached: {change.failed}", now)
    if change.asked_at is None:
        why = "vqmon ended while asking, so nobody knows whether the encoder heard"
        return undoing(case, change, why, now)
    settled = change.asked_at + timedelta(seconds=case.rules.settle)
    after = [s for s in watched.recent if s.started_at >= settled]
    harm = _harm(case, after) if change.kind == "raise" else None
    if harm is not None:
        return undoing(case, change, harm, now)
    before = _before(change, evidence)
    comparison = _compared(case, before, after, evidence)
    if comparison is not None:
        return _verdict(case, change, comparison, before, after, now=now)
    if now - change.asked_at >= timedelta(seconds=case.rules.verify_within):
        return _given_up(case, change, after, now)
    return None


def _harm(case: Case, after: Sequence[Segment]) -> str | None:
    """What more bitrate must not do, whatever it does for the picture."""
    for segment in after:
        rate = kbps(segment)
        if rate is not None and rate >= case.cap_kbps:
            return f"the cap was hit: {rate:.0f} of {case.cap_kbps} kb/s"
        if (jam := congested(segment)) is not None:
            return f"there is {jam} since"
    return None


def _before(change: Change, evidence: Evidence) -> list[Segment]:
    found = (evidence.segment(id_) for id_ in change.before)
    return [segment for segment in found if segment is not None and segment.scored]


def _compared(
    case: Case, before: Sequence[Segment], after: Sequence[Segment], evidence: Evidence
) -> Comparison | None:
    """`a` is before, `b` after; None while there is not enough to compare."""
    if not before or sum(s.scored for s in after) < case.rules.verify_segments:
        return None
    try:
        return evidence.compare(typical(before), typical(after))
    except Exception:  # whatever keeps the model from answering, time will end the matter
        return None


def _verdict(
    case: Case,
    change: Change,
    comparison: Comparison,
    before: Sequence[Segment],
    after: Sequence[Segment],
    *,
    now: datetime,
) -> Decision:
    faulty = sum(worst(s, case.rules) is not None for s in after)
    if change.kind == "lower":
        good = not _worse(case, comparison) and 2 * faulty <= len(after)
        word = "no worse" if good else "worse"
    else:
        good = _better(case, comparison) or (faulty == 0 and comparison.margin <= 0)
        word = "better" if good else "nothing improved"
    fault = f"{change.finding or 'a fault'} in {faulty} of {len(after)} segments since"
    why = f"{word}: {_points(comparison, before, after)}; {fault}; {_rates(change, before, after)}"
    numbers = {
        "gain": round(-comparison.margin, 2),
        "better": {"a": "before", "b": "after"}.get(comparison.better, "similar"),
        "probability": round(1 - comparison.probability, 3),
        "after": [s.id for s in after][-REMEMBERED:],
    }
    return (keeping if good else undoing)(case, change, why, now, numbers)


def _better(case: Case, comparison: Comparison) -> bool:
    return comparison.better == "b" and -comparison.margin >= case.rules.min_gain


def _worse(case: Case, comparison: Comparison) -> bool:
    return comparison.better == "a" and comparison.margin >= case.rules.min_gain


def _points(comparison: Comparison, before: Sequence[Segment], after: Sequence[Segment]) -> str:
    was, became = typical(before).quality, typical(after).quality
    sure = 100 * max(comparison.probability, 1 - comparison.probability)
    return (
        f"quality {was:.1f} became {became:.1f}, "
        f"{-comparison.margin:+.1f} points with {sure:.0f} % probability"
    )


def _rates(change: Change, before: Sequence[Segment], after: Sequence[Segment]) -> str:
    was, became = usual_kbps(before), usual_kbps(after)
    if was is None or became is None:
        return "the bitrate was not measured"
    moved = became - was if change.kind == "raise" else was - became
    ignored = moved <= FOLLOWED * was
    return f"{was:.0f} kb/s became {became:.0f}" + ": the encoder did not follow" * ignored


def _given_up(case: Case, change: Change, after: Sequence[Segment], now: datetime) -> Decision:
    scored = sum(s.scored for s in after)
    needed = case.rules.verify_segments
    lacking = (
        f"{scored} of {needed} segments have a score"
        if scored < needed
        else "the segments before cannot be compared with"
    )
    why = f"not judged within {case.rules.verify_within:.0f} s: {lacking}"
    return (keeping if change.kind == "lower" else undoing)(case, change, why, now)
