"""The loop over one connection: packets become frames, traffic and events.

packet ─▶ timeline (position, jump?) ─▶ counted ─▶ decoded as deep as asked ─▶ Frame
                                          └─▶ about every second ─▶ Traffic
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import av

from vqmon.domain import Depth, Event, Format, Frame, Media, Packet, Traffic
from vqmon.errors import SourceError
from vqmon.sources.addresses import Opening
from vqmon.sources.complaints import Complaints
from vqmon.sources.connection import Connection
from vqmon.sources.decoding import Decoded, PictureDecoder, quantiser
from vqmon.sources.pictures import PictureReader
from vqmon.sources.sound import Ear
from vqmon.sources.timeline import Timeline
from vqmon.sources.traffic import Meter

Tee = Callable[["av.Packet[Any] | None", Any], None]

PICTURELESS_SECONDS = 5.0
"""Without a video packet for this long, look whether a stream appeared after opening."""

UNSTAMPED_SECONDS = 2.0
"""So long a live stream may begin without time stamps; then they are made up."""

RECODED_SECONDS = 0.5
"""Least distance of looks whether another codec is the reason for decoding errors."""

CAUGHT_UP = 0.3
"""Share of the limit below which a late stream is decoded again."""


class Player:
    """What one source knows over all its connections; `begin` takes the next one.

    seen: something arrived, ever. last_packet: when it last did, `time.monotonic()`.
    reopen: `media` ended because streams appeared that only a new connection can read.
    """

    def __init__(
        self,
        opening: Opening,
        complaints: Complaints,
        depth: Callable[[], Depth],
        tee: Tee | None,
        stopping: Callable[[], bool],
    ) -> None:
        self.seen = self.reopen = False
        self.last_packet: float | None = None
        self._opening = opening
        self._complaints = complaints
        self._depth = depth
        self._tee = tee
        self._stopping = stopping
        self._timeline = Timeline()
        self._pictures = PictureReader()
        self._known: Format | None = None
        self._given = 0.0
        self._decoder: PictureDecoder | None = None
        self._ear: Ear | None = None

    def begin(self, connection: Connection) -> Event:
        """Make ready for a new connection; say that it is there."""
        now = time.monotonic()
        kept = connection.live and self.last_packet is not None
        away = now - self.last_packet if kept and self.last_packet is not None else 0.0
        self._connection = connection
        self._timeline.live, self._timeline.paced = connection.live, connection.paced
        self._timeline.connect(away, trusted=connection.trusted)
        self._ready(connection, now)
        kind = "opened" if self._known is None else "reconnected"
        if self.reopen:
            kind = "format_changed"
            self._split()
        self._known = connection.format()
        self.reopen = False
        return self.event(kind, format=self._known, seconds=away)

    def _ready(self, connection: Connection, now: float) -> None:
        video, audio = connection.video, connection.audio
        self._decoder = PictureDecoder(video.codec_context, self._complaints) if video else None
        self._ear = Ear(audio.codec_context, self._complaints) if audio else None
        self._base = float(video.time_base or 0) if video else 0.0
        self._sound_base = float(audio.time_base or 0) if audio else 0.0
        self._aspect = _pixel_aspect(video)
        self._meter = Meter(self._timeline.position, now, self._complaints.count)
        self._epoch = datetime.now(UTC)
        self._opened_clock = self._picture_clock = now
        self._late = self._recovering = False
        self._duration = 0.0
        self._suspected = -math.inf

    def media(self) -> Iterator[Media]:
        """Everything until the connection ends; what was counted is given before it fails."""
        try:
            yield from self._arriving()
        except SourceError:
            yield from self._remainder()
            raise
        yield from self._remainder()

    def _arriving(self) -> Iterator[Media]:
        connection = self._connection
        video = connection.video.index if connection.video else -1
        audio = connection.audio.index if connection.audio else -1
        for packet in connection.packets():
            if self._stopping():
                return
            clock = time.monotonic()
            index = packet.stream_index
            if not packet.size and packet.dts is None:  # FFmpeg's mark of a stream's end
                if index == video and self._decoder:
                    yield from self._frames(self._decoder.drain())
                continue
            self._count(packet, clock, known=index in (video, audio))
            complained = self._complaints.count
            if index == video:
                yield from self._picture(packet, clock)
            elif index == audio:
                self._sound(packet, clock, drives=video < 0)
            if self._complaints.count > complained:
                yield from self._recoded()
            if self._meter.due(self._timeline.position, clock):
                yield self._traffic(clock)
                if self._picture_missing(clock):
                    self.reopen = True
                    return

    def _remainder(self) -> Iterator[Media]:
        """What the decoder holds and what was counted and heard since the last full interval."""
        if self._decoder:
            yield from self._frames(self._decoder.drain())
        if self._ear:
            self._ear.finish(self._timeline.position)
        if self._meter.bytes or (self._ear and self._ear.heard):
            yield self._traffic(time.monotonic())
        while self._ear and self._ear.heard:
            yield self._traffic(time.monotonic())

    def interrupted(self) -> float:
        """The connection is lost; return the seconds for which it had been good.

        Its decoders go: a stream that is down for a night needs no 20 MB.
        """
        self._split()
        self._decoder = self._ear = None
        if self.last_packet is None:
            return 0.0
        return max(0.0, self.last_packet - self._opened_clock)

    def event(self, kind: Any, **fields: Any) -> Event:
        position = self._onward(self._timeline.position)
        return Event(kind, position, datetime.now(UTC), **fields)

    def _count(self, packet: av.Packet[Any], clock: float, *, known: bool) -> None:
        self.seen = True
        self.last_packet = clock
        self._meter.bytes += packet.size
        self._meter.corrupt += packet.is_corrupt
        if self._tee and known:
            self._tee(packet, self._connection.container)

    def _split(self) -> None:
        """Packets before and after this point do not belong together."""
        if self._tee and self.seen:
            self._tee(None, None)

    # Pictures

    def _picture(self, packet: av.Packet[Any], clock: float) -> Iterator[Media]:
        self._picture_clock = clock
        jump = self._advance(packet, clock)
        if jump is not None:
            self._split()
            yield self.event("timestamp_jump", seconds=jump)
        duration = (packet.duration or 0) * self._base
        self._duration = duration or self._duration
        decoded = self._timeline.position if packet.dts is None else self._at(packet.dts)
        shown = decoded if packet.pts is None else self._at(packet.pts)
        self._meter.packets.append(
            Packet(decoded, duration, packet.size, packet.is_keyframe, packet.is_corrupt)
        )
        yield from self._frames(self._decode(packet, shown))

    def _advance(self, packet: av.Packet[Any], clock: float) -> float | None:
        """Move the timeline to this packet; return the size of a jump, if there is one.

        RTP carries no decode times: the first packets then have none, and one that is made up
        from the time of showing would look like a step back when the next one has it.
        """
        timeline = self._timeline
        stamp = packet.dts if packet.pts is None else packet.pts
        if not timeline.anchored:
            if stamp is None and timeline.live and clock - self._opened_clock < UNSTAMPED_SECONDS:
                return None
            timeline.anchor(0.0 if stamp is None else stamp * self._base)
        if packet.dts is not None:
            raw = packet.dts * self._base
            return timeline.step(raw, self._duration, clock, self._connection.waited)
        if packet.pts is not None:
            timeline.reach(packet.pts * self._base)
        else:
            rate = self._known.frame_rate if self._known else 0.0
            timeline.pass_by(self._duration or 1.0 / (rate or 25.0))
        return None

    def _at(self, stamp: int) -> float:
        timeline = self._timeline
        return timeline.at(stamp * self._base) if timeline.anchored else timeline.position

    def _decode(self, packet: av.Packet[Any], position: float) -> list[Decoded]:
        """As deep as asked; not at all while a live stream is behind because of us."""
        assert self._decoder is not None
        depth = self._depth()
        late = self._behind()
        decoded = self._decoder.feed(packet, position, depth, late=late)
        if late:
            self._recovering = True
            self._meter.late += depth > Depth.KEYFRAMES or packet.is_keyframe
        elif self._recovering:
            self._recovering = depth > Depth.KEYFRAMES and self._decoder.waits_for_key
            self._meter.late += self._recovering
        return decoded

    def _behind(self) -> bool:
        if not self._timeline.live:
            return False
        limit = self._opening.late_after * (CAUGHT_UP if self._late else 1.0)
        self._late = self._timeline.lag.behind > limit
        return self._late

    def _frames(self, decoded: list[Decoded]) -> Iterator[Media]:
        for item in decoded:
            changed = self._changed(item.picture)
            if changed:
                yield changed
            yield self._frame(item)

    def _frame(self, item: Decoded) -> Frame:
        picture = item.picture
        planes, colour, bits = self._pictures.read(picture)
        placed = self._timeline.position if item.position is None else item.position
        position = self._onward(placed)
        return Frame(
            planes=planes,
            position=position,
            captured_at=self._captured_at(position),
            colour=colour,
            seconds=(picture.duration or 0) * self._base,
            key=bool(picture.key_frame),
            skipped=item.skipped,
            corrupt=item.corrupt,
            qp=quantiser(picture) if self._codec == "h264" else None,
            sample_aspect=self._aspect,
            rotation=round(-picture.rotation / 90) * 90 % 360,
            interlaced=picture.interlaced_frame,
            native_bits=bits,
        )

    def _changed(self, picture: av.VideoFrame) -> Event | None:
        """An event when pictures have another size or pixel format than the last one."""
        old, name = self._known, picture.format.name
        assert old is not None
        if (old.width, old.height, old.pixel_format) == (picture.width, picture.height, name):
            return None
        self._known = replace(old, width=picture.width, height=picture.height, pixel_format=name)
        self._aspect = _pixel_aspect(self._connection.video)
        known_before = old.width and old.pixel_format
        return self.event("format_changed" if known_before else "opened", format=self._known)

    def _picture_missing(self, clock: float) -> bool:
        """Whether the pictures went to (or begin only now in) a stream we do not read."""
        if not self._timeline.live or clock - self._picture_clock < PICTURELESS_SECONDS:
            return False
        self._picture_clock = clock
        return self._connection.grown()

    def _recoded(self) -> Iterator[Media]:
        """A transport stream may go on in another codec, and only decoding errors tell."""
        if self._timeline.position < self._suspected + RECODED_SECONDS:
            return
        self._suspected = self._timeline.position
        video, audio = self._connection.video, self._connection.audio
        if video and self._decoder and (new := self._another(video, self._decoder.codec)):
            yield from self._frames(self._decoder.drain())
            self._decoder = PictureDecoder(new, self._complaints)
            self._split()
            yield self._now(codec=self._decoder.codec)
        if audio and self._ear and (new := self._another(audio, self._ear.codec)):
            self._ear.use(new)
            yield self._now(audio_codec=self._ear.codec, audio_rate=0)

    def _now(self, **changes: Any) -> Event:
        assert self._known is not None
        self._known = replace(self._known, **changes)
        return self.event("format_changed", format=self._known)

    def _another(self, stream: Any, codec: str) -> Any:
        """A decoder for what the stream carries now; None when that is what it was."""
        now = self._connection.codec_of(stream)
        if now in (None, "none", codec):
            return None
        try:
            return av.CodecContext.create(now, "r")
        except ValueError:  # no such decoder; the findings go on to say that nothing comes out
            return None

    # Sound and traffic

    def _sound(self, packet: av.Packet[Any], clock: float, *, drives: bool) -> None:
        timeline = self._timeline
        if packet.dts is not None:
            raw = packet.dts * self._sound_base
            waited_for_pictures = clock - self._opened_clock > UNSTAMPED_SECONDS
            if not timeline.anchored and (drives or waited_for_pictures):
                timeline.anchor(raw)
            if drives:
                timeline.step(raw, 0.0, clock, self._connection.waited)
            elif timeline.anchored:
                timeline.follow(raw)
        if self._ear:
            self._ear.feed(packet, timeline.position)

    def _traffic(self, clock: float) -> Traffic:
        position = self._onward(self._timeline.position)
        return self._meter.close(
            position,
            clock,
            self._captured_at(position),
            self._complaints.count,
            self._ear.take() if self._ear else None,
            live=self._timeline.live,
        )

    def _onward(self, position: float) -> float:
        """Positions never go back, whichever kind of thing carries them."""
        self._given = max(self._given, round(position, 6))
        return self._given

    @property
    def _codec(self) -> str | None:
        """Of the video, as far as it is known."""
        return self._known.codec if self._known else None

    def _captured_at(self, position: float) -> datetime:
        """Wall clock; for a file the time of opening and its own time after that."""
        if self._timeline.live:
            return datetime.now(UTC)
        return self._epoch + timedelta(seconds=position)


def _pixel_aspect(video: Any) -> float:
    aspect = video.sample_aspect_ratio if video and video.codec_context else None
    return float(aspect) if aspect else 1.0
