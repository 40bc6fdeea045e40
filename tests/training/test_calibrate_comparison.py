"""How sure a comparison may be is measured, and never chosen to please."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.media import write_clip
from trainer.calibrate_comparison import Row, Rung, chosen, encode, judged


def rung(quality: float, uncertainty: float = 10.0) -> Rung:
    return Rung("x", quality, uncertainty, ())


def test_more_error_in_common_dares_more_orders() -> None:
    pairs = [(rung(60), rung(58)), (rung(60), rung(50)), (rung(50), rung(50.5))]

    alone, together = judged(pairs, 0.0), judged(pairs, 0.99)

    assert alone.dared == pytest.approx(1 / 3)
    assert alone.right == together.dared == 1.0
    assert together.right == pytest.approx(2 / 3)
    assert together.claimed > alone.claimed


def test_what_is_never_dared_is_never_right() -> None:
    assert judged([(rung(50), rung(50))], 0.5).dared == 0.0


def test_the_largest_share_is_taken_that_does_not_claim_too_much() -> None:
    """Right must be well above claimed, at it and at every smaller share."""
    rows = [
        Row(0.0, 0.4, 0.7, 1.0),
        Row(0.5, 0.5, 0.8, 0.95),
        Row(0.8, 0.7, 0.85, 0.87),
        Row(0.9, 0.9, 0.8, 0.9),
    ]

    assert chosen(rows) == 0.5
    assert chosen(rows[2:]) == 0.0


def test_a_rung_is_a_rendition_of_the_clips_beginning(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2, sound=False)

    encode(clip, tmp_path / "fine.mp4", 18, seconds=1.0)
    encode(clip, tmp_path / "coarse.mp4", 48, seconds=1.0)

    with av.open(str(tmp_path / "fine.mp4")) as fine:
        assert sum(1 for _ in fine.decode(video=0)) == 25
    assert (tmp_path / "coarse.mp4").stat().st_size < (tmp_path / "fine.mp4").stat().st_size / 2
