"""Silence, loudness and clipping, from the sound level of each second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

from vqmon.domain import AudioLevel, Finding, Traffic
from vqmon.signals.ledger import Ledger
from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track, found

SILENT_DBFS = -60.0
"""Below it a listener hears nothing at any usual volume; room tone of a live microphone and
dither lie above and below: -60 leaves 16-bit dither (-96) well inside."""

MUTE_DBFS = -120.0
SHORT_TERM_SECONDS = 3.0
"""EBU Tech 3341's sliding window for short-term loudness."""

LOUD_SECONDS = 10.0
QUIET_SECONDS = 30.0
"""Ten quiet seconds are drama, thirty are a fader left down."""

CLIPPING_SECONDS = 2.0
MISSING_SECONDS = 10.0
"""A stream that announces sound may deliver its first of it this late (poor interleaving)."""

GATE_LUFS = -70.0
"""BS.1770's absolute gate: below it there is no loudness to speak of."""


class Sound:
    """Feeds on `Traffic.audio`; `announced` says whether the format names a sound track."""

    def __init__(self, ledger: Ledger, *, expected: bool) -> None:
        self.expected = expected
        self.announced = False
        self._came = self._heard = False
        self._waited = 0.0
        self._ledger = ledger
        self._window: deque[AudioLevel] = deque(maxlen=64)
        self._silent = Track(least=SCALES["audio_silence"].limit)
        self._unheard = Track(least=SCALES["audio_unheard"].limit)
        self._loud = Track(least=LOUD_SECONDS, join=1.0)
        self._quiet = Track(least=QUIET_SECONDS, join=1.0, larger_is_worse=False)
        self._clipped = Track(least=CLIPPING_SECONDS, join=2.0)

    def traffic(self, traffic: Traffic) -> None:
        if not traffic.seconds:
            return
        begin, end = traffic.position - traffic.seconds, traffic.position
        level = traffic.audio or self._absence(traffic)
        if level is None:
            return
        self._came = self._came or traffic.audio is not None
        silent = level.rms_dbfs < SILENT_DBFS
        self._heard = self._heard or not silent
        self._switch(self._silent, begin, silent and self._heard)
        self._switch(self._unheard, begin, silent and not self._heard)
        self._loudness(begin, level, silent=silent)
        if 100 * level.clipped > SCALES["audio_clipping"].limit:
            self._clipped.mark(begin, end, 100 * level.clipped)

    def restart(self, position: float) -> None:
        """The connection was lost: what was wrong with the sound ended there."""
        for track in (self._silent, self._unheard, self._loud, self._quiet):
            track.finish(position)
        self._window.clear()
        self._waited = 0.0

    def findings(self, start: float, end: float) -> Iterator[Finding]:
        if not self.expected:
            return
        for cut in self._silent.cuts(start, end):
            yield found("audio_silence", cut, cut.so_far, 0.95)
        for cut in self._unheard.cuts(start, end):
            scale = SCALES["audio_unheard"]
            yield found("audio_silence", cut, cut.so_far, 0.5, scale=scale)
        for cut in self._loud.cuts(start, end):
            scale = SCALES["audio_loud"]
            yield found("audio_loudness", cut, cut.worst, 0.9, scale=scale, digits=1)
        for cut in self._quiet.cuts(start, end):
            scale = SCALES["audio_quiet"]
            yield found("audio_loudness", cut, cut.worst, 0.8, scale=scale, digits=1)
        for cut in self._clipped.cuts(start, end):
            yield found("audio_clipping", cut, cut.worst, 0.85)

    def facts(self, start: float, end: float) -> dict[str, Any]:
        """Loudness is the gated power mean of the segment's seconds; peak is the highest."""
        levels = [s.audio for s in self._ledger.seconds_in(start, end) if s.audio is not None]
        if not levels:
            return {}
        facts = {
            "audio_peak_dbfs": round(max(a.peak_dbfs for a in levels), 1),
            "audio_rms_dbfs": round(_power_mean([(a.rms_dbfs, a.seconds) for a in levels]), 1),
        }
        audible = [(a.loudness_lufs, a.seconds) for a in levels if a.loudness_lufs > GATE_LUFS]
        if audible:
            facts["audio_loudness_lufs"] = round(_power_mean(audible), 1)
        return facts

    def forget(self, before: float) -> None:
        for track in (self._silent, self._unheard, self._loud, self._quiet, self._clipped):
            track.forget(before)

    def _absence(self, traffic: Traffic) -> AudioLevel | None:
        """No sound came this second: muteness, when there was some or some was announced."""
        self._waited += traffic.seconds
        if self._came or (self.announced and self._waited > MISSING_SECONDS):
            return AudioLevel(
                traffic.position, traffic.seconds, MUTE_DBFS, MUTE_DBFS, MUTE_DBFS, 0.0
            )
        return None

    def _loudness(self, begin: float, level: AudioLevel, *, silent: bool) -> None:
        self._window.append(level)
        while sum(a.seconds for a in self._window) - self._window[0].seconds >= SHORT_TERM_SECONDS:
            self._window.popleft()
        loudness = _power_mean([(a.loudness_lufs, a.seconds) for a in self._window])
        quiet = not silent and loudness < SCALES["audio_quiet"].limit
        self._switch(self._loud, begin, loudness > SCALES["audio_loud"].limit, loudness)
        self._switch(self._quiet, begin, quiet, loudness)

    def _switch(self, track: Track, begin: float, faulty: bool, value: float = 0.0) -> None:
        if faulty:
            track.begin(begin, value)
        else:
            track.finish(begin)


def _power_mean(levels: list[tuple[float, float]]) -> float:
    """Of (decibels, seconds); the mean is of powers, as loudness is defined."""
    seconds = sum(s for _, s in levels)
    if seconds <= 0:
        return MUTE_DBFS
    power = sum(10 ** (db / 10) * s for db, s in levels) / seconds
    return max(MUTE_DBFS, 10 * math.log10(max(power, 1e-12)))
