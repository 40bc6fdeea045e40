"""Moving sequences through four codecs at seven rates: rate ladders with a known original."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer import degrade
from trainer.degrade.codecs import decoded, encoded, shown, yuv
from trainer.evaluation.shelf import Shot, seed_of
from trainer.likeness import Original
from vqmon.domain import Colour, Frame

Picture = NDArray[np.uint8]

RATES: Mapping[str, tuple[int, ...]] = {
    "h264": (18, 24, 29, 34, 39, 44, 49),
    "hevc": (18, 24, 29, 34, 39, 44, 49),
    "vp9": (16, 28, 38, 46, 52, 58, 63),
    "av1": (16, 28, 38, 46, 53, 58, 63),
}
"""Rate factor of each rung, best picture first."""

FRAMES, INTERVAL = 25, 12
JUDGED = (4, 7, 9, 12, 15, 18, 21, 24)
"""Frames that are scored: two keyframes of eight, as INTERVAL places them."""

SIZE = (960, 540)
ORIGINAL = "original"
COLOUR = Colour(full_range=False, matrix="bt601")
"""What swscale makes of R'G'B' when nothing is said."""

CLIPS = (".mp4", ".webm", ".mkv")
MADE_BY = (Path(degrade.__file__).with_name("codecs.py"), Path(degrade.__file__))


def shots(source: Path) -> Iterable[Shot]:
    """The original's judged frames, then those of every rung of every codec.

    Numbers: the losses of `trainer.likeness` against the original frame, 0 for itself.
    """
    frames = yuv(clip(source))
    pictures = [shown(frames[i]) for i in JUDGED]
    originals = [Original(picture) for picture in pictures]
    for place, i in enumerate(JUDGED):
        nothing = originals[place].losses(pictures[place])
        yield Shot(_planes(frames[i]), _facts(source, ORIGINAL, 0, 0, key=False), nothing)
    for codec, rates in RATES.items():
        for rung, rate in enumerate(rates):
            out = decoded(encoded(frames, codec, rate, INTERVAL), codec)
            for place, i in enumerate(JUDGED):
                facts = _facts(source, codec, rung, rate, key=bool(out[i].key_frame))
                yield Shot(_planes(out[i]), facts, originals[place].losses(shown(out[i])))


def clip(source: Path) -> list[Picture]:
    """FRAMES pictures: of a clip from a third of its length on; of a photograph, a slow pan and
    zoom over it.
    """
    if source.suffix in CLIPS:
        return _real(source)
    return _panned(Image.open(source).convert("RGB"), seed_of(source, 200))


def _real(source: Path) -> list[Picture]:
    pictures: list[Picture] = []
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        skipped = int(stream.frames or 3 * FRAMES) // 3
        for count, frame in enumerate(container.decode(stream)):
            if count >= skipped:
                pictures.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            if len(pictures) == FRAMES:
                return pictures
    raise ValueError(f"{source} has fewer than {skipped + FRAMES} frames")


def _panned(photograph: Image.Image, rng: np.random.Generator) -> list[Picture]:
    """A window of SIZE's shape moves and grows or shrinks by up to a fifth."""
    width, height = photograph.size
    across = min(width, height * SIZE[0] / SIZE[1]) * rng.uniform(0.6, 0.75)
    zoom = rng.uniform(-0.2, 0.2)
    angle, room = rng.uniform(0, 2 * np.pi), 0.1 * across
    pictures = []
    for t in np.linspace(-0.5, 0.5, FRAMES):
        wide = across * (1 + zoom * t)
        tall = wide * SIZE[1] / SIZE[0]
        x = width / 2 + room * t * np.cos(angle)
        y = height / 2 + room * t * np.sin(angle)
        box = (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
        frame = photograph.resize(SIZE, Image.Resampling.LANCZOS, box=box)
        pictures.append(np.asarray(frame))
    return pictures


def _planes(frame: av.VideoFrame) -> Frame:
    """The decoder's own samples; nothing is converted on the way."""
    if frame.format.name != "yuv420p":
        raise ValueError(f"{frame.format.name} was decoded, not yuv420p")
    height, width = frame.height, frame.width
    packed = np.asarray(frame.to_ndarray(), np.uint8).reshape(-1)
    luma, chroma = height * width, (height // 2) * (width // 2)
    planes = (
        packed[:luma].reshape(height, width),
        packed[luma : luma + chroma].reshape(height // 2, width // 2),
        packed[luma + chroma : luma + 2 * chroma].reshape(height // 2, width // 2),
    )
    return Frame(planes, position=0.0, captured_at=datetime.now(UTC), colour=COLOUR)


def _facts(source: Path, codec: str, rung: int, rate: int, *, key: bool) -> dict[str, Any]:
    return {"sequence": source.name, "codec": codec, "rung": rung, "rate": rate, "key": key}
