"""One connection to a source: opened within limits, the right streams chosen, packets read.

`close()` from another thread does not unblock a read; only the limits do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
from av.stream import Discard, Disposition

from vqmon.domain import Format
from vqmon.sources.addresses import Opening
from vqmon.sources.complaints import Complaints
from vqmon.sources.failures import failure, rejected, remedy
from vqmon.sources.pictures import PIXEL_LIMIT, SIDE_LIMIT, too_large
from vqmon.sources.pipes import Pipe, is_pipe
from vqmon.sources.playlists import examined

_NOT_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
_TRUSTED = frozenset({"mov", "matroska", "webm", "mp4", "avi", "asf", "ogg", "mxf", "gif", "ivf"})
"""Containers whose time stamps do not jump by themselves."""

_TEXT_ART = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""FFmpeg paints letters for these: any text file would be a film."""

_UNFINISHED = (
    "its index (moov) is missing: the recording was cut off or still goes on; record to .mkv or "
    ".ts, which need no end, or rescue it with a repair tool"
)
_UNDECODABLE = "its video cannot be decoded: it is damaged, cut off or of an unknown kind"
_NO_WEBP = (
    "its picture cannot be decoded: it is damaged or cut off, or animated; convert such a WebP to "
    "MP4 or GIF"
)


class Connection:
    """An open container. Not thread-safe; close it where it was opened.

    read_timeout: seconds after which a read is given up.
    video, audio: the chosen streams, None where there is none. live: whether media arrives in
    real time. waited: seconds that reading the last packet took.
    """

    def __init__(self, opening: Opening, complaints: Complaints) -> None:
        hls = opening.container == "hls"
        self._opening = examined(opening, complaints) if hls else opening
        self._complaints = complaints
        self.read_timeout = self._opening.read_timeout
        self._bridge: Any = None
        self._pipe: Pipe | None = None
        self.waited = 0.0
        self.container = self._open()
        self.live = self._is_live()
        try:
            self._choose()
        except BaseException:
            self.close()
            raise

    def _open(self) -> av.container.InputContainer:
        opening, began = self._opening, time.monotonic()
        self._complaints.begin()
        target: Any = opening.url
        try:
            if opening.bridge is not None:
                from vqmon.sources.bridge import Bridge

                target = self._bridge = Bridge(opening)
            elif opening.scheme == "file" and is_pipe(opening.url):
                target = self._pipe = Pipe(opening)
            with self._complaints:
                container: av.container.InputContainer = av.open(
                    target,
                    "r",
                    format=opening.container,
                    options=dict(opening.options),
                    timeout=(opening.open_timeout, opening.read_timeout),
                    metadata_errors="replace",
                )
        except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
            raise self._opening_failed(error, time.monotonic() - began) from error
        self._complaints.opened()
        return container

    def _opening_failed(self, error: BaseException, elapsed: float) -> Exception:
        if self._pipe:
            self._pipe.close()
        if self._bridge:
            said = self._bridge.failed()
            self._bridge.close()
            if said:
                return said  # type: ignore[no-any-return]
        said = self._complaints.recent()
        if size := _refused_size(said):
            return rejected(self._opening, "invalid_data", _too_large(size))
        if self._opening.scheme == "file" and (text := _file_complaint(self._opening.url, said)):
            return rejected(self._opening, "invalid_data", text)
        return failure(self._opening, error, elapsed=elapsed, opened=False, said=said)

    def _choose(self) -> None:
        streams = self.container.streams
        if self.container.format.name in _TEXT_ART:
            raise rejected(self._opening, "invalid_data", "is a text and not a video")
        pictures = [s for s in streams.video if not s.disposition & _NOT_PICTURES]
        self.video = max(pictures, key=_area, default=None)
        best = streams.best("audio", related=self.video) if streams.audio else None
        self.audio: Any = best if best is not None and best.codec_context else None
        self._check_video()
        for stream in (*streams.video, *streams.audio):
            if stream is not self.video and stream is not self.audio:
                stream.discard = Discard.all

    def _check_video(self) -> None:
        if self.video is None:
            if not self.live:
                kind = "only sound" if self.container.streams.audio else "no pictures"
                raise rejected(self._opening, "invalid_data", f"has no video, {kind}")
            return
        context = self.video.codec_context
        if context is None:
            raise rejected(
                self._opening, "decoder_missing", remedy(self._opening, "decoder_missing")
            )
        said = self._complaints.recent()
        size = _refused_size(said)
        if too_large(context.width, context.height):
            size = f"{context.width}x{context.height}"
        if size:
            raise rejected(self._opening, "invalid_data", _too_large(size))
        if not self.live and not context.width:
            webp = self.container.format.name == "webp_pipe"
            message = _NO_WEBP if webp else _UNDECODABLE
            raise rejected(self._opening, "invalid_data", message, said.rpartition("; ")[2])

    def _is_live(self) -> bool:
        """Whether media arrives in real time: known from the scheme, or found by opening."""
        if self._opening.live is not None:
            return self._opening.live
        container = self.container
        if container.format.name == "hls":
            return container.duration is None
        return container.duration is None and container.size <= 0

    @property
    def paced(self) -> bool:
        return self._opening.paced or (self.live and self.container.format.name != "hls")

    @property
    def trusted(self) -> bool:
        return not _TRUSTED.isdisjoint(self.container.format.name.split(","))

    def format(self) -> Format:
        """What the stream says it is; width 0 while it is not known yet."""
        video, audio = self.video, self.audio
        context = video.codec_context if video else None
        rate = video.average_rate or video.guessed_rate if video else None
        return Format(
            codec=_codec(context) if context else "",
            width=context.width if context else 0,
            height=context.height if context else 0,
            pixel_format=(context.pix_fmt or "") if context else "",
            frame_rate=round(float(rate), 3) if rate else 0.0,
            audio_codec=_codec(audio.codec_context) if audio else None,
            audio_rate=audio.codec_context.sample_rate if audio else 0,
            container=self.container.format.name.partition(",")[0],
        )

    def packets(self) -> Iterator[av.Packet[Any]]:
        """Every packet of every stream in use, then one empty packet per stream.

        One is held back: what comes just before a failure may be cut off without a mark.
        """
        used = [s for s in self.container.streams if s.discard != Discard.all]
        reader = self.container.demux(*used)
        held: av.Packet[Any] | None = None
        while True:
            began = time.monotonic()
            try:
                with self._complaints:
                    packet = next(reader, None)
            except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
                raise self._reading_failed(error, time.monotonic() - began) from error
            self.waited = time.monotonic() - began
            if self._gave_up(packet):
                raise failure(self._opening, TimeoutError(), elapsed=self.waited, opened=True)
            if held is not None:
                yield held
            if packet is None:
                break
            held = packet
        if self._bridge and (error_ := self._bridge.failed()):
            raise error_

    def _gave_up(self, packet: av.Packet[Any] | None) -> bool:
        """Whether an end is none: HLS calls it that when its playlist stopped growing."""
        over = packet is None or not packet.size
        return self.live and over and self.waited >= 0.9 * self.read_timeout

    def _reading_failed(self, error: BaseException, elapsed: float) -> Exception:
        if self._bridge and (said := self._bridge.failed()):
            return said  # type: ignore[no-any-return]
        said = self._complaints.recent()
        return failure(self._opening, error, elapsed=elapsed, opened=True, said=said)

    def grown(self) -> bool:
        """Whether streams appeared after opening; these can be read only after reopening."""
        found = re.findall(r"^\s*Stream #", self._described(), re.MULTILINE)
        return len(found) > len(self.container.streams)

    def codec_of(self, stream: Any) -> str | None:
        """The codec of a stream's packets as it is now: a transport stream may change it."""
        sign = rf"^\s*Stream #\d+:{stream.index}\b.*?: (?:Video|Audio): (\w+)"
        found = re.search(sign, self._described(), re.MULTILINE)
        return found.group(1) if found else None

    def _described(self) -> str:
        """FFmpeg's text about the container; PyAV has no other way to what changed since."""
        av.logging.set_level(av.logging.INFO)
        try:
            return str(self.container.dumps_format())  # type: ignore[attr-defined]  # not in the stubs
        finally:
            av.logging.set_level(av.logging.WARNING)

    def close(self) -> None:
        self.container.close()
        if self._bridge:
            self._bridge.close()
        if self._pipe:
            self._pipe.close()


