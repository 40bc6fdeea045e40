"""Keyframes only, reference frames, everything, and the ways between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from av.bitstream import BitStreamFilterContext

from tests.media import write_clip
from vqmon.domain import Depth, Frame, Media, Stream, Traffic
from vqmon.sources import open_source

CODECS = [
    ("libx264", "mkv", {"bf": "3"}),
    ("libx264", "ts", {"x264-params": "open-gop=1:bframes=3:scenecut=0"}),
    ("libx265", "mkv", {"x265-params": "bframes=3:scenecut=0:log-level=none"}),
    ("libx265", "mkv", {"x265-params": "open-gop=1:bframes=3:scenecut=0:log-level=none"}),
    ("libvpx-vp9", "mkv", {}),
    ("mpeg2video", "ts", {"bf": "2", "b": "2M", "sc_threshold": "1000000000"}),
    ("libsvtav1", "mkv", {}),
]


def watch(path: Path, depth: Depth | Callable[[], Depth]) -> list[Media]:
    ask = depth if callable(depth) else lambda: depth
    with open_source(Stream("x", str(path))).open(ask) as media:
        return list(media)


def pictures(items: list[Media]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def keys(clip: Path) -> list[float]:
    """Where the keyframes of a clip stand, seconds after its first picture."""
    with av.open(str(clip)) as container:
        packets = [(p.pts or 0, p) for p in container.demux(video=0) if p.size]
    first = min(pts for pts, _ in packets)
    return [float((pts - first) * p.time_base) for pts, p in packets if p.is_keyframe]


@pytest.fixture(scope="module", params=CODECS, ids=lambda c: f"{c[0]}-{len(c[2])}-{c[1]}")
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, suffix, options = request.param
    path = tmp_path_factory.mktemp("clips") / f"a.{suffix}"
    try:
        return write_clip(path, 3.0, codec=codec, gop=25, options=options, sound=False)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"no encoder {codec}: {error}")


def test_at_keyframes_each_comes_out_at_once_and_nothing_else(clip: Path) -> None:
    """With B-frames a decoder holds the picture back until the next ones; a key every ten
    seconds would then be scored ten seconds late.
    """
    seen: list[tuple[str, float]] = []
    with open_source(Stream("x", str(clip))).open(lambda: Depth.KEYFRAMES) as media:
        for item in media:
            if isinstance(item, Frame):
                seen.append(("picture", item.position))
                assert item.key
            elif isinstance(item, Traffic):
                seen += [("packet", p.position) for p in item.packets]

    found = [position for kind, position in seen if kind == "picture"]
    assert found == pytest.approx(keys(clip), abs=0.002)
    before_second = [p for kind, p in seen[: seen.index(("picture", found[1]))] if kind == "packet"]
    assert max(before_second, default=0.0) <= 1.0


def test_all_depths_agree_on_where_pictures_stand(clip: Path) -> None:
    """Going from keyframes to everything must not shift the clock."""
    keys = pictures(watch(clip, Depth.KEYFRAMES))
    everything = pictures(watch(clip, Depth.ALL))

    assert len(everything) == 75
    positions = [frame.position for frame in everything]
    assert positions == pytest.approx([index / 25 for index in range(75)], abs=0.002)
    for frame in keys:
        assert min(abs(frame.position - p) for p in positions) < 0.002
    assert sum(frame.skipped for frame in everything) == 0
    assert sum(frame.skipped for frame in keys) >= 48


def test_depth_is_asked_for_every_packet_and_changes_at_keyframes(clip: Path) -> None:
    """A suspicion raises the depth mid-GOP; decoding there would show garbage."""
    asked = iter(range(10_000))

    def depth() -> Depth:
        return Depth.ALL if 35 <= next(asked) < 60 else Depth.KEYFRAMES

    frames = pictures(watch(clip, depth))

    positions = [round(frame.position, 2) for frame in frames]
    assert positions == sorted(positions)
    first, second, third = keys(clip)[:3]
    assert positions[:2] == pytest.approx([first, second], abs=0.01)
    assert positions[2] == pytest.approx(third, abs=0.13)  # an open GOP shows B-frames before it
    assert 5 <= len(positions) - 2 <= 14
    assert not any(frame.corrupt for frame in frames)


def test_reference_depth_leaves_out_what_nothing_else_needs(tmp_path: Path) -> None:
    """A third of the cost of everything, and each picture is still whole."""
    clip = write_clip(tmp_path / "a.mkv", 3.0, options={"bf": "2"}, sound=False)

    frames = pictures(watch(clip, Depth.REFERENCE))

    assert 25 <= len(frames) < 70
    assert len(frames) + sum(frame.skipped for frame in frames) in range(72, 76)


def test_a_stream_without_keyframes_is_decoded_anyway(tmp_path: Path) -> None:
    """Intra refresh has one keyframe ever; who joins later must not wait for the next, nor
    take the decoder's caution for damage.
    """
    late = without_keys(tmp_path)

    frames = pictures(watch(late, Depth.ALL))

    assert 14.0 <= frames[0].position < 15.0
    assert len(frames) >= 40
    assert not any(frame.corrupt for frame in frames)


def without_keys(folder: Path) -> Path:
    """An intra-refresh stream whose only keyframe and recovery marks are gone."""
    options = {"bf": "0", "x264-params": "intra-refresh=1:keyint=50:bframes=0"}
    clip = write_clip(folder / "a.mkv", 16.0, gop=100_000, options=options, sound=False)
    late = folder / "late.mkv"
    with av.open(str(clip)) as source, av.open(str(late), "w") as output:
        video = source.streams.video[0]
        unmarked = BitStreamFilterContext("filter_units=remove_types=6|9", video)
        stream = output.add_stream_from_template(video)
        packets = [p for q in source.demux(video) if q.size for p in unmarked.filter(q)]
        for packet in packets[1:]:
            packet.stream = stream
            output.mux(packet)
    return late


def test_codecs_that_cannot_mend_themselves_wait_for_a_keyframe(tmp_path: Path) -> None:
    """Begun between keyframes VP8 complains at every packet, which would look like loss."""
    path = write_clip(tmp_path / "a.mkv", 16.0, codec="libvpx", gop=375, sound=False, width=160)
    asked = iter([Depth.KEYFRAMES] * 20)

    items = watch(path, lambda: next(asked, Depth.ALL))

    assert sum(t.decode_errors for t in items if isinstance(t, Traffic)) == 0
    assert [frame.key for frame in pictures(items)][:2] == [True, True]


def test_all_intra_streams_are_thinned_at_keyframe_depth(tmp_path: Path) -> None:
    """In MJPEG every picture is a key: decoding all would cost as much as depth ALL."""
    clip = write_clip(tmp_path / "a.mkv", 4.0, codec="mjpeg", pixel_format="yuvj420p", sound=False)

    keys = pictures(watch(clip, Depth.KEYFRAMES))

    assert 8 <= len(keys) <= 11
    assert len(pictures(watch(clip, Depth.ALL))) == 100


@pytest.mark.parametrize("quantiser", [20, 40])
def test_h264_pictures_tell_their_mean_quantiser(tmp_path: Path, quantiser: int) -> None:
    """The encoder's own admission of how coarse it was."""
    options = {"qp": str(quantiser), "bf": "0", "x264-params": "ipratio=1.0:aq-mode=0"}
    clip = write_clip(tmp_path / "a.mkv", 1.0, options=options, sound=False)

    [frame] = pictures(watch(clip, Depth.KEYFRAMES))

    assert frame.qp == pytest.approx(quantiser, abs=1.5)


