"""Known damage at known strength: free labels with an exact order.

A degradation takes pictures (a still, or neighbouring frames of a clip), a strength 0..5 and a
random generator. Strength 0 gives the pictures back unchanged; 1 to 5 are the severities from
slight to catastrophic, and values between lie between. The same seed at rising strengths makes
a ladder: the same damage, only more of it. Each class has several variants, of which the seed
chooses one.

Pictures are (h, w, 3) uint8 R'G'B'. Codecs are real ones, reached through PyAV and Pillow.
Damage that comes together is done in the order of ORDER, as in the world: the scene's light,
lens, sensor, scaling, few levels, codec, transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.degrade import pixels
from trainer.degrade.codecs import ENCODERS, through_codec, through_h264, through_jpeg
from trainer.degrade.corruption import AREAS, debris
from trainer.degrade.pixels import Picture

__all__ = [
    "DEGRADATIONS",
    "ORDER",
    "STRENGTHS",
    "VARIANTS",
    "Picture",
    "Variant",
    "amount",
    "jpeg_quality",
    "through_h264",
    "through_jpeg",
]

Degradation = Callable[[Sequence[Picture], float, np.random.Generator], list[Picture]]

STRENGTHS = (0, 1, 2, 3, 4, 5)

ORDER = (
    "underexposed",
    "overexposed",
    "blur",
    "noise",
    "upscaled",
    "banding",
    "compression",
    "corrupted",
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do a class of damage to a single picture.

    amounts: the parameter of `apply` at strengths 0 to 5.
    weight: how often it is chosen within its class.
    """

    name: str
    apply: Callable[[Picture, float, np.random.Generator], Picture]
    amounts: tuple[float, float, float, float, float, float]
    weight: float = 1.0

    def __call__(self, picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
        if strength == 0:
            return picture
        return self.apply(picture, amount(strength, self.amounts), rng)


def amount(strength: float, amounts: Sequence[float]) -> float:
    """The parameter at a strength 0..5; a little beyond 5 goes on as from 4 to 5."""
    if strength > STRENGTHS[-1]:
        return amounts[-1] + (strength - 5) * (amounts[-1] - amounts[-2])
    return float(np.interp(strength, STRENGTHS, amounts))


def jpeg_quality(strength: float) -> int:
    return max(2, round(amount(strength, (90, 25, 18, 12, 8, 5))))


def _jpeg(picture: Picture, quality: float, _rng: np.random.Generator) -> Picture:
    return through_jpeg(picture, max(2, round(quality)))


VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "blur": (
        Variant("gaussian", pixels.gaussian, (0, 1, 2, 3, 4, 5), 1.2),
        Variant("boxes", pixels.boxes, (0, 1, 2, 3, 4, 5), 0.8),
        Variant("disk", pixels.disk, (0, 2, 3, 4, 6, 8), 1.5),
        Variant("motion", pixels.motion, (0, 4, 7, 11, 15, 21), 1.5),
    ),
    "noise": (
        Variant("white", pixels.white_noise, (0, 0.05, 0.10, 0.15, 0.20, 0.25), 1.5),
        Variant("grey", pixels.grey_noise, (0, 0.05, 0.10, 0.15, 0.20, 0.25), 0.5),
        Variant("shot", pixels.shot_noise, (1 / 400, 1 / 80, 1 / 60, 1 / 40, 1 / 25, 1 / 15)),
        Variant("impulse", pixels.impulses, (0, 0.01, 0.03, 0.05, 0.07, 0.10)),
        Variant("clumped", pixels.clumped_noise, (0, 0.045, 0.09, 0.135, 0.18, 0.23)),
        Variant("colour", pixels.colour_noise, (0, 0.06, 0.12, 0.18, 0.24, 0.30), 0.5),
    ),
    "compression": (Variant("jpeg", _jpeg, (90, 25, 18, 12, 8, 5)),),
    "banding": (Variant("banded", pixels.banded, (3, 10, 16, 24, 36, 54)),),
    "underexposed": (
        Variant("value", pixels.shifted_value, (0, -0.1, -0.2, -0.3, -0.4, -0.5)),
        Variant("gamma", pixels.bent, (1, 1.5, 1.8, 2.2, 2.7, 3.5)),
        Variant("stops", pixels.stopped, (0, -1.1, -1.8, -2.6, -3.7, -5.2), 0.7),
    ),
    "overexposed": (
        Variant("value", pixels.shifted_value, (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        Variant("gamma", pixels.bent, (1, 1 / 1.5, 1 / 1.8, 1 / 2.2, 1 / 2.7, 1 / 3.5), 0.6),
        Variant("stops", pixels.stopped, (0, 0.7, 1.2, 1.8, 2.5, 3.5)),
    ),
    "upscaled": (Variant("stretched", pixels.stretched, (1, 1.6, 2.1, 2.9, 4.2, 6.5)),),
    "corrupted": (Variant("debris", debris, AREAS),),
}


def drawn_variant(kind: str, rng: np.random.Generator) -> Variant:
    weights = np.array([variant.weight for variant in VARIANTS[kind]])
    return VARIANTS[kind][int(rng.choice(len(weights), p=weights / weights.sum()))]


def _one_by_one(kind: str) -> Degradation:
    """Each picture by itself, through one variant."""

    def degrade(
        pictures: Sequence[Picture], strength: float, rng: np.random.Generator
    ) -> list[Picture]:
        variant = drawn_variant(kind, rng)
        seed = int(rng.integers(1 << 31))
        return [
            variant(picture, strength, np.random.default_rng((seed, place)))
            for place, picture in enumerate(pictures)
        ]

    return degrade


def compression(
    pictures: Sequence[Picture], strength: float, rng: np.random.Generator
) -> list[Picture]:
    """JPEG for a still; for a clip one of the video codecs as well."""
    names = ["jpeg", *ENCODERS] if len(pictures) > 1 else ["jpeg"]
    name = names[int(rng.integers(len(names)))]
    if strength == 0:
        return list(pictures)
    if name == "jpeg":
        return [through_jpeg(picture, jpeg_quality(strength)) for picture in pictures]
    return through_codec(pictures, name, amount(strength, ENCODERS[name].rates))


DEGRADATIONS: Mapping[str, Degradation] = {
    kind: compression if kind == "compression" else _one_by_one(kind) for kind in ORDER
}
