"""How the report writes times, shares and qualities. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from vqmon.domain import SEVERITY_WORDS, Alert, Finding

GRADES = ((80.0, "excellent"), (60.0, "good"), (40.0, "fair"), (20.0, "poor"), (0.0, "bad"))
"""The five grades of ITU-T P.910, twenty points each."""

REASONS = {
    "refused": "the server refused the connection",
    "dns": "the name of the server was not found",
    "auth": "the server wants other credentials",
    "not_found": "the address does not exist on the server",
    "timeout_open": "the server did not answer",
    "timeout_read": "the stream stopped arriving",
    "protocol_missing": "this protocol is not supported here",
    "invalid_data": "what arrived is not video",
    "eof": "the stream ended",
    "decoder_missing": "no decoder for this format",
    "bridge_missing": "the bridge program is not installed",
    "no_video": "there is no video in the stream",
    "no_frames": "no picture could be decoded",
    "unsupported_picture": "pictures of this kind cannot be scored",
    "scorer_unavailable": "the scoring process was away",
    "scorer_failed": "the model failed on these pictures",
    "overload": "vqmon was overloaded",
    "process_restarted": "vqmon restarted the process",
    "visit_missed": "a scheduled visit was missed",
    "stopped": "vqmon was stopped",
    "black": "the picture was black",
}


def grade(quality: float) -> str:
    """excellent, good, fair, poor or bad."""
    return next(word for least, word in GRADES if quality >= least)


def named(finding: str) -> str:
    """A finding's name as people write it."""
    return finding.replace("_", " ")


def severity(level: int) -> str:
    return SEVERITY_WORDS[level - 1]


def reason(code: str) -> str:
    return REASONS.get(code, code.replace("_", " "))


def lasting(seconds: float) -> str:
    """Two units at most: ``0.4 s``, ``25 s``, ``3 min 20 s``, ``24 h``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for size, unit, small, small_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= (2 if unit == "d" else 1) * size:
            count, rest = divmod(round(whole / small) * small, size)
            return f"{count} {unit}" + (f" {rest // small} {small_unit}" if rest else "")
    return f"{whole} s"


def share(part: float, whole: float) -> str:
    """A percentage that says 100 only when nothing is missing, and 0 only when nothing is there."""
    if whole <= 0:
        return "-"
    percent = 100 * part / whole
    if percent in {0.0, 100.0} or 0.1 <= percent <= 99.9:
        return f"{percent:.1f} %".replace(".0 %", " %")
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.2f} %" if percent < 99.995 else "> 99.99 %"


def chance(probability: float) -> str:
    """A percentage that never says 100."""
    return "over 99 %" if probability > 0.99 else f"{round(100 * probability)} %"


def moment(at: datetime, *, day: bool = True) -> str:
    at = at.astimezone(UTC)
    return f"{at:%d %b %H:%M:%S}" if day else f"{at:%H:%M:%S}"


def firing(alert: Alert) -> str:
    """How long it fired: ``for 25 s``, or ``still firing``."""
    if alert.closed_at is None:
        return "still firing"
    return f"for {lasting((alert.closed_at - alert.opened_at).total_seconds())}"


def measured(finding: Finding) -> str:
    """Value and limit, as far as they are known."""
    if finding.value is None:
        return ""
    text = f"{finding.value:.4g} {finding.unit}".strip()
    return text if finding.limit is None else f"{text} (limit {finding.limit:.4g})"


def where(finding: Finding) -> str:
    return "whole picture" if finding.region is None else ", ".join(finding.region)
