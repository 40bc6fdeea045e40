"""What goes wrong on purpose in the demonstration, when, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vqmon.domain import SELF_FAULTS, Segment

TOLERANCE_SECONDS = 2.0
"""A finding may begin or end this far from its fault: pictures are sampled once a second, traffic
is summed up per second, and a broken picture stays broken until the next keyframe."""


@dataclass(frozen=True, slots=True)
class Act:
    """A fault staged in [start, end) seconds of the programme.

    proves: findings of any of these names show that it was noticed.
    """

    name: str
    start: float
    end: float
    proves: frozenset[str]
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of an act. missed: it was on air while watched, and nothing was found.

    found: names of findings, in order of time; empty when missed or never on air.
    """

    act: Act
    found: tuple[str, ...]
    watched: bool

    @property
    def missed(self) -> bool:
        return self.watched and not self.found


PROGRAMME = (
    Act("bitrate_collapse", 12, 20, frozenset({"bitrate_collapse", "compression"}),
        "the encoder is starved"),
    Act("blur", 24, 28.5, frozenset({"blur"}), "the picture is out of focus"),
    Act("freeze", 33, 38, frozenset({"freeze"}), "the picture stands still"),
    Act("black", 42, 45, frozenset({"black"}), "the picture is black"),
    Act("packet_loss", 49, 53, frozenset({"packet_loss", "corrupted"}), "packets are lost"),
)  # fmt: skip
"""A minute: twelve good seconds to learn what is usual, then one fault after the other."""

LENGTH = 60.0


def programme(seconds: float) -> tuple[Act, ...]:
    """The faults that are over, with a little to spare, in a run of this length."""
    return tuple(act for act in PROGRAMME if act.end + TOLERANCE_SECONDS <= seconds)


def on_air(acts: Iterable[Act], start: float, end: float) -> tuple[Act, ...]:
    """Acts that are staged anywhere in [start, end) seconds."""
    return tuple(act for act in acts if act.start < end and start < act.end)


def verdicts(acts: Sequence[Act], segments: Sequence[Segment]) -> list[Verdict]:
    """Each act with what was found of it, by position; segments are of the one stream."""
    spans = [(f.name, f.start, f.start + f.seconds) for s in segments for f in s.findings]
    return [
        Verdict(
            act,
            tuple(
                dict.fromkeys(
                    name
                    for name, start, end in sorted(spans, key=lambda span: span[1])
                    if name in act.proves and _meets(act, start, end)
                )
            ),
            any(s.start < act.end and act.start < s.start + s.seconds for s in segments),
        )
        for act in acts
    ]


def unstaged(acts: Sequence[Act], segments: Sequence[Segment]) -> list[tuple[str, float]]:
    """Findings that nothing on air explains: (name, seconds), the longest first.

    While a fault is on air, other findings are its consequences (a starved picture is blurred).
    """
    seconds: dict[str, float] = {}
    for segment in segments:
        for finding in segment.findings:
            end = finding.start + finding.seconds
            staged = any(_meets(act, finding.start, end) for act in acts)
            if not staged and finding.name not in SELF_FAULTS:
                seconds[finding.name] = seconds.get(finding.name, 0.0) + finding.seconds
    return sorted(seconds.items(), key=lambda item: -item[1])


def overloaded(segments: Iterable[Segment]) -> float:
    """Seconds in which vqmon had no time to look closely: then it may miss things."""
    return sum(f.seconds for s in segments for f in s.findings if f.name == "overload")


def _meets(act: Act, start: float, end: float) -> bool:
    return start < act.end + TOLERANCE_SECONDS and act.start - TOLERANCE_SECONDS < end
