"""The last minute of a stream as it arrived: packets copied into short files, never decoded."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise, repeat, takewhile
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer

log = logging.getLogger("vqmon.evidence")

CHUNK_SECONDS = 10.0
"""A file ends at the first keyframe after so long."""

JUMP_SECONDS = 5.0
"""A larger step in decode time ends the file: timestamps were reset or something is missing."""

REST_SECONDS = 30.0
"""After a file could not be written: how long until the next attempt."""

SOON_ON_DISK = {"cluster_time_limit": "1000", "flush_packets": "1"}
"""A second of packets is written at a time, so that a clip of what was just seen is whole."""

Packet = Any
Stream = Any
Format = tuple[int, str, int, int, bytes | None]


class PacketRing:
    """Keeps the last `seconds` of packets of one stream as Matroska files in `folder`.

    Each file begins with a keyframe, holds one format and keeps the stream's own timestamps.
    What a former ring left in the folder belongs to this one. `tee` and `close` are for the
    thread that reads the stream; all else for anybody.
    """

    def __init__(self, folder: Path, seconds: float = 60.0) -> None:
        self._folder = folder
        self._seconds = seconds
        self._chunk: _Chunk | None = None
        self._resting_until = 0.0
        self._failing = False

    def tee(self, packet: Packet | None, container: InputContainer | None) -> None:
        """Note one demuxed packet of `container` and leave it as it is; None where what follows
        does not belong to what was before. Never raises.
        """
        if packet is None or container is None:
            self.close()
            return
        if packet.dts is None or packet.stream.type not in ("video", "audio"):
            return
        if self._chunk is None and time.monotonic() < self._resting_until:
            return
        try:
            self._write(packet, container)
        except (OSError, ValueError, av.FFmpegError) as error:
            self._rest(error)

    def close(self) -> None:
        """Finish the file in progress."""
        chunk, self._chunk = self._chunk, None
        if chunk:
            with contextlib.suppress(OSError, ValueError, av.FFmpegError):
                chunk.close()

    def clip(self, path: Path) -> float:
        """Join what the ring holds into one file, of the kind that the name `path` ends with.

        Takes the newest stretch of one format. Returns its seconds, 0.0 (and writes nothing)
        when the ring holds nothing. Raises OSError when the file cannot be written.
        """
        with contextlib.ExitStack() as stack:
            opened = [it for file in self.files() if (it := _opened(file, stack))]
            try:
                return _join(_newest_of_one_format(opened), path)
            except (ValueError, av.FFmpegError) as error:
                path.unlink(missing_ok=True)
                raise OSError(f"cannot write the clip {path}: {error}") from error

    def cut(self, path: Path, begin: float, end: float) -> float:
        """Like `clip`, of what belongs between two moments (seconds since 1970), from the last
        keyframe before `begin` on. Packets of one format only, the newest.

        Moments are those of arrival: as exact as the stream comes in evenly. Returns the seconds
        of the file, 0.0 (and writes nothing) when the ring holds nothing of that time.
        """
        with contextlib.ExitStack() as stack:
            files = [it for file in self._around(begin, end) if (it := _opened(file, stack))]
            wanted = _newest_of_one_format(files)
            offsets = _offsets([Path(it.name) for it in wanted])
            try:
                return _joined(
                    path,
                    wanted,
                    [
                        _between(_packets(file), begin - offset, end - offset)
                        for file, offset in zip(wanted, offsets, strict=True)
                    ],
                )
            except (ValueError, av.FFmpegError) as error:
                path.unlink(missing_ok=True)
                raise OSError(f"cannot write the clip {path}: {error}") from error

    def newest(self) -> float:
        """When the last packet that has reached the disk arrived (seconds since 1970)."""
        with contextlib.ExitStack() as stack:
            files = self.files()[-2:]
            for file, offset in reversed(list(zip(files, _offsets(files), strict=True))):
                opened = _opened(file, stack)
                at = [_seconds(packet) for packet in _packets(opened)] if opened else []
                if at:
                    return max(at) + offset
        return 0.0

    def files(self) -> list[Path]:
        """The files of the ring, oldest first; the last one may still grow."""
        return sorted(self._folder.glob("*.mkv"))

    def _around(self, begin: float, end: float) -> list[Path]:
        """The files that may hold something of that time."""
        files = self.files()
        ends = [*(_begun(it) for it in files[1:]), float("inf")]
        return [
            file
            for file, ended in zip(files, ends, strict=False)
            if _begun(file) < end + JUMP_SECONDS and ended > begin - JUMP_SECONDS
        ]

    def _write(self, packet: Packet, container: InputContainer) -> None:
        starts = packet.stream.type == "video" and packet.is_keyframe
        if self._chunk and self._chunk.over(packet, container, self._limit(starts=starts)):
            self.close()
            self._failing = False
        if self._chunk is None and starts:
            self._prune()
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns() // 1_000_000:015}.mkv"
            self._chunk = _Chunk.begun(self._folder / name, packet, container)
        if self._chunk:
            self._chunk.write(packet)

    def _limit(self, *, starts: bool) -> float:
        """How long a file may get: up to a keyframe, or, where none comes, the whole ring."""
        return min(CHUNK_SECONDS, self._seconds) if starts else max(CHUNK_SECONDS, self._seconds)

    def _prune(self) -> None:
        """Delete files that ended before the last `seconds`."""
        files = self.files()
        for file, newer in pairwise(files):
            if int(newer.stem) / 1000 < time.time() - self._seconds:
                file.unlink(missing_ok=True)

    def _rest(self, error: Exception) -> None:
        """Say it once; go on without the ring for a while."""
        self.close()
        self._resting_until = time.monotonic() + REST_SECONDS
        if not self._failing:
            self._failing = True
            fields = {"folder": str(self._folder), "error": str(error)}
            log.error("packets_not_kept", extra=fields)


@dataclass(slots=True)
class _Chunk:
    """One growing file. formats: what it was begun with; outputs: by index of the input."""

    file: OutputContainer
    formats: tuple[Format, ...]
    outputs: dict[int, Stream]
    began: float
    last: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begun(cls, path: Path, packet: Packet, container: InputContainer) -> _Chunk:
        """A file for the streams that belong to a video packet's stream."""
        inputs = _related(packet.stream, container)
        file = av.open(str(path), "w", format="matroska", options=SOON_ON_DISK)
        try:
            outputs = {it.index: file.add_stream_from_template(it) for it in inputs}
        except (ValueError, av.FFmpegError):
            file.close()
            path.unlink(missing_ok=True)
            raise
        return cls(file, _formats(inputs), outputs, _seconds(packet))

    def over(self, packet: Packet, container: InputContainer, limit: float) -> bool:
        """Whether this packet must not go into the file."""
        last = self.last.get(packet.stream.index)
        if last is not None:
            step = (packet.dts - last) * packet.time_base
            if not -JUMP_SECONDS < step < JUMP_SECONDS:
                return True
        if packet.stream.type != "video":
            return False
        if _seconds(packet) - self.began >= limit:
            return True
        return packet.is_keyframe and self.formats != _formats(_related(packet.stream, container))

    def write(self, packet: Packet) -> None:
        """A copy, so that the packet can still be decoded; what repeats a timestamp is left out."""
        index = packet.stream.index
        if index not in self.outputs or packet.dts <= self.last.get(index, packet.dts - 1):
            return
        self.last[index] = packet.dts
        self.file.mux(_copied(packet, self.outputs[index]))

    def close(self) -> None:
        self.file.close()


