"""Loudness, level and clipping of a block of sound."""

from __future__ import annotations

import time
from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vqmon.audio import level


def tone(
    hertz: float, amplitude: float = 0.5, channels: int = 2, rate: int = 48000
) -> NDArray[np.float32]:
    wave = amplitude * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def ebur128(samples: NDArray[np.float32], rate: int, layout: str) -> float:
    """Loudness by FFmpeg's own meter: the integrated value of the block, repeated for 3 s."""
    graph = av.filter.Graph()
    source = graph.add(
        "abuffer",
        f"sample_rate={rate}:sample_fmt=fltp:channel_layout={layout}:time_base=1/{rate}",
    )
    meter = graph.add("ebur128", "metadata=1")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    last = 0.0
    for second in range(4):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = second * samples.shape[1]
        graph.push(frame)
        while True:
            try:
                out = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            last = float(out.metadata.get("lavfi.r128.S", last))
    return last


@pytest.mark.parametrize("hertz", [40, 100, 440, 997, 3000, 10000])
def test_loudness_agrees_with_ffmpeg_at_every_pitch(hertz: float) -> None:
    """The K-weighting in the spectrum is the standard's filter, not an approximation of it."""
    samples = tone(hertz)

    measured = level(samples, 48000).loudness_lufs

    assert measured == pytest.approx(ebur128(samples, 48000, "stereo"), abs=0.15)


@pytest.mark.parametrize("rate", [44100, 32000])
def test_loudness_agrees_with_ffmpeg_at_other_sample_rates(rate: int) -> None:
    """The filter is designed for the stream's rate; the standard's table is for 48 kHz only."""
    noise = np.random.default_rng(2).normal(0, 0.1, (2, rate)).astype(np.float32)

    measured = level(noise, rate).loudness_lufs

    assert measured == pytest.approx(ebur128(noise, rate, "stereo"), abs=0.2)


def test_surround_channels_are_weighted_as_the_standard_says() -> None:
    """A loud effects channel counts nothing, surrounds count more."""
    noise = np.random.default_rng(3).normal(0, 0.05, (6, 48000)).astype(np.float32)
    names = ["FL", "FR", "FC", "LFE", "SL", "SR"]

    measured = level(noise, 48000, channels=names).loudness_lufs

    assert measured == pytest.approx(ebur128(noise, 48000, "5.1(side)"), abs=0.2)


def test_a_full_scale_sine_of_997_hz_is_minus_3_lufs() -> None:
    """The calibration point of BS.1770: one channel at 0 dBFS reads -3.01 LKFS."""
    samples = tone(997, amplitude=1.0, channels=1)

    measured = level(samples, 48000)

    assert measured.loudness_lufs == pytest.approx(-3.01, abs=0.05)
    assert measured.rms_dbfs == pytest.approx(-3.01, abs=0.02)
    assert measured.peak_dbfs == pytest.approx(0, abs=0.01)


def test_digital_silence_has_a_floor_and_no_logarithm_of_zero() -> None:
    """A muted stream is the commonest sound fault; it must be a number."""
    measured = level(np.zeros((2, 48000), np.float32), 48000)

    assert (measured.rms_dbfs, measured.peak_dbfs, measured.loudness_lufs) == (-120, -120, -120)


def test_the_share_of_clipped_samples_is_counted() -> None:
    """A quarter of the samples stands at full scale, on either side."""
    samples = np.zeros((1, 1000), np.float32)
    samples[0, :125] = 1.0
    samples[0, 125:250] = -32768 / 32768

    assert level(samples, 48000).clipped == 0.25


def test_levels_never_exceed_full_scale_although_decoders_overshoot() -> None:
    """AAC decodes to more than 1.0; the contract says at most 0 dBFS."""
    samples = np.full((2, 48000), 1.4, np.float32)

    measured = level(samples, 48000)

    assert measured.rms_dbfs <= 0
    assert measured.peak_dbfs <= 0
    assert measured.clipped == 1.0


def test_a_stereo_second_costs_little() -> None:
    """Sound is measured for every stream all the time; 2 ms are budgeted, four times allowed
    here because the machine may be busy.
    """
    noise = np.random.default_rng(4).normal(0, 0.1, (2, 48128)).astype(np.float32)
    level(noise, 48000)

    began = time.process_time()
    for _ in range(20):
        level(noise, 48000)

    assert (time.process_time() - began) / 20 < 0.008
