"""Filters applied to a clip: pictures decoded, filtered and coded again, sound copied untouched.

    packets ─▶ decode ─▶ filters ─▶ x264 ─┬▶ file
          └──────── sound, as it is ──────┘

Time stamps, size, shape of pixels, rotation, colour range and matrix stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from vqmon import VqmonError
from vqmon_enhancement.clip import Clip, Unfit, opened
from vqmon_enhancement.remedies import Filters, Recipe

CODING = {"crf": "16", "preset": "faster"}
"""Of what is kept: so good that the coding itself costs next to nothing."""

ROUGH = {"crf": "12", "preset": "ultrafast"}
"""Of trials: quick, and finer than what is kept."""

LOSSLESS = {"qp": "0", "preset": "ultrafast"}
"""Of the pieces that trials begin with."""

THREADS = 2
"""Of decoder, filters and encoder; fixed, since x264's result depends on it."""

MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})

COMPARED_EVERY = 5
"""Pictures of which one is compared with itself before the filters."""

_GRID = 48
_BLOCK = 8
_SPACES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
_FULL = 2
_YUVJ = "yuvj420p"


class Cancelled(VqmonError):
    """Whoever asked for it wants it no longer."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """A clip that was written.

    pictures: how many. likeness: correlation (-1..1) of the least like sampled picture with what
    it was before, in coarse brightness; 1 without samples. grid_before, grid_after: how much more
    brightness steps at the borders of 8x8 blocks than elsewhere, levels of 255. dropped: streams that the file lacks.
    """

    path: Path
    pictures: int
    likeness: float = 1.0
    grid_before: float = 0.0
    grid_after: float = 0.0
    dropped: tuple[str, ...] = ()


def never() -> bool:
    """Nobody cancels."""
    return False


def suffix_for(path: Path) -> str:
    """.mp4 where the sound fits into it, else .mkv."""
    with opened(path) as container:
        sounds = {it.codec_context.name for it in container.streams.audio}
    return ".mp4" if sounds <= MP4_SOUND else ".mkv"


def render(
    clip: Clip,
    recipe: Recipe,
    target: Path,
    *,
    coding: dict[str, str] | None = None,
    watched: Callable[[float], None] = lambda _seconds: None,
    cancelled: Callable[[], bool] = never,
) -> Rendition:
    """Write the clip, filtered, to `target`; what is there is replaced only when all went well.

    watched: called with the seconds done. Raises Unfit when the clip cannot be read on, Cancelled,
    and VqmonError when the file cannot be written.
    """
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    try:
        with opened(clip.path) as source, av.open(str(part), "w", options=options) as output:
            video = source.streams.best("video")
            video.codec_context.thread_count = THREADS
            writer = _Writer(output, clip, video, recipe, coding=coding or CODING)
            dropped = _copied(source, output, writer, watched, cancelled)
        part.replace(target)
    except (OSError, av.FFmpegError) as error:
        raise VqmonError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    grids = (fmean(it) if it else 0.0 for it in zip(*writer.grids, strict=True))
    before, after = tuple(grids) or (0.0, 0.0)
    return Rendition(target, writer.pictures, writer.likeness, before, after, dropped)


def _copied(
    source: Any,
    output: Any,
    writer: _Writer,
    watched: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> tuple[str, ...]:
    """All packets to where they belong. Returns the kinds of streams that were left out."""
    video, sounds = writer.video, list(source.streams.audio)
    copies = {it.index: output.add_stream_from_template(it) for it in sounds}
    early: list[Any] = []  # the first packet written opens the encoder, which knows no size yet
    for packet in _packets(source, video, sounds):
        if cancelled():
            raise Cancelled(f"{writer.clip.path}: given up")
        if packet.stream is video:
            writer.decode(packet)
            watched(max(0.0, writer.seconds))
        elif packet.dts is not None:
            early.append(_moved(packet, copies[packet.stream.index], writer.clip.start))
        if writer.begun:
            output.mux(early)
            early.clear()
    writer.finish()
    if writer.begun:
        output.mux(early)
    if not writer.pictures:
        raise Unfit(f"{writer.clip.path}: no picture of it can be decoded")
    return tuple(it.type for it in source.streams if it is not video and it not in sounds)


def _packets(source: Any, video: Any, sounds: list[Any]) -> Iterator[Any]:
    """Up to the end, or to where a damaged file breaks off."""
    try:
        yield from source.demux(video, *sounds)
    except av.FFmpegError:
        return


def _moved(packet: Any, stream: Any, start: float) -> Any:
    """The packet for another stream, in the time of a file that begins at 0."""
    ticks = round(Fraction(start).limit_denominator(10**6) / packet.time_base)
    packet.dts -= ticks
    if packet.pts is not None:
        packet.pts -= ticks
    packet.stream = stream
    return packet


class _Writer:
    """The pictures' way: one packet in, some coded packets out."""

    def __init__(
        self, output: Any, clip: Clip, video: Any, recipe: Recipe, *, coding: dict[str, str]
    ) -> None:
        self.pictures = 0
        self.likeness = 1.0
        self.seconds = 0.0
        self.grids: list[tuple[float, float]] = []
        self.clip, self.video = clip, video
        self._output = output
        self._filters = recipe.filters(clip.fields)
        self._coding = coding
        self._graph: Any = None
        self._encoder: Any = output.add_stream("libx264", rate=_rate(video))
        self._shown_at: int | None = None
        self._before: dict[int, tuple[NDArray[np.float32], float]] = {}
        self._seen = 0
        self._offset = round(Fraction(clip.start).limit_denominator(10**6) / video.time_base)

    @property
    def begun(self) -> bool:
        """Whether a picture has told the encoder what it needs to know."""
        return self._graph is not None

    def decode(self, packet: Any) -> None:
        try:
            frames = packet.decode()
        except av.FFmpegError:  # damaged; the pictures around it are still worth something
            return
        for frame in frames:
            self.take(frame)

    def finish(self) -> None:
        if self._graph is None:
            return
        self._graph.vpush(None)
        self._encode_all()
        self._output.mux(self._encoder.encode(None))

    def take(self, frame: Any) -> None:
        if (frame.width, frame.height) != (self.clip.width, self.clip.height):
            raise Unfit(f"{self.clip.path}: the size of its pictures changes on the way")
        self._place(frame)
        if self._graph is None:
            self._begin(frame)
        if self._seen % COMPARED_EVERY == 0:
            self._before[frame.pts] = _coarse(frame), grid(_luma(frame))
        self._seen += 1
        self._graph.vpush(frame)
        self._encode_all()

    def _place(self, frame: Any) -> None:
        """Its own time stamp, never going back: what comes without one follows the last."""
        own = None if frame.pts is None else frame.pts - self._offset
        last = self._shown_at
        if own is None or (last is not None and own <= last):
            step = max(1, round(1 / (_rate(self.video) * self.video.time_base)))
            own = 0 if last is None else last + (step if own is None else 1)
        frame.pts, frame.time_base = own, self.video.time_base
        self._shown_at = own

    def _begin(self, frame: Any) -> None:
        self._graph = _graph(frame, self.video, self._filters)
        stream, context = self._encoder, self._encoder.codec_context
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        stream.options = {**self._coding, "threads": str(THREADS)}
        context.time_base = self.video.time_base
        context.gop_size = max(2, round(2 * _rate(self.video)))
        context.colorspace = frame.colorspace
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        context.color_range = _FULL if _is_full(frame) else frame.color_range
        context.sample_aspect_ratio = self.video.sample_aspect_ratio or Fraction(0, 1)
        if frame.rotation:
            stream.set_display_rotation(frame.rotation)

    def _encode_all(self) -> None:
        while True:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            frame.pict_type = PictureType.NONE
            self._compare(frame)
            self.pictures += 1
            self.seconds = float(frame.pts * frame.time_base)
            self._output.mux(self._encoder.encode(frame))

    def _compare(self, frame: Any) -> None:
        before = self._before.pop(frame.pts, None)
        if before is not None:
            coarse, steps = before
            self.likeness = min(self.likeness, _correlation(coarse, _coarse(frame)))
            self.grids.append((steps, grid(_luma(frame))))


