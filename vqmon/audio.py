"""How loud sound is: level, peak, clipping, and K-weighted loudness (ITU-R BS.1770-5).

The two filters of the standard (a high shelf and a high pass) are applied to the power
spectrum of a whole block of about one second: by Parseval's theorem the weighted power is the
sum of |X|² |H|², so no sample loop is needed and a stereo second costs about a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import AudioLevel

SILENCE_DB = -120.0

FULL_SCALE = 32767 / 32768
"""A sample at or above this is clipped: the largest value of 16 bits."""

CHANNEL_WEIGHTS = {"LFE": 0.0, "LFE2": 0.0} | dict.fromkeys(("BL", "BR", "SL", "SR"), 1.41)
"""BS.1770: surrounds count +1.5 dB, the effects channel not at all, all others 1."""


def level(
    samples: NDArray[np.float32],
    rate: int,
    position: float = 0.0,
    channels: Sequence[str] = (),
) -> AudioLevel:
    """Measure one block.

    samples: (channels, n), full scale 1.0; n about one second. rate: samples per second.
    channels: FFmpeg's names ("FL", "LFE", ...) in order, where known.
    """
    power = np.einsum("cn,cn->c", samples, samples, dtype=np.float64) / samples.shape[1]
    magnitudes = np.abs(samples)
    weights = np.array([CHANNEL_WEIGHTS.get(name, 1.0) for name in channels] or [1.0])
    weighted = float((_k_weighted_power(samples, rate) * weights).sum())
    return AudioLevel(
        position=position,
        seconds=samples.shape[1] / rate,
        rms_dbfs=min(0.0, _decibel(float(power.mean()))),
        peak_dbfs=min(0.0, _decibel(float(magnitudes.max()) ** 2)),
        loudness_lufs=max(SILENCE_DB, _decibel(weighted) - 0.691),
        clipped=float(np.count_nonzero(magnitudes >= FULL_SCALE) / magnitudes.size),
    )


def _k_weighted_power(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Mean square of each channel after both filters, (channels,)."""
    n = samples.shape[1]
    spectrum = np.fft.rfft(samples, axis=1)
    power = spectrum.real**2 + spectrum.imag**2  # (channels, n // 2 + 1)
    result: NDArray[np.float64] = power @ _k_weights(n, rate)
    return result


@lru_cache(maxsize=16)
def _k_weights(n: int, rate: int) -> NDArray[np.float32]:
    """|H|² of both filters at each bin, scaled so that a dot product gives a mean square."""
    z = np.exp(2j * np.pi * np.arange(n // 2 + 1) / n)
    gain = np.abs(_response(_shelf(rate), z) * _response(_high_pass(rate), z)) ** 2
    gain[1 : (n + 1) // 2] *= 2  # the mirrored half of the spectrum
    return (gain / n**2).astype(np.float32)


def _response(
    filter_: tuple[Sequence[float], Sequence[float]], z: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    b, a = filter_
    result: NDArray[np.complex128] = np.polyval(b, z) / np.polyval(a, z)
    return result


def _shelf(rate: int) -> tuple[Sequence[float], Sequence[float]]:
    """Stage 1, the head's effect: +4 dB above about 1.7 kHz.

    BS.1770 tabulates coefficients for 48 kHz only; these analogue parameters reproduce its
    table to 1e-9 and serve every rate (De Man, "Evaluation of implementations of the EBU R128
    loudness measurement", AES 145, 2018).
    """
    f0, gain_db, q = 1681.9744509555319, 3.99984385397, 0.7071752369554193
    k = math.tan(math.pi * f0 / rate)
    vh = 10 ** (gain_db / 20)
    vb = vh**0.499666774155
    a0 = 1 + k / q + k * k
    b = ((vh + vb * k / q + k * k) / a0, 2 * (k * k - vh) / a0, (vh - vb * k / q + k * k) / a0)
    return b, (1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0)


def _high_pass(rate: int) -> tuple[Sequence[float], Sequence[float]]:
    """Stage 2, the revised low-frequency B-curve."""
    f0, q = 38.13547087613982, 0.5003270373253953
    k = math.tan(math.pi * f0 / rate)
    a0 = 1 + k / q + k * k
    return (1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0)


def _decibel(power: float) -> float:
    return max(SILENCE_DB, 10 * math.log10(power)) if power > 0 else SILENCE_DB
