"""Freeze: the picture stands although the stream goes on.

What makes a freeze is not that the picture is still but that it is *stiller than this stream
ever is*: a sensor's noise, encoded anew in every keyframe, never comes back twice. Three lanes
carry evidence:

    dense pictures   the change from each to the next, against the stream's own low tenth
    keyframes        the change from each to the next; a live source differs by its noise,
                     a stopped one only by the encoder's rounding
    packets          sizes between keyframes; they tell when motion stopped

A run of still pictures is a freeze when

    A  a picture that was moving everywhere stopped everywhere: 2 s, all seen densely
    B  1.5 s were seen densely, and a keyframe within came back the same: 2 s
    C  little was seen densely, but three keyframes in a row show one picture: 10 s where motion
       stopped in the packets, else 30 s, and only where they came back exactly, in a stream that
       was never seen to move between such keyframes (a short loop does)
    D  there is no keyframe to ask: 30 s, and three times longer than it was ever still before

and never once a keyframe within comes back different by the stream's own noise. A run that
begins with a cut, or with the watch itself, is more likely a still than a stopped picture: it
must last 10 s, and if it looks drawn it is no freeze at all but maybe a slate (`slate.py`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from vqmon.domain import Frame
from vqmon.signals.activity import Activity
from vqmon.signals.baseline import PAIRS_KEPT, Baseline
from vqmon.signals.changes import Change, Grid, change, drawn
from vqmon.signals.holds import Holds
from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track

STILL_PEAK = 1.5
"""No block of a still pair changes more than this (of 255)."""

POP_MEAN, POP_PEAK = 2.0, 4.0
"""A keyframe may differ this much from the picture before it without any motion ..."""

POPS_FREE, POPS_SHARE = 2, 0.2
"""... and so may a few pictures beside it: those shown before it that already lean on it (open
GOPs), those after it that refine it. Once a keyframe came back exactly, all of them may."""

SAME_EXACT = 0.05
SAME_MOST, SAME_SHARE = 0.3, 0.4
"""Keyframes that differ by less than SAME_EXACT show the same picture; those up to SAME_MOST do
when that is also less than SAME_SHARE of what keyframes of the stream differ by at the least."""

FAR_SHARE = 0.08
"""Where packets say that motion stopped, so much of that least difference is the same picture,
too: of streams whose pictures usually differ by far more than any noise."""

ALIVE_LEAST, ALIVE_SHARE = 0.15, 0.6
"""From here on, and from this share of that least difference, a keyframe proves a live source."""

SOON, LATER, LATEST = SCALES["freeze"].limit, 10.0, 30.0
DENSE_PROOF = 1.5
DENSE_SHARE = 0.85
KEYS_PROOF = 2

Entry = Literal["stop", "cut", "unknown"]


@dataclass(slots=True)
class Run:
    """Pictures that stay the same.

    start: of the first repetition; shown: of the picture repeated.
    entry: what came before: motion that stopped, a cut, or nothing (the watch began).
    drawn: whether it looks drawn. busy: whether everything moved until then.
    dense: seconds seen densely. pictures: how many; pops: those that the encoder touched up.
    keys: keyframes that followed one in the run; same: those that showed the same picture as
    that one; exact: those that did exactly. pairs: the last changes.
    """

    start: float
    shown: float
    entry: Entry
    drawn: bool
    busy: bool | None
    dense: float = 0.0
    pictures: int = 0
    pops: int = 0
    keys: int = 0
    same: int = 0
    exact: int = 0
    pairs: deque[Change] = field(default_factory=lambda: deque(maxlen=PAIRS_KEPT))


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as far as stillness needs it."""

    position: float
    samples: Grid
    key: bool


@dataclass(frozen=True, slots=True)
class Step:
    """From one decoded picture to the next.

    pair: change since the last picture, None when the size changed. since_key: for keyframes,
    the change since the last one, which stood at key_position. gap: seconds since the last
    picture; dense: as in `Stillness.picture`.
    """

    last: Seen
    now: Seen
    pair: Change | None
    since_key: Change | None
    key_position: float
    dense: bool

    @property
    def gap(self) -> float:
        return self.now.position - self.last.position