def _graph(frame: Any, video: Any, filters: Filters) -> Any:
    """Its input states the colour that the picture says it has; yuv420p comes out."""
    graph = av.filter.Graph()
    graph.threads = THREADS
    aspect = video.sample_aspect_ratio or Fraction(1)
    told = {
        "video_size": f"{frame.width}x{frame.height}",
        "pix_fmt": frame.format.name,
        "time_base": str(video.time_base),
        "pixel_aspect": f"{aspect.numerator}/{aspect.denominator}",
        "range": "pc" if _is_full(frame) else "tv",
        "colorspace": _SPACES.get(int(frame.colorspace), "unknown"),
    }
    source = graph.add("buffer", **told)
    nodes = [graph.add(name, arguments) for name, arguments in filters]
    last = graph.add("format", "yuv420p")
    graph.link_nodes(source, *nodes, last, graph.add("buffersink")).configure()
    return graph


def _is_full(frame: Any) -> bool:
    return bool(frame.format.name == _YUVJ or frame.color_range == _FULL)


def _rate(video: Any) -> Fraction:
    return Fraction(video.average_rate or video.guessed_rate or 25)


def _coarse(frame: Any) -> NDArray[np.float32]:
    """Brightness on a grid of at most 48 lines; nothing that a filter should change."""
    lines = _luma(frame)
    side = max(1, min(lines.shape) // _GRID)
    rows, columns = lines.shape[0] // side, lines.shape[1] // side
    cut = lines[: rows * side, : columns * side].astype(np.float32)
    means: NDArray[np.float32] = cut.reshape(rows, side, columns, side).mean(axis=(1, 3))
    return means


def _luma(frame: Any) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]