def _copied(packet: Packet, output: Stream, shift: Fraction = Fraction(0)) -> Packet:
    """The packet for another stream, `shift` seconds later."""
    copy: Packet = av.Packet(bytes(packet))
    ticks = round(shift / packet.time_base)
    copy.time_base = packet.time_base
    copy.dts = packet.dts + ticks
    copy.pts = (packet.dts if packet.pts is None else packet.pts) + ticks
    copy.duration = packet.duration
    copy.is_keyframe = packet.is_keyframe
    copy.stream = output
    return copy


def _related(video: Stream, container: InputContainer) -> list[Stream]:
    """The video stream and the sound that belongs to it."""
    sound = container.streams.best("audio", related=video)
    return [video, sound] if sound else [video]


def _formats(streams: Iterable[Stream]) -> tuple[Format, ...]:
    """What must be equal for packets to share a file."""
    contexts = [(it.index, it.codec_context) for it in streams]
    return tuple(
        (index, it.name, getattr(it, "width", 0), getattr(it, "height", 0), it.extradata)
        for index, it in contexts
    )


def _seconds(packet: Packet) -> float:
    return float(packet.dts * packet.time_base)


def _opened(file: Path, stack: contextlib.ExitStack) -> InputContainer | None:
    """None for a file that says nothing yet, is damaged, or has just been deleted."""
    try:
        opened = stack.enter_context(av.open(str(file)))
    except (OSError, av.FFmpegError):
        return None
    return opened if opened.streams.video else None


def _newest_of_one_format(files: Sequence[InputContainer]) -> list[InputContainer]:
    """The last file and those before it that have its format, oldest first."""
    newest_first = list(reversed(files))
    wanted = [_formats(it.streams) for it in newest_first[:1]]
    same = takewhile(lambda it: [_formats(it.streams)] == wanted, newest_first)
    return list(same)[::-1]


