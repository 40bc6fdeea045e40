"""Pictures kept for a segment, and the ring of packets. Media are made by the tests."""

from __future__ import annotations

import io
import logging
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vqmon.domain import Colour, Finding, Frame, Segment
from vqmon.evidence import EvidenceKeeper, PacketRing, folder_name
from vqmon.evidence.packets import _begun
from vqmon.patches.shown import rgb_matrix, shown

NOON = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
BLUR = Finding("blur", 3, 0.9, 12.0, 20.0)


def frame(
    position: float = 0.0, luma: int = 128, size: tuple[int, int] = (360, 640), *, key: bool = True
) -> Frame:
    """A 4:2:0 picture of one colour."""
    height, width = size
    planes = (
        np.full((height, width), luma, np.uint8),
        np.full((height // 2, width // 2), 128, np.uint8),
        np.full((height // 2, width // 2), 128, np.uint8),
    )
    return Frame(planes, position, NOON + timedelta(seconds=position), key=key)


def segment(*findings: Finding, at: float = 0.0) -> Segment:
    return Segment("news", NOON + timedelta(seconds=at), at, 10.0, quality=60.0, findings=findings)


def keeper(folder: Path, **settings: object) -> EvidenceKeeper:
    return EvidenceKeeper(folder, "news", **{"hourly": False, **settings})  # type: ignore[arg-type]


def watch(evidence: EvidenceKeeper, *findings: Finding, at: float = 0.0, worst: int = 3) -> Segment:
    """Ten seconds with a scored frame every second; the `worst`-th is bad and bright."""
    for second in range(10):
        luma, quality = (235, 5.0) if second == worst else (60 + 10 * second, 80.0)
        evidence.offer(frame(at + second, luma), quality)
    return evidence.close(segment(*findings, at=at))


def brightness(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).mean())


def test_every_segment_has_a_thumbnail_and_a_clean_one_nothing_else(tmp_path: Path) -> None:
    """Thumbnails make the mosaic; full pictures of good video would only fill the disk."""
    kept = watch(keeper(tmp_path))

    assert kept.thumbnail == f"news/2026-03-01/120005-{kept.id[:8]}-thumb.jpg"
    assert Image.open(tmp_path / kept.thumbnail).size == (320, 180)
    assert kept.evidence == ()
    assert len(list(tmp_path.rglob("*.*"))) == 1


def test_a_segment_with_findings_keeps_its_worst_moment_and_three_spread_ones(
    tmp_path: Path,
) -> None:
    """The operator sees the fault at its clearest, and what the video was like around it."""
    kept = watch(keeper(tmp_path), BLUR)

    names = [Path(path).name.rsplit("-", 1)[1] for path in kept.evidence]
    assert names == ["worst.jpg", "1.jpg", "2.jpg", "3.jpg"]
    levels = [brightness(tmp_path / path) for path in kept.evidence]
    assert levels[0] == max(levels)
    seconds = [(level * 219 / 255 + 16 - 60) / 10 for level in levels[1:]]
    assert np.allclose(seconds, [2, 5, 8], atol=0.3)


def test_the_thumbnail_of_a_faulty_segment_shows_the_fault(tmp_path: Path) -> None:
    """Nobody looks closer at a thumbnail that was taken when all was well."""
    kept = watch(keeper(tmp_path), BLUR)

    assert kept.thumbnail
    assert brightness(tmp_path / kept.thumbnail) > 250


def test_full_pictures_are_full_size_without_chroma_subsampling(tmp_path: Path) -> None:
    """Evidence must not add a degradation of its own."""
    kept = watch(keeper(tmp_path), BLUR)

    picture = Image.open(tmp_path / kept.evidence[0])
    assert picture.size == (640, 360)
    assert {layer[1:3] for layer in picture.layer} == {(1, 1)}  # type: ignore[attr-defined]
    assert max(picture.quantization[0]) <= 12  # type: ignore[attr-defined]  # libjpeg at 95


def test_pictures_turned_to_jpeg_early_are_the_same_pictures(tmp_path: Path) -> None:
    """Saving memory in the middle of a segment must not change what is kept."""
    early, late = keeper(tmp_path / "early"), keeper(tmp_path / "late")
    for second in range(10):
        early.offer(frame(second, 60 + 10 * second, key=False), 80.0 - second)
        late.offer(frame(second, 60 + 10 * second, key=True), 80.0 - second)

    kept = segment(BLUR)
    paths = early.close(kept).evidence

    assert paths == late.close(kept).evidence
    for path in paths:
        assert (tmp_path / "early" / path).read_bytes() == (tmp_path / "late" / path).read_bytes()


@pytest.mark.parametrize(("key", "most"), [(True, 3), (False, 1)], ids=["keyframes", "all"])
def test_few_frames_are_held_as_decoded(tmp_path: Path, key: bool, most: int) -> None:
    """Each costs 3.1 MB at 1080p, and a stream may take 35 MB altogether."""
    evidence = keeper(tmp_path)
    tracemalloc.start()

    for second in range(9):
        evidence.offer(frame(second, 60 + 10 * second, (1080, 1920), key=key), 80.0 - second % 4)

    held = tracemalloc.get_traced_memory()[0] / (1920 * 1080 * 1.5)
    tracemalloc.stop()
    assert held < most + 0.3


def test_full_pictures_come_once_an_hour_although_nothing_is_wrong(tmp_path: Path) -> None:
    """So that a slow decline can be seen; the first segment shows how it began."""
    evidence = keeper(tmp_path, hourly=True)

    kept = [bool(watch(evidence, at=600.0 * turn).evidence) for turn in range(13)]

    assert kept == [True, *[False] * 5, True, *[False] * 5, True]


def test_a_new_keeper_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    """A visit every five minutes must not bring a full set each."""
    evidence = keeper(tmp_path, hourly=True, full_set_at=NOON - timedelta(minutes=55))

    kept = [bool(watch(evidence, at=300.0 * turn).evidence) for turn in range(2)]

    assert kept == [False, True]


def test_what_may_raise_an_alert_or_is_asked_about_is_shown(tmp_path: Path) -> None:
    """A bad score without a named cause, and one that the model itself does not trust."""
    evidence = keeper(tmp_path, uncertain=20.0, below=[("quality", 50.0), ("quality_worst", 10.0)])
    cases = [
        (60.0, 30.0, 19.0),
        (60.0, 30.0, 20.0),
        (49.0, 30.0, 5.0),
        (60.0, 9.0, 5.0),
        (None, None, None),
    ]
    kept = []

    for turn, (quality, worst, uncertainty) in enumerate(cases):
        evidence.offer(frame(10.0 * turn, 80), quality)
        scores: dict[str, Any] = {"quality": quality, "quality_worst": worst}
        scores["uncertainty"] = uncertainty
        kept.append(bool(evidence.close(replace(segment(at=10.0 * turn), **scores)).evidence))

    assert kept == [False, True, True, True, False]


def test_an_alert_brings_full_pictures_for_the_next_segments(tmp_path: Path) -> None:
    """What was seen around an alert is what people ask about later."""
    evidence = keeper(tmp_path)
    watch(evidence)

    evidence.around_alert(segments=2)
    kept = [bool(watch(evidence, at=10.0 * turn).evidence) for turn in (1, 2, 3)]

    assert kept == [True, True, False]


def test_nothing_is_carried_into_the_next_segment(tmp_path: Path) -> None:
    """A picture of the last segment would be a lie about this one."""
    evidence = keeper(tmp_path)
    watch(evidence)

    empty = evidence.close(segment(BLUR, at=10))

    assert (empty.thumbnail, empty.evidence) == (None, ())


def test_a_segment_without_any_score_still_has_pictures(tmp_path: Path) -> None:
    """While the scoring process is away, people can still look."""
    evidence = keeper(tmp_path)
    for second in range(10):
        evidence.offer(frame(second), None)

    kept = evidence.close(segment(BLUR))

    assert kept.thumbnail
    assert kept.evidence


def test_nothing_is_written_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    """Pictures stop first, so that rows can go on."""
    evidence = keeper(tmp_path, allowed=lambda: False)

    kept = watch(evidence, BLUR)

    assert (kept.thumbnail, kept.evidence) == (None, ())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported_once_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk must neither stop the watching nor fill the log."""
    caplog.set_level(logging.INFO)
    (tmp_path / "news").write_text("a file where the folder should be")
    evidence = keeper(tmp_path)

    lost = [watch(evidence, BLUR, at=10.0 * turn) for turn in range(3)]
    (tmp_path / "news").unlink()
    kept = watch(evidence, BLUR, at=30.0)

    assert all((it.thumbnail, it.evidence) == (None, ()) for it in lost)
    assert kept.thumbnail
    assert len(kept.evidence) == 4
    assert [it.message for it in caplog.records] == [
        "evidence_not_written",
        "evidence_written_again",
    ]


def test_no_half_written_picture_is_ever_left(tmp_path: Path) -> None:
    """Whoever reads the folder, a web server or a backup, finds whole pictures only."""
    folder = tmp_path / "news" / "2026-03-01"
    kept = segment()
    (folder / f"120005-{kept.id[:8]}-thumb.jpg").mkdir(parents=True)
    evidence = keeper(tmp_path)
    evidence.offer(frame(), 50.0)

    lost = evidence.close(kept)

    assert lost.thumbnail is None
    assert [it.name for it in folder.iterdir() if it.is_file()] == []


def test_turned_and_anamorphic_video_is_shown_as_a_player_shows_it() -> None:
    """A phone's portrait video, and DVB's 1440x1080 for 16:9."""
    planes = frame(size=(1080, 1440)).planes
    planes[0][:540] = 235

    anamorphic = shown(Frame(planes, 0.0, NOON, sample_aspect=4 / 3))
    turned = shown(Frame(planes, 0.0, NOON, rotation=90))

    assert anamorphic.size == (1920, 1080)
    assert turned.size == (1080, 1440)
    bright = np.asarray(turned.convert("L")) > 200
    assert bright[:, -500:].all(), "clockwise: what was on top is now on the right"
    assert not bright[:, :500].any()


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1e9, float("nan")])
def test_an_impossible_sample_aspect_is_ignored(wrong: float) -> None:
    """Broken headers must not turn a picture into a line a million pixels wide."""
    assert shown(Frame(frame().planes, 0.0, NOON, sample_aspect=wrong)).size == (640, 360)


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_come_back_as_the_standards_say(matrix: str, full_range: bool) -> None:
    """Golden values: R'G'B' to Y'CbCr by the standards' own formulas, and back here."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[
        matrix
    ]
    wanted = np.array([[200, 40, 90], [0, 255, 0], [17, 17, 255], [255, 255, 255], [0, 0, 0]])
    rgb = wanted / 255
    y = rgb @ [kr, 1 - kr - kb, kb]
    u, v = (rgb[:, 2] - y) / (2 * (1 - kb)), (rgb[:, 0] - y) / (2 * (1 - kr))
    scale = (255, 0, 255) if full_range else (219, 16, 224)
    coded = np.stack([y * scale[0] + scale[1], u * scale[2] + 128, v * scale[2] + 128, y * 0 + 1])

    back = np.reshape(rgb_matrix(Colour(full_range, matrix)), (3, 4)) @ coded  # type: ignore[arg-type]

    assert np.allclose(back.T, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["../../etc", ".hidden", "a/b", "studio 1", "Bühne"])
def test_a_stream_name_never_leaves_the_folder(name: str) -> None:
    """Names come from a configuration, and one day from an API."""
    folder = folder_name(name)

    assert "/" not in folder
    assert not folder.startswith(".")


# -- the ring of packets


def clip_of(
    seconds: float, *, size: int = 64, start: float = 0.0, gop: int = 25, container: str = "mpegts"
) -> bytes:
    """25 frames a second of H.264 with B frames, and a tone, beginning at time `start`."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "2"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = gop
        sound = out.add_stream("aac", rate=48000)
        for number in range(round(seconds * 25)):
            picture = av.VideoFrame.from_ndarray(
                np.full((size * 3 // 2, size), number % 200 + 20, np.uint8), format="yuv420p"
            )
            picture.pts, picture.time_base = number + round(start * 25), Fraction(1, 25)
            out.mux(video.encode(picture))
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, 1920), np.float32), format="fltp", layout="mono"
            )
            samples.sample_rate = 48000
            samples.pts = (number + round(start * 25)) * 1920
            samples.time_base = Fraction(1, 48000)
            out.mux(sound.encode(samples))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return file.getvalue()


def play(ring: PacketRing, *clips: bytes) -> int:
    """Demux the clips one after the other into the ring; how many video packets there were."""
    count = 0
    for clip in clips:
        with av.open(io.BytesIO(clip), "r") as container:
            for packet in container.demux():
                ring.tee(packet, container)
                count += packet.stream.type == "video" and packet.dts is not None
            ring.tee(None, container)
    return count


def pictures(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path), "r") as container:
        yield from container.decode(video=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wall time of the ring, moved by hand; each look at it takes a millisecond."""
    now = [1_000_000.0]

    def tick() -> float:
        now[0] += 0.001
        return now[0]

    fake = SimpleNamespace(time=tick, time_ns=lambda: int(tick() * 1e9), monotonic=lambda: now[0])
    monkeypatch.setattr("vqmon.evidence.packets.time", fake)
    return now


def test_the_clip_holds_every_picture_and_the_sound(tmp_path: Path, clock: list[float]) -> None:
    """Enhancement and people get what arrived, not what was left of it."""
    ring = PacketRing(tmp_path / "ring", 60)

    count = play(ring, clip_of(25))
    seconds = ring.clip(tmp_path / "clip.mp4")

    assert len(ring.files()) == 3
    assert seconds == pytest.approx(25, abs=0.2)
    assert len(list(pictures(tmp_path / "clip.mp4"))) == count == 625
    with av.open(str(tmp_path / "clip.mp4"), "r") as clip:
        assert sum(packet.size > 0 for packet in clip.demux(audio=0)) > 24.5 * 48000 / 1024


def test_packets_can_still_be_decoded_after_the_ring_saw_them(
    tmp_path: Path, clock: list[float]
) -> None:
    """The ring stands between demuxing and decoding; it must be invisible there."""
    ring = PacketRing(tmp_path, 60)
    seen: list[av.VideoFrame] = []

    with av.open(io.BytesIO(clip_of(2)), "r") as container:
        for packet in container.demux(video=0):
            before = packet.pts, packet.dts, packet.time_base, packet.stream.index, bytes(packet)
            ring.tee(packet, container)
            assert before == (
                packet.pts, packet.dts, packet.time_base, packet.stream.index, bytes(packet)
            )  # fmt: skip
            seen += packet.decode()

    assert len(seen) == 50


def test_only_the_last_seconds_are_kept(tmp_path: Path, clock: list[float]) -> None:
    """The ring's disk use is bounded for ever."""
    ring = PacketRing(tmp_path, 20)

    for turn in range(10):
        play(ring, clip_of(10, start=10.0 * turn))
        clock[0] += 10

    assert 20 <= ring.clip(tmp_path / "clip.mp4") <= 32
    assert len(ring.files()) <= 4


def test_a_new_format_begins_a_new_file_and_the_clip_has_the_newest(
    tmp_path: Path, clock: list[float]
) -> None:
    """An encoder that changes its resolution must not make the ring unreadable."""
    ring = PacketRing(tmp_path / "ring", 60)

    play(ring, clip_of(4, size=64), clip_of(6, size=96))

    assert ring.clip(tmp_path / "clip.mkv") == pytest.approx(6, abs=0.2)
    assert {picture.width for picture in pictures(tmp_path / "clip.mkv")} == {96}


@pytest.mark.parametrize("second", [0.0, 103.0, 500.0], ids=["far back", "a little back", "ahead"])
def test_a_jump_of_timestamps_leaves_no_hole_in_the_clip(
    tmp_path: Path, clock: list[float], second: float
) -> None:
    """After an encoder's restart the clip goes on where it was."""
    ring = PacketRing(tmp_path / "ring", 60)

    count = play(ring, clip_of(5, start=100), clip_of(5, start=second))

    assert ring.clip(tmp_path / "clip.mp4") == pytest.approx(10, abs=0.3)
    assert len(list(pictures(tmp_path / "clip.mp4"))) == count


def test_without_further_keyframes_the_file_still_ends(tmp_path: Path, clock: list[float]) -> None:
    """Some cameras send one keyframe and then none for hours; the disk must not fill."""
    ring = PacketRing(tmp_path, 15)

    play(ring, clip_of(40, gop=10_000))

    with av.open(str(ring.files()[0]), "r") as held:
        assert (held.duration or 0) / 1e6 == pytest.approx(15, abs=0.5)
    assert len(ring.files()) == 1


def test_an_empty_ring_gives_no_clip(tmp_path: Path) -> None:
    """Asked before anything arrived, it says so instead of writing an empty file."""
    assert PacketRing(tmp_path / "none").clip(tmp_path / "clip.mp4") == 0.0
    assert not (tmp_path / "clip.mp4").exists()


def test_damaged_files_of_the_ring_are_passed_over(tmp_path: Path, clock: list[float]) -> None:
    """A power cut leaves a torn file; the rest is as good as before."""
    ring = PacketRing(tmp_path / "ring", 60)
    play(ring, clip_of(3))
    (tmp_path / "ring" / "000000000000001.mkv").write_bytes(b"torn")

    assert ring.clip(tmp_path / "clip.mkv") == pytest.approx(3, abs=0.2)


def test_a_ring_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    """Missing packets are worth one line, not one for each packet."""
    (tmp_path / "ring").write_text("a file where the folder should be")

    play(PacketRing(tmp_path / "ring", 60), clip_of(3), clip_of(3))

    assert [it.message for it in caplog.records] == ["packets_not_kept"]


def test_a_clip_that_cannot_be_written_is_an_os_error(tmp_path: Path, clock: list[float]) -> None:
    """Callers need not know PyAV to tell their users."""
    ring = PacketRing(tmp_path / "ring", 60)
    play(ring, clip_of(2))

    with pytest.raises(OSError, match="clip"):
        ring.clip(tmp_path / "no such folder" / "clip.mp4")


def test_a_cut_holds_its_time_from_a_keyframe_on(tmp_path: Path, clock: list[float]) -> None:
    """A segment in the middle of what is kept, across the border of two files."""
    ring = PacketRing(tmp_path / "ring", 60)
    in_step(ring, clip_of(24), clock)
    assert [_begun(it) for it in ring.files()] == pytest.approx(
        [1_000_000, 1_000_010, 1_000_020], abs=0.5
    )

    seconds = ring.cut(tmp_path / "cut.mkv", 1_000_007.5, 1_000_012.5)

    assert seconds == pytest.approx(5.5, abs=0.6)
    times = [it.time or 0.0 for it in pictures(tmp_path / "cut.mkv")]
    assert np.diff(times) == pytest.approx(0.04, abs=0.005)
    assert len(times) == pytest.approx(25 * seconds, abs=3)


def test_a_cut_of_a_time_that_is_not_kept_is_none(tmp_path: Path, clock: list[float]) -> None:
    """The segment is older than the ring, or its packets never came."""
    ring = PacketRing(tmp_path / "ring", 60)
    in_step(ring, clip_of(12), clock)

    assert ring.cut(tmp_path / "cut.mkv", 999_000.0, 999_010.0) == 0.0
    assert ring.cut(tmp_path / "cut.mkv", 1_000_100.0, 1_000_110.0) == 0.0
    assert PacketRing(tmp_path / "none").cut(tmp_path / "cut.mkv", 0.0, 2e9) == 0.0
    assert not (tmp_path / "cut.mkv").exists()


def test_the_ring_says_how_new_its_newest_packet_is(tmp_path: Path, clock: list[float]) -> None:
    """Whoever wants a clip of what was just seen waits for it to reach the disk."""
    ring = PacketRing(tmp_path / "ring", 60)
    assert ring.newest() == 0.0

    in_step(ring, clip_of(12), clock)

    assert ring.newest() == pytest.approx(1_000_012, abs=1.5)


def in_step(ring: PacketRing, clip: bytes, clock: list[float]) -> None:
    """Demux into the ring, the clock going on with the stream."""
    with av.open(io.BytesIO(clip), "r") as container:
        first = None
        for packet in container.demux():
            if packet.dts is not None:
                at = float(packet.dts * packet.time_base)
                first = at if first is None else first
                clock[0] = max(clock[0], 1_000_000.0 + at - first)
                ring.tee(packet, container)
