"""Pictures of a segment: a thumbnail of each, a full set of those that deserve it.

A few frames of the segment in progress are held until it closes and shows what it is worth.
Frames are large (3.1 MB at 1080p, on top of the decoder's own), so only the newest are held as
decoded; older ones become the JPEG that would be written anyway.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from vqmon.domain import Frame, Segment
from vqmon.patches.shown import shown

if TYPE_CHECKING:
    import PIL.Image

log = logging.getLogger("vqmon.evidence")

THUMBNAIL_WIDTH = 320
THUMBNAIL_QUALITY = 80
FULL_SET_EVERY = 3600.0
"""Seconds between full sets of pictures of a stream in which nothing is wrong."""

DECODED_KEYFRAMES = 3
"""Frames held as decoded while only keyframes are decoded."""

DECODED_FRAMES = 1
"""The same while everything is decoded: the decoder itself then holds a dozen pictures more."""

_encoding = threading.Lock()
"""One picture at a time per process: at 1080p encoding takes 20 MB for 30 ms."""


class EvidenceKeeper:
    """Writes the pictures of one stream's segments below `folder`; see `vqmon.ports.Evidence`.

    A thumbnail of every segment, and a full set of up to `frames` pictures (the worst moment,
    the others evenly spread) of those with findings, of those that `around_alert` asks for, and
    (`hourly`) once an hour; also of those whose score is `uncertain` (points), or `below` a limit.
    allowed: asked all the time; False writes nothing (disk nearly full).

        <stream>/<YYYY-MM-DD>/<HHMMSS>-<id8>-{thumb,worst,1,2,3}.jpg       UTC
    """

    def __init__(
        self,
        folder: Path,
        stream_name: str,
        *,
        segment_seconds: float = 10.0,
        thumbnails: bool = True,
        frames: int = 4,
        quality: int = 95,
        hourly: bool = True,
        full_set_at: datetime | None = None,
        uncertain: float | None = None,
        below: Iterable[tuple[str, float]] = (),
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        """full_set_at: when an earlier keeper of this stream last wrote a full set. below:
        ("quality" or "quality_worst", limit).
        """
        self._folder = folder
        self._stream = stream_name
        self._thumbnails = thumbnails
        self._frames = frames
        self._quality = quality
        self._hourly = hourly
        self._allowed = allowed
        spread = max(1, frames - 1)
        self._moments = [(k + 0.5) / spread * segment_seconds for k in range(spread)]
        self._began = 0.0
        self._worst: _Shot | None = None
        self._spread: list[_Shot] = []
        self._full_set_at = full_set_at
        self._uncertain = float("inf") if uncertain is None else uncertain
        self._below = tuple(below)
        self._asked = 0
        self._failing = False

    def offer(self, frame: Frame, quality: float | None) -> None:
        """Keep the frame if it is the worst so far, or the nearest to one of the even moments."""
        if not (self._thumbnails or self._frames) or not self._allowed():
            return
        shot = _Shot(frame, frame.position, float("inf") if quality is None else quality)
        if self._worst is None:
            self._began, self._worst = frame.position, shot
            self._spread = [shot] * len(self._moments)
        elif shot.quality < self._worst.quality:
            self._worst = shot
        for index, moment in enumerate(self._moments):
            if shot.distance(self._began + moment) < self._spread[index].distance(
                self._began + moment
            ):
                self._spread[index] = shot
        self._save_memory(DECODED_KEYFRAMES if frame.key else DECODED_FRAMES)

    def around_alert(self, segments: int = 3) -> None:
        """Keep full sets of the segment in progress and of those after it, `segments` in all."""
        self._asked = max(self._asked, segments)

    def close(self, segment: Segment) -> Segment:
        """Write what the segment deserves and forget its frames."""
        worst, spread = self._worst, list(dict.fromkeys(self._spread))
        self._worst, self._spread = None, []
        if worst is None or not self._allowed():
            return segment
        typical = worst if segment.findings else spread[len(spread) // 2]
        stem = _stem(segment)
        thumbnail = self._keep(f"{stem}-thumb.jpg", typical.thumbnail) if self._thumbnails else None
        kept = tuple(self._full_set(stem, worst, spread)) if self._deserves(segment) else ()
        return replace(segment, thumbnail=thumbnail, evidence=kept)

    def _save_memory(self, decoded: int) -> None:
        """Turn the oldest frames into JPEG until at most `decoded` are held as they came."""
        held = dict.fromkeys(shot for shot in (self._worst, *self._spread) if shot)
        large = sorted((it for it in held if it.frame), key=lambda shot: shot.position)
        for shot in large[: max(0, len(large) - decoded)]:
            shot.compress(self._quality)

    def _deserves(self, segment: Segment) -> bool:
        """Whether this segment gets a full set of pictures."""
        asked, self._asked = self._asked > 0, max(0, self._asked - 1)
        last = self._full_set_at
        due = last is None or (segment.started_at - last).total_seconds() >= FULL_SET_EVERY
        wanted = segment.findings or asked or self._is_doubtful(segment) or (self._hourly and due)
        if not self._frames or not wanted:
            return False
        self._full_set_at = segment.started_at
        return True

    def _is_doubtful(self, segment: Segment) -> bool:
        """Whether its score alone makes somebody want to look."""
        if segment.uncertainty is not None and segment.uncertainty >= self._uncertain:
            return True
        scores = [(getattr(segment, which), limit) for which, limit in self._below]
        return any(score is not None and score < limit for score, limit in scores)

    def _full_set(self, stem: str, worst: _Shot, spread: Sequence[_Shot]) -> Iterator[str]:
        others = [shot for shot in spread if shot is not worst][: self._frames - 1]
        for name, shot in [("worst", worst), *enumerate(others, start=1)]:
            if path := self._keep(f"{stem}-{name}.jpg", partial(shot.jpeg, self._quality)):
                yield path

    def _keep(self, name: str, encode: Callable[[], bytes]) -> str | None:
        """Write one picture; its path relative to the folder, or None when that failed."""
        path = f"{folder_name(self._stream)}/{name}"
        try:
            _write_whole(self._folder / path, encode())
        except OSError as error:
            self._note_failure(error)
            return None
        if self._failing:
            self._failing = False
            log.info("evidence_written_again", extra={"stream": self._stream})
        return path

    def _note_failure(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            fields = {"stream": self._stream, "folder": str(self._folder), "error": str(error)}
            log.error("evidence_not_written", extra=fields)


@dataclass(slots=True, eq=False)
class _Shot:
    """A picture of the segment in progress. quality: infinite when it has no score."""

    frame: Frame | None
    position: float
    quality: float
    _full: bytes = b""
    _small: bytes = b""

    def distance(self, position: float) -> float:
        return abs(self.position - position)

    def compress(self, quality: int) -> None:
        """Give the frame back to the decoder."""
        self._full, self._small = self.jpeg(quality), self.thumbnail()
        self.frame = None

    def jpeg(self, quality: int) -> bytes:
        """The whole picture, upright, 4:4:4."""
        if self.frame is None:
            return self._full
        with _encoding:
            return _jpeg(shown(self.frame), quality, subsampling=0)

    def thumbnail(self) -> bytes:
        """The picture at most THUMBNAIL_WIDTH wide and high."""
        if self.frame is None:
            return self._small
        picture = shown(self.frame, reduce=max(1, self.frame.width // THUMBNAIL_WIDTH))
        picture.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
        return _jpeg(picture, THUMBNAIL_QUALITY, subsampling=2)


def folder_name(stream_name: str) -> str:
    """A stream's folder: its name, with everything escaped that means something in a path."""
    name = quote(stream_name, safe=" ")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _jpeg(picture: PIL.Image.Image, quality: int, *, subsampling: int) -> bytes:
    """subsampling: 0 is 4:4:4, 2 is 4:2:0."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _stem(segment: Segment) -> str:
    return f"{segment.started_at.astimezone(UTC):%Y-%m-%d/%H%M%S}-{segment.id[:8]}"


def _write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, folders included. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
