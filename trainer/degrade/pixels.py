"""Damage done to the samples of one picture: exposure, blur, noise, scaling, banding.

Every function takes a picture, an amount in the unit that its docstring states, and a random
generator; the same generator state at a larger amount is the same damage, only more of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import fft, ndimage

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
ENLARGING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def rounded(picture: NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def shifted_value(picture: Picture, shift: float, _rng: np.random.Generator) -> Picture:
    """Add `shift` (-1..1) to V of HSV; hue and saturation stay."""
    value = picture.max(axis=2).astype(np.float32)
    wanted = np.clip(value + np.float32(255 * shift), 0, 255)
    grey = value == 0
    scaled = picture * (wanted / np.where(grey, 1, value))[..., None]
    return rounded(np.where(grey[..., None], wanted[..., None], scaled))


def bent(picture: Picture, gamma: float, _rng: np.random.Generator) -> Picture:
    """Stored values to the power of `gamma`: above 1 darkens, below 1 brightens."""
    return rounded(255 * (np.arange(256) / 255) ** gamma)[picture]


def stopped(picture: Picture, stops: float, _rng: np.random.Generator) -> Picture:
    """Photographic stops of light added in linear light (a gamma of 2.2); the rest is clipped."""
    linear = (np.arange(256) / 255) ** 2.2 * 2**stops
    return rounded(255 * np.clip(linear, 0, 1) ** (1 / 2.2))[picture]


def gaussian(picture: Picture, sigma: float, _rng: np.random.Generator) -> Picture:
    """Standard deviation in pixels."""
    filtered = ndimage.gaussian_filter(
        picture.astype(np.float32), (sigma, sigma, 0), truncate=3.0, mode="reflect"
    )
    return rounded(filtered)


def boxes(picture: Picture, sigma: float, _rng: np.random.Generator) -> Picture:
    """Nearly a Gaussian, as three running means; standard deviation in pixels."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))


def disk(picture: Picture, radius: float, _rng: np.random.Generator) -> Picture:
    """A lens out of focus; radius in pixels."""
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolved(picture, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def motion(picture: Picture, length: float, rng: np.random.Generator) -> Picture:
    """A straight movement in any direction; length in pixels."""
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(y * np.cos(angle) - x * np.sin(angle))
    return _convolved(picture, np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1))


def white_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian, each of R, G and B its own; standard deviation as a share of full scale."""
    return rounded(picture + np.float32(255 * sigma) * _normal(picture.shape, rng))


def grey_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian on luma alone; standard deviation as a share of full scale."""
    grain = _normal((*picture.shape[:2], 1), rng)
    return rounded(picture + np.float32(255 * sigma) * grain)


def shot_noise(picture: Picture, grain: float, rng: np.random.Generator) -> Picture:
    """Poisson; `grain` is one over the count of photons at full scale."""
    peak = 1 / grain
    return rounded(rng.poisson(picture * np.float32(peak / 255)) * np.float32(255 / peak))


def impulses(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Salt and pepper on a share of the samples, on all three of a pixel or each by itself."""
    together = rng.random() < 0.5
    shape = (*picture.shape[:2], 1) if together else picture.shape
    drawn = np.broadcast_to(rng.random(shape, np.float32), picture.shape)
    return np.where(drawn < share / 2, np.uint8(0), np.where(drawn < share, np.uint8(255), picture))


def clumped_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian with neighbours alike, as after a camera's own processing; share of full scale."""
    width = rng.uniform(0.6, 1.4)
    grain = ndimage.gaussian_filter(_normal(picture.shape, rng), (width, width, 0), truncate=3.0)
    return rounded(picture + np.float32(255 * sigma) * (grain / grain.std()))


def colour_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian on the colour differences and a little on luma; share of full scale."""
    grain = _normal(picture.shape, rng)
    grain -= (grain @ LUMA)[..., None]
    grain += np.float32(0.15) * _normal((*picture.shape[:2], 1), rng)
    return rounded(picture + np.float32(255 * sigma) * grain)


def stretched(picture: Picture, factor: float, rng: np.random.Generator) -> Picture:
    """Reduced by `factor` and enlarged again by one of ENLARGING."""
    method = list(ENLARGING)[int(rng.choice(4, p=(0.4, 0.25, 0.2, 0.15)))]
    height, width = picture.shape[:2]
    small = (max(8, round(width / factor)), max(8, round(height / factor)))
    reduced = Image.fromarray(picture).resize(small, Image.Resampling.LANCZOS)
    return np.asarray(reduced.resize((width, height), ENLARGING[method]))


def banded(picture: Picture, step: float, rng: np.random.Generator) -> Picture:
    """Fewer levels, `step` of 255 apart: on luma or each of R, G and B, everywhere or only where
    the picture is smooth, half of the time with a little dither.
    """
    on_luma, smooth_only, dithered = (rng.random(3) < (0.5, 0.5, 0.4)).tolist()
    spread = rng.uniform(0.1, 0.3)
    phase = rng.uniform(0, 1)
    source = picture.astype(np.float32)
    luma = (source @ LUMA)[..., None]
    values = luma if on_luma else source
    noise = np.float32(spread) * _normal(values.shape, rng) if dithered else np.float32(0)
    change = (np.floor(values / np.float32(step) + phase + noise) + 0.5 - phase) * step - values
    if smooth_only:
        change = change * _smooth(luma[..., 0])[..., None]
    return rounded(source + change)


def grained(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Film grain: on luma, in the middle tones, a little soft; sigma of 255."""
    grain = ndimage.gaussian_filter(_normal(picture.shape[:2], rng), 0.6)
    light = (picture.astype(np.float32) @ LUMA) / 255
    strength = np.float32(sigma) * (0.4 + 2.4 * light * (1 - light)) / grain.std()
    return rounded(picture + (strength * grain)[..., None])


def mixed(picture: Picture, damaged: Picture, mask: Floats) -> Picture:
    """The damaged picture where `mask` (h, w) is 1, the picture where it is 0."""
    share = mask[..., None]
    return rounded(picture * (1 - share) + damaged * share)


def _smooth(luma: Floats) -> Floats:
    mean = ndimage.uniform_filter(luma, 9)
    power = ndimage.uniform_filter(luma * luma, 9) - mean * mean
    calm = np.clip(1.6 - np.sqrt(np.maximum(power, 0)) / 6, 0, 1)
    return np.asarray(ndimage.uniform_filter(calm, 9), np.float32)


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    return rng.standard_normal(shape, np.float32)


def _convolved(picture: Picture, kernel: NDArray[np.floating]) -> Picture:
    reach = kernel.shape[0] // 2
    padded = np.pad(picture.astype(np.float32), ((reach, reach), (reach, reach), (0, 0)), "reflect")
    height, width = (fft.next_fast_len(n, real=True) for n in padded.shape[:2])
    response = fft.rfft2((kernel / kernel.sum()).astype(np.float32), (height, width))
    out = np.empty(picture.shape, np.float32)
    for i in range(3):
        plane = fft.irfft2(fft.rfft2(padded[..., i], (height, width)) * response, (height, width))
        out[..., i] = plane[2 * reach :, 2 * reach :][: picture.shape[0], : picture.shape[1]]
    return rounded(out)
