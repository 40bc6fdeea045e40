"""START HERE: from what was seen and what was decided before to the next decision. Pure.

The safety rules, all in this file and in `judging`:

- `observe` mode changes nothing, and hands back what an earlier `act` mode has raised.
- At most CHANGES_PER_HOUR changes in any hour, and a cooldown after each; undoing counts as a
  change but never waits.
- More is asked for only against a sustained fault that bitrate can mend, never while the way
  to vqmon is congested, and never beyond the ladder, which ends below the stream's cap.
- Every change is judged: segments before and after are compared by the quality model. Kept
  when better; taken back when not, when the cap was reached, or when it cannot be told.
- Recovered after `recover_after` clean seconds, lowered again after `hold`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from vqmon.domain import Decision
from vqmon_adaptive_encoding.case import PLUGIN, Case, Evidence, Step, stepping
from vqmon_adaptive_encoding.judging import judged
from vqmon_adaptive_encoding.ladder import Level, above, below
from vqmon_adaptive_encoding.memory import Memory, standing
from vqmon_adaptive_encoding.watching import Trouble, Watched, congested, trouble, usual_kbps

CHANGES_PER_HOUR = 2
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LONGEST_WAIT = 24 * 3600.0
"""Seconds; waits that double after each failure stop growing here."""


def next_decision(
    case: Case, memory: Memory, watched: Watched, now: datetime, evidence: Evidence
) -> Decision | None:
    """What to do at `now` (UTC), None for nothing. Called again after each until None."""
    if memory.change is not None and memory.change.undone_by is None:
        return judged(case, memory.change, watched, now, evidence)
    if (repeated := _repeated(case, memory, now)) is not None:
        return repeated
    if memory.change is not None:
        return None  # the encoder has still to accept that it goes back; nothing new until then
    level = memory.level or case.base
    if case.mode == "observe" and level.cap_kbps > case.base.cap_kbps:
        return _handed_back(case, memory, level, now)
    found = trouble(watched, case.rules)
    if found is not None:
        return _against(found, case, memory, level, now)
    return _recovered(case, memory, watched, now) or _lowered(case, memory, watched, level, now)


def _repeated(case: Case, memory: Memory, now: datetime) -> Decision | None:
    """Once a day, what still stands; or pruning would make the plugin forget it."""
    if memory.last is None or now - memory.last.at < DAY:
        return None
    data = standing(memory)
    if data is None or (Level.from_json(data["to"]) == case.base and "roll_back" not in data):
        return None
    back = "has still to go back to" if "roll_back" in data else "still runs at"
    reason = f"the encoder {back} {Level.from_json(data['to'])}"
    return Decision(PLUGIN, case.stream, "holds", reason, now, data)


def _handed_back(case: Case, memory: Memory, level: Level, now: datetime) -> Decision | None:
    """Nothing to be compared with: an operator who wants hands off gets them off."""
    if not case.live or _too_soon(case, memory, now) is not None:
        return None
    step = Step(level, case.base)
    return stepping(case, "lower", step, reason=f"observe mode: hands back, {step}", now=now)


def _against(
    found: Trouble, case: Case, memory: Memory, level: Level, now: datetime
) -> Decision | None:
    goal = above(case.ladder, level, found.finding.severity)
    refusal = _refusal(found, case, memory, goal, now)
    if refusal is not None:
        code, why = refusal
        return _waiting(case, memory, code, f"{_words(found)}, but {why}", now)
    assert goal is not None  # else refused above
    step = Step(level, goal)
    kind, verb = _manner(case)
    return stepping(
        case,
        kind,
        step,
        reason=f"{_words(found)}: {verb} {step}",
        now=now,
        before=found.segments,
        more={"finding": found.finding.name, "severity": found.finding.severity},
    )


def _manner(case: Case) -> tuple[str, str]:
    if case.mode == "observe":
        return "observe", "would ask for"
    return ("raise", "asks for") if case.live else ("propose", "proposes")


def _refusal(
    found: Trouble, case: Case, memory: Memory, goal: Level | None, now: datetime
) -> tuple[str, str] | None:
    """Why not now: a word for programs and a sentence for people."""
    jam = next((name for s in found.segments if (name := congested(s))), None)
    if jam is not None:
        return "congested", f"there is {jam} too, which more bitrate would make worse"
    if goal is None:
        return "top", f"{case.ladder[-1]} is the top of the ladder"
    rate = usual_kbps(found.segments)
    if rate is not None and rate >= case.cap_kbps:
        return "cap", f"the stream takes {rate:.0f} kb/s already and its cap is {case.cap_kbps}"
    return _too_soon(case, memory, now)


def _too_soon(case: Case, memory: Memory, now: datetime) -> tuple[str, str] | None:
    rest = min(case.rules.cooldown * 2 ** min(memory.setbacks, 20), LONGEST_WAIT)
    if memory.judged_at is not None and now < memory.judged_at + timedelta(seconds=rest):
        ago = (now - memory.judged_at).total_seconds()
        why = f"the last change ended {ago:.0f} s ago and the cooldown is {rest:.0f} s"
        return "cooldown", why + f" after {memory.setbacks} in vain" * (memory.setbacks > 0)
    lately = sum(now - HOUR < at <= now for at in memory.changes)
    if lately >= CHANGES_PER_HOUR:
        return "budget", f"{lately} changes within the hour are enough"
    return None


def _waiting(case: Case, memory: Memory, code: str, reason: str, now: datetime) -> Decision | None:
    """Said once, and again after an hour, not with every segment."""
    last = memory.last
    if last is not None and last.kind == "wait" and last.data.get("code") == code:
        return None if now - last.at < HOUR else _wait(case, code, reason, now)
    return _wait(case, code, reason, now)


def _wait(case: Case, code: str, reason: str, now: datetime) -> Decision:
    return Decision(PLUGIN, case.stream, "wait", reason, now, {"code": code})


def _words(found: Trouble) -> str:
    finding = found.finding
    word = f"{finding.severity_word} {finding.name}"
    if finding.value is not None and finding.limit is not None:
        unit = f" {finding.unit}" * bool(finding.unit)
        word += f" ({finding.value:g} against a limit of {finding.limit:g}{unit})"
    return f"{word} for {found.seconds:.0f} s"


def _recovered(case: Case, memory: Memory, watched: Watched, now: datetime) -> Decision | None:
    if memory.recovered or watched.clean_seconds < case.rules.recover_after:
        return None
    reason = f"recovered: {watched.clean_seconds:.0f} s without a fault that bitrate mends"
    return Decision(PLUGIN, case.stream, "recovered", reason, now)


def _lowered(
    case: Case, memory: Memory, watched: Watched, level: Level, now: datetime
) -> Decision | None:
    """One rung down when the stream has been clean for long; each failure doubles the wait."""
    goal = below(case.ladder, level, case.base)
    hold = case.rules.hold * 2 ** min(memory.undone_lowerings, 20)
    hold = max(case.rules.hold, min(hold, LONGEST_WAIT))
    if goal is None or not case.live or not memory.recovered or watched.clean_seconds < hold:
        return None
    if _too_soon(case, memory, now) is not None:
        return None
    before = [s for s in watched.recent if s.scored][-case.rules.verify_segments :]
    step = Step(level, goal)
    reason = f"clean for {watched.clean_seconds:.0f} s: tries {step}"
    return stepping(case, "lower", step, reason=reason, now=now, before=before)
