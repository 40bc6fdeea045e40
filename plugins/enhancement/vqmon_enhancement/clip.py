"""What a clip is before anything is done to it, and why it may have to be left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av

from vqmon import VqmonError

LOOKED_AT = 60
"""Pictures in which fields are looked for."""

COMBED_SHARE = 0.5
"""A clip whose pictures show fields in at least this share is interlaced, whatever it says."""

_PQ, _HLG = 16, 18
_FORMATS = frozenset({"yuv420p", "yuvj420p"})
_FIRST_FIELDS = {"top first": "tff", "bottom first": "bff"}


class Unfit(VqmonError):
    """This clip cannot be enhanced; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A file with video that filters can work on.

    start: seconds of the container's own time at which it begins. seconds: 0 when unknown.
    rate: pictures per second, 0 when unknown. fields: tff or bff of an interlaced clip, else "".
    """

    path: Path
    width: int
    height: int
    start: float
    seconds: float
    rate: float
    fields: str = ""

    @property
    def pixels(self) -> int:
        return self.width * self.height


def examine(path: Path) -> Clip:
    """Read the head of a file. Raises Unfit, also for a file that is none."""
    with opened(path) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise Unfit(f"{path}: holds no video")
        context = stream.codec_context
        pictures = list(islice(_pictures(container, stream, path), LOOKED_AT))
        if not pictures:
            raise Unfit(f"{path}: not one picture can be decoded")
        first = pictures[0]
        if len(pictures) == 1:
            raise Unfit(f"{path}: a single picture; clips are enhanced, not photographs")
        _check(path, first)
        start, seconds = _times(container)
        rate = float(stream.average_rate or stream.guessed_rate or context.framerate or 0)
        return Clip(
            path, first.width, first.height, start, seconds, rate, _fields(stream, pictures)
        )


def times(path: Path) -> tuple[float, float]:
    """Where a file begins in its own time, and how long it is, seconds. Raises Unfit."""
    with opened(path) as container:
        return _times(container)


def _times(container: Any) -> tuple[float, float]:
    return (container.start_time or 0) / av.time_base, (container.duration or 0) / av.time_base


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A local file as a container. Raises Unfit."""
    try:
        # An absolute path is never read as a URL, and what a playlist names is not fetched.
        container = av.open(
            str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="ignore"
        )
    except (OSError, ValueError, av.FFmpegError) as error:
        raise Unfit(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    with container:
        yield container


def _pictures(container: Any, stream: Any, path: Path) -> Iterator[av.VideoFrame]:
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise Unfit(f"{path}: cannot be decoded: {error.strerror}") from error


def _check(path: Path, picture: Any) -> None:
    """Refuse what these filters, or the encoder behind them, would spoil."""
    if picture.color_trc in (_PQ, _HLG):
        raise Unfit(f"{path}: HDR (PQ or HLG); the filters know standard range only")
    name = picture.format.name
    if name not in _FORMATS:
        bits = max(part.bits for part in picture.format.components)
        what = f"{bits} bits a sample" if bits > 8 else f"pixel format {name}"
        raise Unfit(
            f"{path}: {what}; only 8-bit 4:2:0 is enhanced, since converting would cost quality "
            "of its own. Convert it first if that is acceptable"
        )
    if picture.width % 2 or picture.height % 2:
        raise Unfit(
            f"{path}: {picture.width}x{picture.height}; 4:2:0 H.264 needs even sides. Crop a line "
            "or a column first"
        )


def _fields(stream: Any, pictures: list[Any]) -> str:
    """Which field comes first, "" for whole pictures: as the stream says, else as it looks."""
    seen = _combing(stream, pictures)
    if not any(it.interlaced_frame for it in pictures):
        found, count = seen.most_common(1)[0] if seen else ("", 0)
        return found if count >= COMBED_SHARE * len(pictures) else ""
    return max(_FIRST_FIELDS.values(), key=lambda it: (seen[it], it))


def _combing(stream: Any, pictures: list[Any]) -> Counter[str]:
    """In how many pictures the lines of two moments alternate, by the field that is earlier."""
    graph = av.filter.Graph()
    first = pictures[0]
    graph.link_nodes(
        graph.add_buffer(stream, format=first.format, width=first.width, height=first.height),
        graph.add("idet"),
        graph.add("buffersink"),
    ).configure()
    seen: Counter[str] = Counter()
    for picture in (*pictures, None):
        graph.vpush(picture)
        while True:
            try:
                told = graph.vpull().metadata
            except (BlockingIOError, EOFError):
                break
            seen[told.get("lavfi.idet.multiple.current_frame", "")] += 1
    return Counter({it: seen[it] for it in _FIRST_FIELDS.values()})
