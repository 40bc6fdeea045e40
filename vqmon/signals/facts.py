"""A segment's measured facts: plain JSON values, rounded to what they are good for."""

from __future__ import annotations

from typing import Any

from vqmon.signals.ledger import Ledger, Picture, Second, mean
from vqmon.signals.transport import Transport

Facts = dict[str, Any]


def facts(ledger: Ledger, transport: Transport, start: float, end: float) -> Facts:
    """What was never measured is left out."""
    every = {
        **_traffic(ledger.seconds_in(start, end)),
        **_pictures(ledger.pictures_in(start, end)),
        "gop_seconds": rounded(transport.keyframes.mean(start, end), 3),
        "gaps": sum(start <= gap < end for gap in transport.gaps.seen),
    }
    return {name: value for name, value in every.items() if value is not None}


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _traffic(seconds: list[Second]) -> Facts:
    media = sum(s.seconds for s in seconds)
    wall = sum(s.wall_seconds for s in seconds)
    packets = sum(s.packets for s in seconds)
    rates = {
        "bitrate_kbps": _kbps(sum(s.bytes for s in seconds), media),
        "video_bitrate_kbps": _kbps(sum(s.video_bytes for s in seconds), media),
        "frame_rate": round(packets / media, 2) if media and packets else None,
        "media_ratio": round(media / wall, 3) if wall else None,
    }
    return rates | {
        "packets": packets,
        "keyframes": sum(s.keys for s in seconds),
        "corrupt_packets": sum(s.corrupt for s in seconds),
        "decode_errors": sum(s.errors for s in seconds),
        "late_frames": sum(s.late for s in seconds),
    }


def _kbps(size: int, seconds: float) -> float | None:
    return round(8 * size / seconds / 1000, 1) if seconds else None


def _pictures(pictures: list[Picture]) -> Facts:
    quantisers = [p.qp for p in pictures if p.qp is not None]
    return {
        "pictures": len(pictures),
        "corrupt_pictures": sum(p.corrupt for p in pictures),
        "luma_mean": rounded(mean([p.luma for p in pictures]), 1),
        "qp": rounded(mean(quantisers), 1),
    }