def _area(stream: Any) -> int:
    context = stream.codec_context
    return context.width * context.height if context else 0


def _codec(context: Any) -> str:
    return str(context.codec.canonical_name)


def _refused_size(said: str) -> str | None:
    """The size that FFmpeg found in the header and refused to decode."""
    sizes = re.findall(r"Picture size ([1-9]\d*x[1-9]\d*) (?:exceeds|is invalid)", said)
    return sizes[-1] if sizes else None


def _too_large(size: str) -> str:
    limit = f"{SIDE_LIMIT} px a side or {PIXEL_LIMIT // 10**6} Mpx"
    return f"its pictures of {size} are too large (limit {limit}); scale them down first"


def _file_complaint(path: str, said: str) -> str | None:
    """What is wrong with a local file that a person sees at a glance."""
    file = Path(path)
    if file.is_dir():
        return "is a folder; name the files in it"
    if file.exists() and not file.is_file() and not is_pipe(path):
        return "is a device or socket; vqmon reads files, named pipes and network streams"
    if not file.is_file():
        return None
    if file.stat().st_size == 0:
        return "is empty (0 bytes)"
    return _UNFINISHED if "moov atom not found" in said and _begins_like_mp4(file) else None


def _begins_like_mp4(file: Path) -> bool:
    with suppress(OSError), file.open("rb") as data:
        return data.read(8)[4:] in {b"ftyp", b"mdat", b"wide", b"free", b"skip"}
    return False
