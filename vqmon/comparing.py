"""Which of two is better: files, streams and stored segments, in any mixture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon import likeness
from vqmon.domain import Assessment, Comparison, Frame, Segment
from vqmon.errors import ScorerError, VqmonError
from vqmon.explain import comparison as explained
from vqmon.files import SAMPLE_EVERY, FileResult, as_segment, score_file, summed_up
from vqmon.likeness import Bits, Glimpses
from vqmon.patches.shown import shown
from vqmon.ports import Scorer, SegmentStore

SAME_SHARE = 0.5
"""Both show the same content when at least this share of pictures has a counterpart."""

LOOKS = 3
"""Pairs of pictures that a model which looks at both is shown; each takes it seconds, twice."""

ID_LETTERS = frozenset("0123456789abcdef")
ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: what was seen of it, and hashes of its pictures.

    stored: None for what was scored just now. pictures: some, evenly spread, (h, w, 3) uint8
    R'G'B', for a model that looks at both; else none.
    """

    result: FileResult
    hashes: Sequence[Bits] = ()
    stored: Segment | None = None
    pictures: Sequence[NDArray[np.uint8]] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides and what came out; `found.reason` is the chain of steps.

    alike: (n, of) pictures with a counterpart on the other side; None without pictures.
    looked: what a model that writes says when it sees both; None for other models.
    """

    a: Side
    b: Side
    found: Comparison
    alike: tuple[int, int] | None = None
    looked: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What to compare with. Scorer and store are asked for only when they are needed.

    store: opens the database for reading; evidence_dir: where stored pictures lie.
    duration: how long streams are watched, seconds; every: between two scored pictures of a file.
    """

    scorer: Callable[[], Scorer]
    store: Callable[[], AbstractContextManager[SegmentStore]]
    evidence_dir: Path
    duration: float = 10.0
    every: float = SAMPLE_EVERY
    watched: Callable[[str], None] = field(default=lambda _name: None)


def compare(a: str, b: str, means: Means) -> Compared:
    """Compare what two texts name: a file, a URL, or the id of a stored segment (its beginning
    is enough). A file of that name goes before an id. Streams are watched at the same time.

    The certainty is calculated by the scorer from both uncertainties (see
    `vqmon.scorers.comparison.compare`). Two renditions of one content are paired: most of what
    the model misjudges it misjudges on both, so the difference is far surer than either score.
    Whether the content is the same is told from the pictures: at least half of those of the side
    with fewer must have a near counterpart on the other side, by hashes that survive coding and
    scaling. Without pictures (stored segments whose thumbnails are gone) it counts as different,
    which errs on the side of "similar".

    Raises VqmonError when one names nothing, has no score, or was scored by another model.
    """
    kinds = [kind(it) for it in (a, b)]
    scorer = means.scorer() if set(kinds) != {"segment"} else None
    left, right = _seen([(a, kinds[0]), (b, kinds[1])], scorer, means)
    for letter, side in (("A", left), ("B", right)):
        _check_scored(letter, side)
    _check_models(left, right)
    alike = likeness.counterparts(left.hashes, right.hashes)
    return _judged(left, right, alike, scorer or _scorer_of(left.result.model, means))


def as_json(compared: Compared) -> dict[str, Any]:
    """What `vqmon compare --json` prints."""
    found = compared.found
    return {
        "better": found.better,
        "margin": round(found.margin, 2),
        "probability": round(found.probability, 4),
        "spread": None if found.spread is None else round(found.spread, 2),
        "same_content": _same(compared.alike),
        "reason": found.reason,
        "looked": _looked_json(compared.looked),
        "a": _side_json(compared.a),
        "b": _side_json(compared.b),
    }


def kind(text: str) -> str:
    """file, url or segment, by looks: what exists is a file."""
    from vqmon.sources import SCHEMES

    if Path(text).exists():
        return "file"
    scheme, colon, _ = text.partition(":")
    if colon and (scheme.lower() in SCHEMES or "://" in text):
        return "url"
    if text and len(text) <= ID_LENGTH and set(text.lower()) <= ID_LETTERS:
        return "segment"
    raise VqmonError(
        f"{text}: no such file. Name a file, a URL, or the id of a stored segment as `vqmon "
        "streams --json` and `vqmon report --format json` print it"
    )


def _seen(named: Sequence[tuple[str, str]], scorer: Scorer | None, means: Means) -> list[Side]:
    """Both sides; two streams at once, since what they show passes by."""
    if [kind for _, kind in named] == ["url", "url"] and scorer is not None:
        return _watched_together([url for url, _ in named], scorer, means)
    return [_one(text, kind, scorer, means) for text, kind in named]


def _one(text: str, kind: str, scorer: Scorer | None, means: Means) -> Side:
    from vqmon.sources import redact

    means.watched(redact(text))
    if kind == "segment" or scorer is None:
        return _stored(text, means)
    glimpses = Looks() if hasattr(scorer, "prefer") else Glimpses()
    if kind == "file":
        result = score_file(text, scorer, sample_every=means.every, evidence=glimpses)
    else:
        from vqmon.probe import probe

        result = probe(text, scorer, duration=means.duration, evidence=glimpses).result
    pictures = glimpses.pictures if isinstance(glimpses, Looks) else ()
    return Side(result, glimpses.hashes, pictures=pictures)