def grid(luma: NDArray[np.uint8]) -> float:
    """How much more brightness steps at block borders than inside, levels; 0 without a grid."""
    wide = luma.astype(np.int16)
    across, down = np.abs(np.diff(wide, axis=1)), np.abs(np.diff(wide, axis=0))
    excess = 0.0
    for steps in (across, down.T):
        borders = float(steps[:, _BLOCK - 1 :: _BLOCK].mean())
        excess += max(0.0, borders - _inside(steps))
    return excess / 2


def _inside(steps: NDArray[np.int16]) -> float:
    kept = np.arange(steps.shape[1]) % _BLOCK != _BLOCK - 1
    return float(steps[:, kept].mean())


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 for two flat pictures, which have nothing to differ in."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    flat = a.size  # a deviation of about one level
    return float((a * b).sum()) / scale if scale > flat else 1.0


def pieces(clip: Clip, folder: Path, *, count: int, seconds: float) -> Iterator[tuple[float, Path]]:
    """Cut `count` short pieces, spread evenly, as lossless files without sound.

    Yields (position of its beginning in the clip, file). A short clip gives one piece, all of it.
    """
    if clip.seconds <= count * seconds:
        starts = [0.0]
        seconds = max(seconds, clip.seconds)
    else:
        room = clip.seconds / count
        starts = [(index + 0.5) * room - seconds / 2 for index in range(count)]
    for index, start in enumerate(starts):
        path = folder / f"piece-{index}.mkv"
        if _cut(clip, start, seconds, path):
            yield start, path


def _cut(clip: Clip, start: float, seconds: float, path: Path) -> bool:
    """Decode from the keyframe before; False when nothing is there to decode."""
    with opened(clip.path) as source:
        video = source.streams.best("video")
        video.codec_context.thread_count = THREADS
        begin = start + clip.start
        if start > 0:
            source.seek(round(begin / video.time_base), stream=video)
        frames = _between(source, video, begin, begin + seconds)
        written = 0
        with av.open(str(path), "w") as output:
            writer = _Writer(output, clip, video, Recipe(()), coding=LOSSLESS)
            for frame in frames:
                writer.take(frame)
                written += 1
            writer.finish()
    return written > 1


def _between(source: Any, video: Any, begin: float, end: float) -> Iterator[Any]:
    try:
        for frame in source.decode(video):
            if frame.time is not None and frame.time >= end:
                return
            if frame.time is None or frame.time >= begin - 1e-6:
                yield frame
    except av.FFmpegError:
        return