class Stillness:
    """Feed every decoded picture in order; read the track `freeze`, and `holds`.

    The worst value of `freeze` is its confidence. key_motion: how much the last keyframe
    differed from the one before; pair: how the last picture differed from the one before.
    """

    def __init__(self, activity: Activity) -> None:
        self.freeze = Track()
        self.holds = Holds()
        self.key_motion: float | None = None
        self.pair: Change | None = None
        self._activity = activity
        self._baseline = Baseline()
        self._last: Seen | None = None
        self._last_key: Seen | None = None
        self._run: Run | None = None
        self._last_move: Step | None = None
        self._small_since_key = False
        self._moved_since_key = self._loops = False
        self._drawn_before = False
        self._drawn_at = float("-inf")
        self._longest = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether a freeze is likely but not proved."""
        if self.freeze.on:
            return False
        return self._activity.collapsed or (self._run is not None and self._run.same > 0)

    def picture(self, frame: Frame, samples: Grid, *, dense: bool) -> None:
        """The next decoded picture; dense: nothing worth a look was left out before it."""
        last, key = self._last, self._last_key
        now = self._last = Seen(frame.position, samples, frame.key)
        if frame.key:
            self._last_key = now
        if last is None:
            self.pair = None
            return
        since_key = change(key.samples, samples) if key is not None and frame.key else None
        if frame.key:
            self.key_motion = since_key.mean if since_key else None
        key_position = key.position if key else float("-inf")
        self.pair = change(last.samples, samples)
        step = Step(last, now, self.pair, since_key, key_position, dense)
        self._small_since_key = self._small_since_key and dense and _is_small(self.pair)
        if self._is_still(step):
            self._stay(step)
        else:
            self._move(step)
        if frame.key:
            self._small_since_key = True
            self._note_loop(since_key)

    def interrupt(self, position: float) -> None:
        """The picture is gone, or black: whatever was still is over."""
        self.freeze.finish(position)
        self._run = self._last = self._last_key = self._last_move = None

    def forget(self, before: float) -> None:
        self.freeze.forget(before)
        self.holds.track.forget(before)

    def _note_loop(self, since_key: Change | None) -> None:
        """Whether keyframes come back although it moves between them, and so prove nothing."""
        if since_key is not None:
            if not _is_small(since_key):
                self._loops = False
            elif self._moved_since_key:
                self._loops = True
        self._moved_since_key = False

    def _is_still(self, step: Step) -> bool:
        if step.pair is None:
            return False
        if not step.dense:
            key_change = step.since_key or step.pair
            return self._same(key_change)
        if self._is_quiet(step.pair):
            return True
        if not _is_small(step.pair):
            return False
        if self._run is None:
            return self._returned(step)
        return self._is_pop(self._run, step)

    def _is_quiet(self, pair: Change) -> bool:
        return pair.mean <= self._baseline.still and pair.peak <= STILL_PEAK

    def _returned(self, step: Step) -> bool:
        """Whether a keyframe is exactly the last one, with no more than refinement between."""
        both = step.since_key
        return both is not None and both.mean <= SAME_EXACT and self._small_since_key

    def _is_pop(self, run: Run, step: Step) -> bool:
        """Whether only the encoder changed something: a keyframe and what leans on it."""
        if self._alive(run, step):
            return False
        free = POPS_FREE + POPS_SHARE * run.pictures
        return bool(run.exact) or _is_key_alone(step) or run.pops < free

    def _same(self, key_change: Change) -> bool:
        """Whether two keyframes show one picture, told apart only by the encoder's rounding."""
        mean, floor = key_change.mean, self._baseline.floor or 0.0
        if not _is_small(key_change):
            return False
        if self._activity.collapsed and mean <= FAR_SHARE * floor:
            return True
        return mean <= SAME_EXACT or mean <= min(SAME_MOST, SAME_SHARE * floor)

    def _alive(self, run: Run, step: Step) -> bool:
        """Whether a keyframe in a run shows the noise of a source that goes on."""
        both = step.since_key if step.key_position >= run.shown else None
        if both is None or both.mean < ALIVE_LEAST:
            return False
        floor = self._baseline.floor
        return not run.busy if floor is None else both.mean >= ALIVE_SHARE * floor

    def _stay(self, step: Step) -> None:
        run = self._run = self._run or self._begin(step)
        if step.dense and step.key_position < run.shown and self._returned(step):
            run.start = run.shown = step.key_position  # nothing moved since that keyframe
            run.dense = step.last.position - step.key_position
        run.pictures += 1
        if step.dense and step.pair is not None:
            run.dense += step.gap
            run.pairs.append(step.pair)
            run.pops += not (_is_key_alone(step) or self._is_quiet(step.pair))
        if step.since_key is not None and step.key_position >= run.shown:
            same = self._same(step.since_key)
            run.keys += 1
            run.same += same
            run.exact += same and step.since_key.mean <= SAME_EXACT
            if not same:
                self._baseline.add_key(step.since_key.mean)
        if not self.freeze.on:
            self._judge(run, step.now.position)

    def _begin(self, step: Step) -> Run:
        """The first still pair; where nothing was seen densely, packets tell when it began."""
        made, move = drawn(step.now.samples), self._last_move
        entry: Entry = "stop"
        if move is None:
            entry = "unknown"
        elif (move.dense and self._baseline.cuts(move.pair)) or (made and not self._drawn_before):
            entry = "cut"
        start, shown = step.now.position, step.last.position
        if not step.dense:
            before = move.last.position if move else shown
            start = self._activity.stopped(before, shown) or shown
        return Run(start, shown, entry, made, self._baseline.busy)

    def _judge(self, run: Run, now: float) -> None:
        lasted = now - run.start
        if run.entry != "stop" and (run.drawn or lasted < LATER):
            return
        confidence = self._proof(run, lasted)
        if confidence:
            self.freeze.begin(run.start, confidence)

    def _proof(self, run: Run, lasted: float) -> float:
        """Confidence that a run is a freeze by one of the rules A to D; 0 when it is none yet."""
        densely = run.dense >= DENSE_SHARE * lasted
        if lasted >= SOON and run.busy and densely:
            return 0.95
        if lasted >= SOON and run.same and run.dense >= DENSE_PROOF:
            return 0.9
        if lasted >= LATER and run.same >= KEYS_PROOF and self._activity.collapsed:
            return 0.6
        if lasted >= LATEST and run.exact >= KEYS_PROOF and not self._loops:
            return 0.6
        if lasted >= max(LATEST, 3 * self._longest) and densely and not run.keys:
            return 0.6
        return 0.0

    def _move(self, step: Step) -> None:
        run, self._run = self._run, None
        self._moved_since_key = self._moved_since_key or (step.dense and not _is_small(step.pair))
        if run is not None:
            self._end(run, step)
        if step.pair is not None and step.dense and not step.now.key:
            self._baseline.add([step.pair])
        if step.since_key is not None:
            self._baseline.add_key(step.since_key.mean)
        if step.now.position - self._drawn_at >= 1.0:
            self._drawn_before, self._drawn_at = drawn(step.last.samples), step.now.position
        if step.dense and run is None:
            self.holds.usual(step.gap)
        self._last_move = step

    def _end(self, run: Run, step: Step) -> None:
        """Something moves again; only if everything does, the run says nothing of the stream."""
        now, back = step.now.position, self._baseline.moves(step.pair)
        frozen = self.freeze.on
        if frozen:
            resumed = None if step.dense else self._activity.resumed(step.last.position, now)
            self.freeze.finish(resumed or now)
        if not (run.busy and back) and not (frozen and not step.dense):
            self._baseline.add(run.pairs)
        if frozen or run.dense < DENSE_SHARE * (now - run.start):
            return
        self._longest = max(self._longest, now - run.start)
        if run.busy and back and run.entry == "stop":
            self.holds.held(run.shown, now)


def _is_small(pair: Change | None) -> bool:
    """Whether a change may be the encoder's alone."""
    return pair is not None and pair.mean <= POP_MEAN and pair.peak <= POP_PEAK


def _is_key_alone(step: Step) -> bool:
    """A keyframe among others; where all pictures are keyframes, none is special."""
    return step.now.key and not step.last.key