def test_other_codecs_tell_no_quantiser(tmp_path: Path) -> None:
    """Scales differ per codec; a number on another scale would be worse than none."""
    clip = write_clip(tmp_path / "a.ts", 1.0, codec="mpeg2video", options={"b": "1M"}, sound=False)

    assert all(frame.qp is None for frame in pictures(watch(clip, Depth.ALL)))


def test_interlaced_streams_are_marked_and_give_their_keyframes(tmp_path: Path) -> None:
    """Broadcast is interlaced; the second field must not be lost in keyframe mode."""
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1:scenecut=0", "bf": "2"}
    clip = write_clip(tmp_path / "a.ts", 4.0, height=192, options=options, sound=False)

    keys = [frame for frame in pictures(watch(clip, Depth.KEYFRAMES)) if frame.key]

    assert [round(frame.position, 2) for frame in keys] == [0.0, 1.0, 2.0, 3.0]
    assert all(frame.interlaced for frame in keys)


def test_one_decoder_thread_per_stream(tmp_path: Path) -> None:
    """FFmpeg's default is one thread per CPU and stream: 50 streams would start 3,200."""
    clip = write_clip(tmp_path / "a.mkv", 1.0)
    before = _threads()

    with open_source(Stream("x", str(clip))).open() as media:
        counts = [_threads() for item in media if isinstance(item, Frame)]

    assert max(counts) == before


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
