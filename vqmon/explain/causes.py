"""What is likely behind findings that come together, and what to check next.

A rule is looked at when all of its findings are there (and its condition on facts and findings
holds); the first rules that fit are told, and a finding that one rule explained needs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vqmon.domain import FAULTS, Segment
from vqmon.explain.words import FINDINGS, number

Facts = Mapping[str, Any]

HIGH_QP = 35.0
"""H.264 quantiser (of 51) from which on blocks are plain to see."""

LOW_SHARE = 60.0
"""Percent of the usual bitrate below which bits are scarce."""

CAUSES_TOLD = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """names: all must be found; when: of facts; says: a sentence or two, from facts."""

    names: frozenset[str]
    says: Callable[[Facts], str]
    when: Callable[[Facts], bool] = lambda _: True


def _starved(facts: Facts) -> bool:
    qp, share = facts.get("qp"), facts.get("bitrate_percent_of_usual")
    return (qp is not None and qp >= HIGH_QP) or (share is not None and share < LOW_SHARE)


def _starved_says(facts: Facts) -> str:
    signs = []
    if (qp := facts.get("qp")) is not None and qp >= HIGH_QP:
        signs.append(f"a quantiser of {number(qp)} of 51")
    share = facts.get("bitrate_percent_of_usual")
    if share is not None and share < LOW_SHARE:
        signs.append(f"{number(share)} % of the usual bitrate")
    rate = facts.get("video_bitrate_kbps")
    at = f" at {number(rate)} kb/s" if rate else ""
    return (
        f"The encoder is starved of bits ({' and '.join(signs)}{at}): raise its bitrate, or find "
        "out what limits it (uplink, rate control, a ladder that switched down)."
    )


def _says(text: str) -> Callable[[Facts], str]:
    return lambda _: text


def _flowing(facts: Facts) -> bool:
    return bool(facts.get("packets"))


def _flowing_says(what: str, check: str) -> Callable[[Facts], str]:
    def says(facts: Facts) -> str:
        return (
            f"{what}, yet {facts['packets']} packets arrived: the connection works and the fault "
            f"lies before the encoder. {check}"
        )

    return says


def _all(*names: str) -> frozenset[str]:
    return frozenset(names)


RULES = (
    Rule(
        _all("black", "audio_silence"),
        _flowing_says(
            "Picture and sound are both gone",
            "Check the feed that reaches the encoder, not one cable of it.",
        ),
        _flowing,
    ),
    Rule(
        _all("packet_loss", "corrupted"),
        _says(
            "Packets are lost and pictures are damaged by it: the network between the encoder and "
            "here drops data. Check links and switches on the way, use TCP or SRT with more "
            "latency, or add error correction."
        ),
    ),
    Rule(
        _all("packet_loss", "stutter"),
        _says(
            "Packets are lost and motion halts with it: the network between the encoder and here "
            "drops data. Check the way, or use TCP or SRT with more latency."
        ),
    ),
    Rule(
        _all("packet_loss", "freeze"),
        _says(
            "Packets are lost and the picture stands: the decoder waits for a keyframe that comes "
            "whole. Check the network between the encoder and here."
        ),
    ),
    Rule(
        _all("corrupted"),
        _says(
            "Pictures are damaged although no packet is reported lost: the damage was there before "
            "the last hop. Check the encoder and the contribution feed behind it."
        ),
        lambda facts: not facts.get("corrupt_packets") and not facts.get("decode_errors"),
    ),
    Rule(_all("compression", "bitrate_collapse"), _starved_says, _starved),
    Rule(_all("compression"), _starved_says, _starved),
    Rule(_all("bitrate_collapse"), _starved_says, _starved),
    Rule(
        _all("underfed", "stutter"),
        _says(
            "Media arrives slower than it plays, and pictures are missing: the encoder or its "
            "uplink does not keep up. Check the encoder's load and the upload rate."
        ),
    ),
    Rule(
        _all("freeze"),
        _flowing_says(
            "The picture stands still",
            "Check the encoder's input: cable, camera, player, capture card.",
        ),
        _flowing,
    ),
    Rule(
        _all("black"),
        _flowing_says(
            "The picture is black", "Check the camera, the playout or the encoder's input."
        ),
        _flowing,
    ),
    Rule(
        _all("noise", "underexposed"),
        _says(
            "The picture is dark and grainy: the camera has too little light and turns up its "
            "gain. Give it light, a longer exposure or a faster lens."
        ),
    ),
    Rule(
        _all("blur", "upscaled"),
        _says(
            "The picture is soft and was enlarged: a smaller rendition is sent in a larger frame. "
            "Check the scaler, and which rung the encoder is fed from."
        ),
    ),
    Rule(
        _all("timestamp_jump", "format_changed"),
        _says(
            "Clock and format changed together: the encoder restarted with other settings, or "
            "another one took over. Check its log at this time."
        ),
    ),
    Rule(
        _all("stutter"),
        lambda facts: (
            f"{facts['gaps']} times packets were missing in the stream: the encoder dropped "
            "pictures, or they were lost on the way. Check the encoder's load first."
        ),
        lambda facts: bool(facts.get("gaps")),
    ),
    Rule(
        _all("stutter"),
        _says(
            "No packet is missing, so the repeated pictures were encoded as they are: check the "
            "frame rate that the capture card or player hands to the encoder."
        ),
        lambda facts: facts.get("gaps") == 0,
    ),
)


def causes(segment: Segment) -> list[str]:
    """The likeliest first, at most CAUSES_TOLD; empty when nothing is wrong."""
    left = {f.name: f.severity for f in segment.findings}
    told = []
    for rule in RULES:
        if rule.names <= left.keys() and rule.when(segment.facts):
            told.append(rule.says(segment.facts))
            for name in rule.names:
                del left[name]
    by_weight = sorted(left, key=lambda name: (-left[name], name not in FAULTS, name))
    told += [FINDINGS[name].check for name in by_weight]
    return list(dict.fromkeys(told))[:CAUSES_TOLD]
