"""Faults that decoded pictures show: black, damage, freeze, holds, slates."""

from __future__ import annotations

from collections.abc import Iterator

from vqmon.domain import Finding, Frame
from vqmon.signals.activity import Activity
from vqmon.signals.changes import grid
from vqmon.signals.ledger import Ledger, percent
from vqmon.signals.limits import SCALES
from vqmon.signals.slate import Slate, moving
from vqmon.signals.spans import Track, found
from vqmon.signals.stillness import Stillness
from vqmon.signals.transport import GRACE_SECONDS

DAMAGE_JOIN = 2.0


class Pictures:
    """Feeds on every decoded frame; `still_pictures` silences freeze and slate."""

    def __init__(self, ledger: Ledger, activity: Activity, *, still_pictures: bool) -> None:
        self.black = Track(least=SCALES["black"].limit)
        self.damage = Track(join=DAMAGE_JOIN)
        self.stillness = Stillness(activity)
        self.slate = Slate()
        self._still_pictures = still_pictures
        self._ledger = ledger
        self._joined = 0.0

    def picture(self, frame: Frame, *, black: bool, dense: bool) -> float | None:
        """The next one; returns how much a keyframe differs from the one before, if any."""
        position = frame.position
        self._switch(self.black, position, black)
        damaged = frame.corrupt and position >= self._joined + GRACE_SECONDS
        self._switch(self.damage, position, damaged)
        if black:
            self.stillness.interrupt(position)
            self.slate.interrupt(position)
            return None
        samples = grid(frame)
        self.stillness.picture(frame, samples, dense=dense)
        if self.stillness.freeze.on:
            self.slate.interrupt(position)
        else:
            self.slate.picture(position, samples, moving=moving(self.stillness.pair))
        return self.stillness.key_motion if frame.key else None

    @property
    def stands(self) -> bool:
        """Whether a picture is known to stand still."""
        return self.stillness.freeze.on or self.slate.track.on

    @property
    def stopped(self) -> bool:
        """Whether motion seems to have stopped, and nothing says yet what it is."""
        return self.stillness.doubtful and not self.stands

    def joined(self, position: float) -> None:
        """The stream was (re)opened here; its first pictures may be damaged by that alone."""
        self._joined = position

    def restart(self, position: float) -> None:
        """The connection was lost: what the last picture showed ended there."""
        self.black.finish(position)
        self.damage.finish(position)
        self.stillness.interrupt(position)
        self.slate.interrupt(position)

    def findings(self, start: float, end: float) -> Iterator[Finding]:
        for cut in self.black.cuts(start, end):
            yield found("black", cut, cut.so_far, 0.98)
        shown = self._ledger.pictures_shown(start, end)
        share = percent(sum(p.corrupt for p in shown), len(shown))
        for cut in self.damage.cuts(start, end):
            yield found("corrupted", cut, share, 0.95, digits=1)
        for cut in self.stillness.holds.track.cuts(start, end):
            yield found("stutter", cut, cut.worst, 0.8)
        if self._still_pictures:
            return
        for cut in self.stillness.freeze.cuts(start, end):
            yield found("freeze", cut, cut.so_far, cut.worst)
        for cut in self.slate.track.cuts(start, end):
            yield found("slate", cut, cut.so_far, 0.8)

    def forget(self, before: float) -> None:
        self.black.forget(before)
        self.damage.forget(before)
        self.slate.track.forget(before)
        self.stillness.forget(before)

    def _switch(self, track: Track, position: float, faulty: bool) -> None:
        if faulty:
            track.begin(position)
        else:
            track.finish(position)
