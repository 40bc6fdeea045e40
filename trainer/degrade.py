"""Known damage at known strength: free labels with an exact order.

A degradation takes pictures (a still, or neighbouring frames of a clip), a strength 0..5 and a
random generator. Strength 0 gives the pictures back unchanged; 1 to 5 are the severities from
slight to catastrophic, and values between lie between. The same seed at rising strengths makes
a ladder: the same damage, only more of it.

Pictures are (h, w, 3) uint8 R'G'B'. Codecs are real ones, reached through PyAV and Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Picture = NDArray[np.uint8]
Degradation = Callable[[Sequence[Picture], float, np.random.Generator], list[Picture]]

STRENGTHS = (0, 1, 2, 3, 4, 5)


def blur(pictures: Sequence[Picture], strength: float, _rng: np.random.Generator) -> list[Picture]:
    """Defocus: a Gaussian whose width grows with the picture."""
    if strength == 0:
        return list(pictures)
    sigma = _at(strength, (0, 0.8, 1.4, 2.3, 3.8, 6.5)) * _size(pictures[0])
    return [
        _rounded(ndimage.gaussian_filter(p.astype(np.float32), (sigma, sigma, 0))) for p in pictures
    ]


def noise(pictures: Sequence[Picture], strength: float, rng: np.random.Generator) -> list[Picture]:
    """Sensor noise: Gaussian, grey and coloured, each frame its own."""
    if strength == 0:
        return list(pictures)
    sigma = _at(strength, (0, 4, 8, 14, 23, 38))
    return [_rounded(p + sigma * _grain(p.shape, rng)) for p in pictures]


def jpeg(pictures: Sequence[Picture], strength: float, _rng: np.random.Generator) -> list[Picture]:
    """JPEG with 4:2:0 chroma, each picture by itself."""
    if strength == 0:
        return list(pictures)
    quality = round(_at(strength, (90, 55, 35, 20, 11, 5)))
    return [through_jpeg(p, quality) for p in pictures]


def h264(pictures: Sequence[Picture], strength: float, _rng: np.random.Generator) -> list[Picture]:
    """H.264 at a constant rate factor; the pictures are frames of one clip."""
    if strength == 0:
        return list(pictures)
    return through_h264(pictures, round(_at(strength, (20, 29, 34, 39, 44, 50))))


def upscaled(
    pictures: Sequence[Picture], strength: float, _rng: np.random.Generator
) -> list[Picture]:
    """Detail of a smaller picture, stretched."""
    if strength == 0:
        return list(pictures)
    return [_stretched(p, _at(strength, (1, 1.5, 2, 3, 4.5, 7))) for p in pictures]


def underexposed(
    pictures: Sequence[Picture], strength: float, _rng: np.random.Generator
) -> list[Picture]:
    """Stops of light taken away, before the transfer curve."""
    return _exposed(pictures, -_at(strength, (0, 1, 1.8, 2.7, 3.7, 5)))


def overexposed(
    pictures: Sequence[Picture], strength: float, _rng: np.random.Generator
) -> list[Picture]:
    """Stops of light added; what does not fit is clipped."""
    return _exposed(pictures, _at(strength, (0, 0.7, 1.2, 1.8, 2.5, 3.5)))


DEGRADATIONS: Mapping[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "h264": h264,
    "upscaled": upscaled,
    "underexposed": underexposed,
    "overexposed": overexposed,
}


def through_jpeg(picture: Picture, quality: int) -> Picture:
    """Pillow encodes (the quality scale people know), PyAV decodes (as in serving)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return _decoded(file)[0]


def through_h264(pictures: Sequence[Picture], crf: int) -> list[Picture]:
    """What a decoder gives of the clip after x264 at this rate factor."""
    height, width = (n // 2 * 2 for n in pictures[0].shape[:2])
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[:height, :width]), format="rgb24"
            )
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return _decoded(file)


def _decoded(file: io.BytesIO) -> list[Picture]:
    file.seek(0)
    with av.open(file, "r") as container:
        frames = container.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def _at(strength: float, values: Sequence[float]) -> float:
    return float(np.interp(strength, STRENGTHS, values))


def _size(picture: Picture) -> float:
    """1 for pictures up to 720 pixels on the short side, in proportion beyond."""
    return max(1.0, float(min(picture.shape[:2])) / 720)


def _rounded(picture: NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    grey = rng.standard_normal((*shape[:2], 1), np.float32)
    colour = rng.standard_normal(shape, np.float32)
    return np.asarray(0.85 * grey + 0.5 * colour, np.float32)


def _stretched(picture: Picture, factor: float) -> Picture:
    height, width = picture.shape[:2]
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    reduced = Image.fromarray(picture).resize(small, Image.Resampling.LANCZOS)
    return np.asarray(reduced.resize((width, height), Image.Resampling.BICUBIC))


def _exposed(pictures: Sequence[Picture], stops: float) -> list[Picture]:
    """Through linear light with a gamma of 2.2."""
    if stops == 0:
        return list(pictures)
    linear = (np.arange(256) / 255) ** 2.2 * 2**stops
    table = _rounded(255 * np.clip(linear, 0, 1) ** (1 / 2.2))
    return [table[p] for p in pictures]