class Looks(Glimpses):
    """Keeps some of the pictures as well, evenly spread over all that were offered."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[NDArray[np.uint8]] = []
        self._offered, self._stride = 0, 1

    def offer(self, frame: Frame, quality: float | None) -> None:
        super().offer(frame, quality)
        if self._offered % self._stride == 0:
            self.pictures.append(np.asarray(shown(frame), np.uint8))
        self._offered += 1
        if len(self.pictures) > 2 * LOOKS:
            self.pictures, self._stride = self.pictures[::2], 2 * self._stride


def _watched_together(urls: Sequence[str], scorer: Scorer, means: Means) -> list[Side]:
    """Threads that end with the program, so that Ctrl-C does not wait for a silent source."""
    done: dict[int, Side | BaseException] = {}

    def watch(place: int) -> None:
        try:
            done[place] = _one(urls[place], "url", scorer, means)
        except BaseException as error:  # handed on below, in the caller's thread
            done[place] = error

    threads = [
        threading.Thread(target=watch, args=(place,), daemon=True) for place in range(len(urls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seen in done.values():
        if isinstance(seen, BaseException):
            raise seen
    return [seen for _, seen in sorted(done.items()) if isinstance(seen, Side)]


def _stored(beginning: str, means: Means) -> Side:
    with means.store() as store:
        segment = store.segment(beginning.lower())
    if segment is None:
        raise VqmonError(
            f"{beginning}: neither a file nor the beginning of a stored segment's id; "
            "`vqmon report --format json` lists ids"
        )
    result = summed_up(_title(segment), [segment])
    return Side(result, _hashes_of(segment, means.evidence_dir), segment)


def _title(segment: Segment) -> str:
    return f"{segment.stream} at {segment.started_at:%Y-%m-%d %H:%M:%S} UTC ({segment.id[:8]})"


def _hashes_of(segment: Segment, folder: Path) -> list[Bits]:
    """Of the stored pictures that are still there."""
    from PIL import Image

    paths = [it for it in (segment.thumbnail, *segment.evidence) if it]
    hashes = []
    for path in paths:
        with suppress(OSError), Image.open(folder / path) as picture:
            hashes.append(likeness.upright_hash(np.asarray(picture.convert("L"))))
    return hashes


def _check_scored(letter: str, side: Side) -> None:
    if not side.result.scored:
        raise VqmonError(
            f"{letter}, {side.result.source}, has no score ({side.result.no_score_reason}): "
            f"{side.result.message}. There is nothing to compare"
        )


def _check_models(a: Side, b: Side) -> None:
    """Scales of different models, or versions of one, are not the same."""
    if a.result.model == b.result.model:
        return
    models = f"A was scored by {a.result.model}, B by {b.result.model}"
    if a.stored and b.stored:
        remedy = "compare segments of one model, or files: evidence pictures and clips of both"
    else:
        stored = a if a.stored else b
        remedy = (
            f"give --model with the folder of {stored.result.model}, so that it scores the other "
            "side too"
        )
    raise VqmonError(f"{models}: these scores cannot be compared; {remedy}")


def _scorer_of(model: str | None, means: Means) -> Scorer | None:
    """The scorer that made stored scores, if that is the one at hand; it compares best."""
    with suppress(ScorerError):
        scorer = means.scorer()
        return scorer if scorer.model == model else None
    return None


def _judged(a: Side, b: Side, alike: tuple[int, int] | None, scorer: Scorer | None) -> Compared:
    from vqmon.scorers.comparison import SHARED_ERROR
    from vqmon.scorers.comparison import compare as by_score

    sides = [_assessed(a)], [_assessed(b)]
    same = bool(_same(alike))
    if scorer is not None:
        found = scorer.compare(*sides, same_content=same)
    else:
        found = by_score(*sides, shared=SHARED_ERROR if same else 0.0)
    names = a.result.source, b.result.source
    reason = explained(as_segment(a.result), as_segment(b.result), found, names=names, alike=alike)
    return Compared(a, b, replace(found, reason=reason), alike, _looked(a, b, scorer))


def _looked(a: Side, b: Side, scorer: Any) -> Comparison | None:
    """What a model says that sees both at once; None when it cannot, or says nothing."""
    count = min(LOOKS, len(a.pictures), len(b.pictures))
    if not count:
        return None
    pairs = [
        [side.pictures[k * len(side.pictures) // count] for k in range(count)] for side in (a, b)
    ]
    with suppress(ScorerError):
        found: Comparison = scorer.prefer(*pairs)
        return found
    return None


def _same(alike: tuple[int, int] | None) -> bool | None:
    return None if alike is None else alike[0] >= SAME_SHARE * alike[1]


def _assessed(side: Side) -> Assessment:
    """One assessment for the whole side, so that the margin is the difference of what is shown."""
    frames = [frame for segment in side.result.segments for frame in segment.outputs]
    names = set.intersection(*(set(frame) for frame in frames)) if frames else set()
    return Assessment(
        position=0.0,
        quality=side.result.quality,
        uncertainty=side.result.uncertainty,
        findings=side.result.findings,
        outputs={name: _mean([frame[name] for frame in frames]) for name in sorted(names)},
        model=side.result.model,
    )


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(np.mean(np.asarray(rows, np.float64), axis=0).tolist())


def _looked_json(looked: Comparison | None) -> dict[str, Any] | None:
    if looked is None:
        return None
    probability = round(looked.probability, 4)
    return {"better": looked.better, "probability": probability, "reason": looked.reason}


def _side_json(side: Side) -> dict[str, Any]:
    from vqmon import files

    whole = files.as_json(side.result)
    kept = ("source", "quality", "uncertainty", "model", "findings", "explanation")
    told = {name: whole[name] for name in kept}
    stored = side.stored
    return told | {
        "segment": stored.id if stored else None,
        "stream": stored.stream if stored else None,
        "started_at": stored.started_at.isoformat() if stored else None,
    }
