"""Clips for the benchmarks: a moving scene with natural statistics, really encoded.

1080p25 H.264 at 5 Mb/s with a 2 s GOP and 48 kHz stereo AAC in MPEG-TS, unless asked otherwise.
Clips are made once and kept in the temporary folder.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

FOLDER = Path(tempfile.gettempdir()) / "vqmon-benchmarks"


def clip(
    seconds: int = 60,
    size: tuple[int, int] = (1920, 1080),
    *,
    rate: int = 25,
    kilobits: int = 5000,
    codec: str = "libx264",
) -> Path:
    """Path of the clip, made when missing."""
    path = FOLDER / f"{codec}-{size[0]}x{size[1]}-{rate}fps-{kilobits}k-{seconds}s.ts"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        _encode(half, seconds, size, rate=rate, kilobits=kilobits, codec=codec)
        half.rename(path)
    return path


def _encode(
    path: Path, seconds: int, size: tuple[int, int], *, rate: int, kilobits: int, codec: str
) -> None:
    canvas = _canvas(size[0] + 400, size[1] + 200)
    with av.open(str(path), "w", format="mpegts") as out:
        video = cast("av.VideoStream", out.add_stream(codec, rate=rate))
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.bit_rate = kilobits * 1000
        video.gop_size = 2 * rate
        video.options = {"preset": "veryfast", "maxrate": f"{kilobits}k", "bufsize": f"{kilobits}k"}
        audio = out.add_stream("aac", rate=48000, layout="stereo")
        for number in range(seconds * rate):
            out.mux(video.encode(_view(canvas, number, size)))
            if number % rate == 0:
                for packet in _sound(audio, number // rate):
                    out.mux(packet)
        out.mux(video.encode())
        out.mux(audio.encode())


def _canvas(width: int, height: int) -> np.ndarray:
    """Discs of power-law sizes over each other ("dead leaves"), with fine texture; uint8 RGB."""
    rng = np.random.default_rng(7)
    canvas = np.full((height, width, 3), 120.0, np.float32)
    ys, xs = np.ogrid[:height, :width]
    for radius in sorted(8 / rng.uniform(0.02, 1, 900), reverse=True):
        x, y = rng.integers(width), rng.integers(height)
        r = int(radius) + 1
        rows, cols = slice(max(0, y - r), y + r), slice(max(0, x - r), x + r)
        inside = (ys[rows] - y) ** 2 + (xs[:, cols] - x) ** 2 < radius**2
        canvas[rows, cols][inside] = rng.uniform(20, 235, 3)
    canvas += rng.normal(0, 6, (height, width, 1)) + rng.normal(
        0, 10, (height // 4, width // 4, 1)
    ).repeat(4, 0).repeat(4, 1)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _view(canvas: np.ndarray, number: int, size: tuple[int, int]) -> av.VideoFrame:
    """A slow pan, with a block that moves across it."""
    x = round(200 + 190 * np.sin(number / 90))
    y = round(100 + 95 * np.cos(number / 70))
    picture = canvas[y : y + size[1], x : x + size[0]].copy()
    left = number * 7 % (size[0] - 200)
    picture[300:500, left : left + 200] = canvas[:200, :200]
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


def _sound(audio: av.AudioStream, second: int) -> list[Any]:
    rng = np.random.default_rng(second)
    samples = rng.normal(0, 0.08, (2, 48000)).astype(np.float32)
    packets = []
    for start in range(0, 48000, 1000):
        frame = av.AudioFrame.from_ndarray(
            samples[:, start : start + 1000].copy(), "fltp", "stereo"
        )
        frame.sample_rate = 48000
        frame.pts = second * 48000 + start
        frame.time_base = Fraction(1, 48000)
        packets += audio.encode(frame)
    return packets
