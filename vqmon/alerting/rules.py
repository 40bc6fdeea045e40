"""What a rule is, what it may look at, and the rules that are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqmon.domain import FINDING_NAMES

QUALITY, WORST, DROP = "quality", "quality_worst", "quality_drop"
NO_SIGNAL, NO_SCORE = "no_signal", "no_score"

SCORE_CONDITIONS = (QUALITY, WORST, DROP)
CONDITIONS = (*SCORE_CONDITIONS, NO_SCORE, *FINDING_NAMES)
"""What a rule may be on; `no_signal` is a finding too, and means here that nothing arrives."""

HOUR = 3600.0

EXPECTED = {
    "still_pictures": frozenset({"freeze", "slate"}),
    "no_audio": frozenset({"audio_silence", "audio_loudness", "audio_clipping"}),
    "letterbox": frozenset[str](),
}
"""Findings that a stream's `expect` makes legitimate; black bars are no finding anyway."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alert is raised and when it is cleared. Seconds are of watched media.

    on: one of CONDITIONS.
    severity: of the alert, one of ALERT_SEVERITIES.
    limit: raises below this quality (0..100), from this drop on (points below the stream's own
        baseline), or from this severity of the finding on (1..5). `no_score` has none.
    clear_limit: clears from this quality on, below this drop, or below this severity.
    raise_seconds: of trouble before it fires; clear_seconds: without, before it is resolved.
    pause: trouble that stops for no longer than this goes on counting.
    keep_firing_for: resolved no sooner than so long after the last trouble.
    repeat: told again after so long while it fires, in seconds of time; 0 never.
    """

    name: str
    on: str
    severity: str = "warning"
    limit: float = 1.0
    clear_limit: float = 1.0
    raise_seconds: float = 30.0
    clear_seconds: float = 10.0
    pause: float = 2.0
    keep_firing_for: float = 0.0
    repeat: float = 4 * HOUR

    @property
    def on_score(self) -> bool:
        """Whether it needs a score, or the lack of one, and is held back while there is no signal."""
        return self.on in SCORE_CONDITIONS or self.on == NO_SCORE


def default_limit(on: str) -> float:
    """What a new rule on this begins with."""
    return {QUALITY: 30.0, WORST: 15.0, DROP: 20.0}.get(on, 1.0)


def default_clear_limit(on: str, limit: float) -> float:
    """A little on the good side of the limit, so that nothing flutters around it."""
    if on in (QUALITY, WORST):
        return min(100.0, limit + 5)
    return limit / 2 if on == DROP else limit


def faults(rule: Rule) -> Iterator[tuple[str, str]]:
    """What cannot be meant: the key as operators write it, and what to write instead."""
    on_finding = rule.on in FINDING_NAMES
    low, high = (1, 5) if on_finding else (0, 100)
    for key, value in (("limit", rule.limit), ("clear_limit", rule.clear_limit)):
        if not low <= value <= high:
            what = f"the severity of {rule.on}" if on_finding else "points of quality"
            yield key, f"is {what}, between {low} and {high}"
            return
    if rule.on in (QUALITY, WORST) and rule.clear_limit < rule.limit:
        yield (
            "clear_limit",
            f"must be at least `limit` ({rule.limit:g}), or it clears while raising",
        )
    if (on_finding or rule.on == DROP) and rule.clear_limit > rule.limit:
        yield "clear_limit", f"must be at most `limit` ({rule.limit:g}), or it clears while raising"


def _rule(on: str, severity: str, limit: float = 1.0, **rest: float) -> Rule:
    clear_limit = rest.pop("clear_limit", default_clear_limit(on, limit))
    return Rule(rest.pop("name", on), on, severity, limit, clear_limit, **rest)  # type: ignore[arg-type]


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        _rule(NO_SIGNAL, "critical"),
        _rule("black", "critical"),
        # Holds under 5 s are slides and titles.
        _rule("freeze", "critical", 3),
        # From 10 s on; a track that was never heard stays below that.
        _rule("audio_silence", "warning", 3),
        _rule("slate", "warning", 2, raise_seconds=60.0),
        _rule("underfed", "warning", 3, clear_seconds=30.0),
        _rule("bitrate_collapse", "warning", 3, raise_seconds=60.0, clear_seconds=30.0),
        # These come in bursts: what counts is their sum.
        _rule("packet_loss", "warning", 3, raise_seconds=10.0, clear_seconds=60.0, pause=30.0),
        _rule("corrupted", "warning", 3, raise_seconds=10.0, clear_seconds=60.0, pause=30.0),
        _rule("stutter", "warning", 3, raise_seconds=10.0, clear_seconds=60.0, pause=30.0),
        _rule("audio_clipping", "warning", 3, raise_seconds=30.0, clear_seconds=60.0, pause=30.0),
        _rule("audio_loudness", "info", 3, raise_seconds=60.0, clear_seconds=60.0),
        _rule("timestamp_jump", "info", 3, raise_seconds=0.0, clear_seconds=60.0),
        _rule(QUALITY, "warning", 25, raise_seconds=60.0, clear_seconds=30.0),
        _rule(DROP, "warning", 20, raise_seconds=60.0, clear_seconds=30.0),
        _rule(NO_SCORE, "info", raise_seconds=120.0),
        _rule("overload", "info", 3, raise_seconds=120.0, clear_seconds=60.0),
    )
}
"""Shipped, by name. Degradations have none: the score says what they cost."""
