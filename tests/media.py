"""Small clips, made by PyAV in the test run; no test needs a file from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Picture = Callable[[int], NDArray[np.uint8]]


def moving(width: int = 320, height: int = 180) -> Picture:
    """RGB pictures (height, width, 3) with texture and motion: index -> picture."""
    rng = np.random.default_rng(1)
    texture = rng.integers(0, 60, (height, width, 1), np.uint8)
    ramp = np.linspace(40, 180, width, dtype=np.uint8)[None, :, None]
    still = np.repeat(texture + ramp, 3, axis=2)
    return lambda index: np.roll(still, 3 * index, axis=1)


def write_clip(
    path: Path,
    seconds: float = 4.0,
    *,
    width: int = 320,
    height: int = 180,
    rate: int = 25,
    gop: int = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    sound: bool = True,
    video: bool = True,
    options: dict[str, str] | None = None,
    container: str | None = None,
    first: int = 0,
    picture: Picture | None = None,
) -> Path:
    """Write a clip; `first` is the time stamp of its first picture in frames."""
    made = picture or moving(width, height)
    start = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", format=container, options=start) as output:
        pictures: Any = output.add_stream(codec, rate=rate) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = width, height, pixel_format
            pictures.options = {"g": str(gop), **(_defaults(codec)), **(options or {})}
            pictures.codec_context.time_base = Fraction(1, rate)
        tone: Any = output.add_stream("aac", rate=48000, layout="stereo") if sound else None
        for index in range(round(seconds * rate)):
            if pictures is not None:
                frame = av.VideoFrame.from_ndarray(made(index), format="rgb24")
                frame = frame.reformat(format=pixel_format)
                frame.pts, frame.time_base = first + index, Fraction(1, rate)
                output.mux(pictures.encode(frame))
            if tone is not None:
                output.mux(tone.encode(_tone(index, rate, first)))
        for stream in (pictures, tone):
            if stream is not None:
                output.mux(stream.encode(None))
    return path


def _defaults(codec: str) -> dict[str, str]:
    return {
        "libx264": {"preset": "ultrafast", "bf": "2", "x264-params": "scenecut=0"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0"},
        "libsvtav1": {"preset": "12"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    }.get(codec, {})


def _tone(index: int, rate: int, first: int) -> av.AudioFrame:
    count = 48000 // rate
    time = (np.arange(count) + index * count) / 48000
    wave = (0.2 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate = 48000
    frame.pts, frame.time_base = (first + index) * count, Fraction(1, 48000)
    return frame