def _begun(file: Path) -> float:
    """When the first packet of a file arrived, seconds since 1970: its name."""
    return int(file.stem) / 1000


def _offsets(files: Sequence[Path]) -> list[float]:
    """For each file the seconds from the stream's own time to the wall clock.

    Packets may arrive late but never early: of files whose time goes on from one to the next,
    the smallest difference is the truest.
    """
    own = [_begun(file) - _first_time(file) for file in files]
    return [min(it for it in own if abs(it - mine) < JUMP_SECONDS) for mine in own]


def _first_time(file: Path) -> float:
    """Of the stream's own time, seconds; 0.0 for a file that says nothing yet."""
    with contextlib.ExitStack() as stack:
        opened = _opened(file, stack)
        first = next(_packets(opened), None) if opened else None
        return _seconds(first) if first else 0.0


def _between(packets: Iterable[Packet], begin: float, end: float) -> Iterator[Packet]:
    """From the last video keyframe before `begin` up to `end`, in the stream's own time.

    Pictures that are shown before one that was already given still come behind it.
    """
    held: list[Packet] = []
    newest = float("-inf")
    for packet in packets:
        at, video = _seconds(packet), packet.stream.type == "video"
        shown = packet.dts if packet.pts is None else packet.pts
        if at >= end and not video:
            continue
        if at >= end and shown > newest:
            break
        newest = max(newest, shown) if video else newest
        if at > begin:
            yield from held
            held.clear()
            yield packet
            continue
        if video and packet.is_keyframe:
            held.clear()
        held.append(packet)


def _join(files: Sequence[InputContainer], path: Path) -> float:
    """Remux one file after the other. Returns the length of the whole, seconds."""
    return _joined(path, files, [_packets(file) for file in files])


def _joined(
    path: Path, files: Sequence[InputContainer], parts: Iterable[Iterable[Packet]]
) -> float:
    """Write these packets of these files. Returns the length of the whole, seconds."""
    if not files:
        return 0.0
    with av.open(str(path), "w") as clip:
        joint = _Joint(clip, files[0].streams)
        for packets in parts:
            joint.add(packets)
    if joint.end is None:
        path.unlink(missing_ok=True)
    return float(joint.end or 0)


class _Joint:
    """The file that others are joined into, on one time axis that begins at 0."""

    def __init__(self, clip: OutputContainer, streams: Iterable[Stream]) -> None:
        self.end: Fraction | None = None
        self._clip = clip
        self._outputs = {it.index: clip.add_stream_from_template(it) for it in streams}
        self._last: dict[int, Fraction] = {}
        self._shift = Fraction(0)

    def add(self, packets: Iterable[Packet]) -> None:
        """Packets of a file; a jump of time between them and those before is closed."""
        for first, packet in zip(chain([True], repeat(False)), packets, strict=False):
            if first:
                self._continue_with(packet)
            self._write(packet)

    def _continue_with(self, packet: Packet) -> None:
        time, last = packet.dts * packet.time_base, self._last.get(packet.stream.index)
        if self.end is None:
            self._shift = -time
        elif last is None or not 0 < time + self._shift - last <= JUMP_SECONDS:
            self._shift = self.end - time

    def _write(self, packet: Packet) -> None:
        """Sound that reaches back behind the last file's is left out: time must not go back."""
        index, at = packet.stream.index, packet.dts * packet.time_base + self._shift
        if index in self._last and at <= self._last[index]:
            return
        self._last[index] = at
        length = (packet.duration or 0) * packet.time_base
        self.end = at + length if self.end is None else max(self.end, at + length)
        self._clip.mux(_copied(packet, self._outputs[index], self._shift))


def _packets(file: InputContainer) -> Iterator[Packet]:
    """Up to the end, or to where a file that still grows breaks off."""
    waiting: list[Packet] = []
    with contextlib.suppress(av.FFmpegError):
        for packet in file.demux():
            if packet.stream.type == "video" and packet.dts is None and packet.size:
                waiting.append(packet)
            elif packet.dts is not None:
                yield from _dated(waiting, packet)
                yield packet


def _dated(waiting: list[Packet], packet: Packet) -> Iterator[Packet]:
    """The video packets before `packet`, with the decode times that Matroska does not store.

    It stores presentation times alone, so the first decode times behind reordered pictures
    are unknown to its reader.
    """
    if packet.stream.type == "video":
        for back, early in zip(range(len(waiting), 0, -1), waiting, strict=True):
            early.dts = packet.dts - back * max(1, packet.duration or 0)
            yield early
        waiting.clear()
