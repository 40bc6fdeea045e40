"""Whatever people hand in: a result or a reason with its remedy, for each, and all in bounded time.

Never a traceback, a hang, an exhausted memory, a made-up score, or a loss of what was measured
before or of the other files of the same call. All through the real command line.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import misbehaving, spoiled
from tests.contract import servers
from tests.spoiled import clip, photograph
from vqmon.cli import run_program
from vqmon.domain import DOWN_REASONS, FAULTS, FINDING_NAMES
from vqmon.store import open_store

Make = Callable[[Path], object]

VQMON = [sys.executable, "-m", "vqmon"]
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("VQMON_")} | {
    "PYTHONPATH": os.pathsep.join(sys.path)
}
MEGABYTE = 1 << 20
BROKEN = frozenset({*FAULTS, "corrupted"})
"""What a flaw in the file itself can be called; blur and noise depend on what it shows."""


@dataclass(frozen=True)
class Ended:
    """A finished command. took: seconds; memory: bytes at its peak."""

    code: int
    out: str
    err: str
    took: float
    memory: int

    @property
    def told(self) -> list[dict[str, Any]]:
        return list(json.loads(self.out))

    @property
    def complaints(self) -> list[str]:
        return [it.removeprefix("error: ") for it in self.err.splitlines()]


def vqmon(
    *arguments: str, folder: Path, seconds: float = 100, prefix: tuple[str, ...] = ()
) -> Ended:
    """Run the program to its end; it is killed, and the test fails, after `seconds`."""
    began, memory = time.monotonic(), 0
    with open(folder / ".out", "w+b") as out, open(folder / ".err", "w+b") as err:
        process = subprocess.Popen(
            [*prefix, *VQMON, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=ENVIRON,
        )
        while process.poll() is None:
            memory = max(memory, _peak(process.pid))
            if time.monotonic() - began > seconds:
                process.kill()
            time.sleep(0.03)
        out.seek(0)
        err.seek(0)
        told, complained = (it.read().decode(errors="surrogateescape") for it in (out, err))
    ended = Ended(process.returncode, told, complained, time.monotonic() - began, memory)
    assert ended.code != -9, f"did not end within {seconds} s: {ended.err[-2000:]}"
    assert "Traceback" not in ended.err
    assert "bug in vqmon" not in ended.err
    return ended


def _peak(pid: int) -> int:
    """Most resident memory of a process so far, bytes; 0 when it is gone."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found.group(1)) * 1024 if found else 0
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all files, and for the good recordings that the bad ones are made of."""
    return tmp_path_factory.mktemp("media")


# -- files that cannot be scored ---------------------------------------------------------------

whole: dict[str, bytes] = {}
"""Good recordings, by suffix; filled before anything is damaged."""

UNSCORED: dict[str, tuple[Make, str, str]] = {
    "missing.mp4": (lambda _: None, "not_found", "no such file"),
    "folder.mp4": (Path.mkdir, "invalid_data", "is a folder; name the files in it"),
    "pipe.mp4": (os.mkfifo, "invalid_data", "is not a regular file"),
    "device.mp4": (lambda p: p.symlink_to("/dev/zero"), "invalid_data", "is not a regular file"),
    "dangling.mp4": (lambda p: p.symlink_to("nowhere"), "not_found", "does not exist"),
    "circle.mp4": (lambda p: p.symlink_to(p.name), "not_found", "does not exist"),
    "empty.mp4": (Path.touch, "invalid_data", "is empty (0 bytes)"),
    "byte.ts": (lambda p: p.write_bytes(b"G"), "invalid_data", "check that it is complete"),
    "zeros.mp4": (spoiled.zeros, "invalid_data", "check that it is complete"),
    "zeros.ts": (spoiled.zeros, "invalid_data", "check that it is complete"),
    "noise.mp4": (spoiled.noise, "invalid_data", "check that it is complete"),
    "noise.ts": (spoiled.noise, "invalid_data", "check that it is complete"),
    "noise.h264": (spoiled.noise, "invalid_data", ""),
    "noise.jpg": (spoiled.noise, "invalid_data", "damaged"),
    "noise.yuv": (spoiled.noise, "invalid_data", "check that it is complete"),
    "noise.bin": (lambda p: spoiled.noise(p, 4000), "invalid_data", ""),
    "letter.mp4": (spoiled.letter, "invalid_data", "check that it is complete"),
    "letter.txt": (spoiled.letter, "invalid_data", "is a text"),
    "letter.nfo": (spoiled.letter, "invalid_data", "is a text"),
    "page.ts": (spoiled.web_page, "invalid_data", "a video at all"),
    "program.mp4": (
        lambda p: p.write_bytes(Path(sys.executable).read_bytes()[:300_000]),
        "invalid_data",
        "a video at all",
    ),
    "archive.mp4": (
        lambda p: zipfile.ZipFile(p, "w").writestr("film.mp4", bytes(9999)),
        "invalid_data",
        "a video at all",
    ),
    "subtitles.srt": (
        lambda p: p.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n"),
        "invalid_data",
        "has no video",
    ),
    "song.mp3": (lambda p: spoiled.sound(p, "libmp3lame"), "invalid_data", "only sound"),
    "song.m4a": (lambda p: spoiled.sound(p, "aac"), "invalid_data", "only sound"),
    "song.ts": (lambda p: spoiled.sound(p, "aac", "mpegts"), "invalid_data", "only sound"),
    "unfinished.mp4": (
        lambda p: spoiled.cut(p, whole["plain.mp4"], 0.7),
        "invalid_data",
        "its index (moov) is missing",
    ),
    "stub.ts": (
        lambda p: p.write_bytes(whole["ts"][: 3 * spoiled.TS_PACKET]),
        "invalid_data",
        "damaged, cut off",
    ),
    "scrambled.ts": (
        lambda p: spoiled.scrambled(p, whole["ts"]),
        "invalid_data",
        "damaged, cut off or of an unknown kind",
    ),
    "beginning.jpg": (lambda p: spoiled.cut_picture(p, 0.02), "invalid_data", "damaged, cut off"),
    "half.png": (lambda p: spoiled.cut_picture(p, 0.5), "invalid_data", "damaged, cut off"),
    "half.webp": (lambda p: spoiled.cut_picture(p, 0.5), "invalid_data", "damaged or cut off"),
    "animation.webp": (spoiled.animation, "invalid_data", "animated; convert"),
    "dot.png": (lambda p: photograph(1, 1).save(p), "unsupported_picture", "32 to 16384 pixels"),
    "icon.jpg": (lambda p: photograph(31, 31).save(p), "unsupported_picture", "32 to 16384"),
    "line.png": (lambda p: photograph(1000, 1).save(p), "unsupported_picture", "32 to 16384"),
    "stamp.mkv": (lambda p: clip(p, 0.2, size=(16, 16)), "unsupported_picture", "32 to 16384"),
    "wide.png": (lambda p: photograph(16385, 32).save(p), "invalid_data", "16385x32 are too large"),
    "hdr.mp4": (
        lambda p: clip(
            p,
            0.2,
            codec="libx265",
            pixel_format="yuv420p10le",
            options={
                "x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:"
                "colormatrix=bt2020nc"
            },
        ),
        "unsupported_picture",
        "SDR rendition",
    ),
    "night.png": (
        lambda p: photograph().point(lambda _: 0).save(p),
        "black",
        "is black, which says nothing",
    ),
    "missing.m3u8": (lambda p: spoiled.playlist(p, "no.ts"), "invalid_data", "no.ts"),
    "greedy.m3u8": (lambda p: spoiled.playlist(p, "/etc/passwd"), "invalid_data", ""),
    "calling.m3u8": (lambda p: spoiled.playlist(p, "http://127.0.0.1:9/a.ts"), "invalid_data", ""),
    "session.sdp": (lambda p: p.write_text("v=0\n"), "invalid_data", "`vqmon probe`"),
    "bomb.png": (lambda p: spoiled.png_claiming(p, 60000, 60000), "invalid_data", "60000x60000"),
    "bomb.jpg": (
        lambda p: spoiled.claiming(p, b"\xff\xc0", 5, struct.pack(">HH", 60000, 60000)),
        "invalid_data",
        "60000x60000 are too large",
    ),
    "bomb.gif": (
        lambda p: spoiled.claiming(p, b"GIF8", 6, b"\xff" * 4),
        "invalid_data",
        "65535x65535 are too large",
    ),
    "bomb.bmp": (
        lambda p: spoiled.claiming(p, b"BM", 18, struct.pack("<ii", 60000, 60000)),
        "invalid_data",
        "60000x60000 are too large",
    ),
    "packed.png": (spoiled.packed, "invalid_data", "16000x16000 are too large"),
}
"""name -> (how it is made, reason, a part of the message)."""

# -- files that can ----------------------------------------------------------------------------

SCORED: dict[str, tuple[Make, float, frozenset[str]]] = {
    "first.mp4": (lambda p: p.write_bytes(whole["mp4"]), 2.0, frozenset()),
    "good.ts": (lambda p: p.write_bytes(whole["ts"]), 2.0, frozenset()),
    "half.ts": (
        lambda p: p.write_bytes(whole["long.ts"][: len(whole["long.ts"]) // 2 + 77]),
        2.0,
        frozenset({"packet_loss"}),
    ),
    "half.mp4": (lambda p: spoiled.cut(p, whole["long.mp4"], 0.5), 2.0, frozenset({"packet_loss"})),
    "headless.ts": (
        lambda p: p.write_bytes(whole["ts"][len(whole["ts"]) // 3 :]),
        1.0,
        frozenset(),
    ),
    "flipped.ts": (
        lambda p: spoiled.flipped(p, whole["ts"], spare=30_000),
        2.0,
        frozenset({"packet_loss", "corrupted"}),
    ),
    "lossy.ts": (
        lambda p: spoiled.lossy(p, whole["ts"]),
        2.0,
        frozenset({"packet_loss", "corrupted"}),
    ),
    "single.mp4": (spoiled.still_video, 0.04, frozenset()),
    "single.ts": (spoiled.still_video, 0.04, frozenset()),
    "single.mkv": (spoiled.still_video, 0.04, frozenset()),
    "paced.mkv": (
        lambda p: spoiled.with_times(
            p, [*(i / 25 for i in range(50)), *(2 + i / 8 for i in range(16))]
        ),
        4.0,
        frozenset(),
    ),
    "larger.ts": (
        lambda p: spoiled.joined(p, whole["ts"], whole["large.ts"]),
        3.0,
        frozenset({"format_changed", "timestamp_jump", "packet_loss"}),
    ),
    "recoded.ts": (
        lambda p: spoiled.joined(p, whole["ts"], whole["mpeg2.ts"]),
        4.0,
        frozenset({"format_changed", "timestamp_jump", "packet_loss"}),
    ),
    "reset.ts": (
        lambda p: spoiled.joined(p, whole["ts"], whole["ts"]),
        4.0,
        frozenset({"timestamp_jump", "packet_loss"}),
    ),
    "leap.ts": (
        lambda p: spoiled.joined(p, whole["ts"], whole["far.ts"]),
        4.0,
        frozenset({"timestamp_jump", "packet_loss"}),
    ),
    "wrapped.ts": (
        lambda p: clip(p, first=round((2**33 / 90000 - 1) * 25), options={"bf": "0"}),
        2.0,
        frozenset(),
    ),
    "negative.mkv": (lambda p: clip(p, first=-25), 2.0, frozenset()),
    "deep.mp4": (
        lambda p: clip(p, 0.4, codec="libx265", pixel_format="yuv420p10le"),
        0.4,
        frozenset(),
    ),
    "fields.mpg": (
        lambda p: clip(
            p,
            0.4,
            size=(352, 288),
            codec="mpeg2video",
            options={"flags": "+ildct+ilme", "b": "4M"},
            sound=False,
        ),
        0.4,
        frozenset(),
    ),
    "turned.mp4": (spoiled.turned, 0.4, frozenset()),
    "odd.mkv": (lambda p: clip(p, 0.4, size=(127, 65), codec="ffv1"), 0.4, frozenset()),
    "full-chroma.mp4": (
        lambda p: clip(p, 0.4, size=(127, 65), pixel_format="yuv444p"),
        0.4,
        frozenset(),
    ),
    "half-chroma.mp4": (lambda p: clip(p, 0.4, pixel_format="yuv422p10le"), 0.4, frozenset()),
    "grey.mkv": (lambda p: clip(p, 0.4, codec="ffv1", pixel_format="gray"), 0.4, frozenset()),
    "rgb.mkv": (lambda p: clip(p, 0.4, codec="libx264rgb", pixel_format="rgb24"), 0.4, frozenset()),
    "huge.mp4": (spoiled.huge_video, 0.08, frozenset()),
    "huge.jpg": (spoiled.huge_photograph, 0.04, frozenset()),
    "photo.jpg": (lambda p: photograph().save(p, quality=92), 0.04, frozenset()),
    "progressive.jpg": (lambda p: photograph().save(p, progressive=True), 0.04, frozenset()),
    "sideways.jpg": (spoiled.sideways, 0.04, frozenset()),
    "print.jpg": (lambda p: photograph().convert("CMYK").save(p), 0.04, frozenset()),
    "grey.jpg": (lambda p: photograph().convert("L").save(p), 0.04, frozenset()),
    "photo.png": (lambda p: photograph().save(p), 0.04, frozenset()),
    "alpha.png": (lambda p: photograph().convert("RGBA").save(p), 0.04, frozenset()),
    "palette.png": (lambda p: photograph().convert("P").save(p), 0.04, frozenset()),
    "deep.png": (spoiled.deep, 0.04, frozenset()),
    "smallest.png": (lambda p: photograph(32, 32).save(p), 0.04, frozenset()),
    "photo.webp": (lambda p: photograph().save(p), 0.04, frozenset()),
    "lossless.webp": (lambda p: photograph().save(p, lossless=True), 0.04, frozenset()),
    "photo.bmp": (lambda p: photograph().save(p), 0.04, frozenset()),
    "photo.tiff": (lambda p: photograph().save(p), 0.04, frozenset()),
    "photo.gif": (lambda p: photograph().save(p), 0.1, frozenset()),
    "animation.gif": (spoiled.animation, 0.5, frozenset()),
    "animation.png": (spoiled.animation, 0.5, frozenset()),
    "misnamed.jpg": (lambda p: photograph().save(p, format="PNG"), 0.04, frozenset()),
    "photo.mp4": (lambda p: photograph().save(p, format="JPEG"), 0.04, frozenset()),
    "film.png": (lambda p: p.write_bytes(whole["mp4"]), 2.0, frozenset()),
    "still.m3u8": (
        lambda p: spoiled.playlist(p, "good.ts", ended=False),
        2.0,
        frozenset(),
    ),
    "last.mp4": (lambda p: p.write_bytes(whole["mp4"]), 2.0, frozenset()),
}
"""name -> (how it is made, seconds, what is found to be broken in it)."""

LOSSLESS = ("photo.png", "alpha.png", "photo.bmp", "photo.tiff", "lossless.webp", "misnamed.jpg")


@pytest.fixture(scope="module")
def scored(made: Path) -> Ended:
    """All files, the good among the bad, in one call."""
    whole["ts"] = clip(made / "w.ts", options={"bf": "0"}).read_bytes()
    whole["mp4"] = clip(made / "w.mp4").read_bytes()
    whole["plain.mp4"] = clip(made / "w.mov", options={"bf": "0"}).read_bytes()
    whole["long.ts"] = clip(made / "n.ts", 4, options={"bf": "0"}).read_bytes()
    whole["long.mp4"] = clip(made / "n.mp4", 4).read_bytes()
    whole["large.ts"] = clip(made / "l.ts", 1, size=(384, 216), options={"bf": "0"}).read_bytes()
    whole["mpeg2.ts"] = clip(made / "m.ts", codec="mpeg2video").read_bytes()
    whole["far.ts"] = clip(made / "f.ts", first=1_250_000, options={"bf": "0"}).read_bytes()
    names = list(SCORED)
    names[1:1] = UNSCORED
    for name in names:
        make = (UNSCORED | SCORED)[name][0]
        make(made / name)
    return vqmon("score", "--json", *names, folder=made)


@pytest.fixture(scope="module")
def results(scored: Ended) -> dict[str, dict[str, Any]]:
    return {it["source"]: it for it in scored.told}


def test_a_call_with_all_of_them_ends_well(scored: Ended) -> None:
    """An object for each, in the given order; exit code 1; nothing that grows without bound."""
    names = [it["source"] for it in scored.told]

    assert names == [next(iter(SCORED)), *UNSCORED, *list(SCORED)[1:]]
    assert scored.code == 1
    assert len(scored.complaints) == len(UNSCORED)
    assert scored.memory < 700 * MEGABYTE


@pytest.mark.parametrize("name", UNSCORED)
def test_what_cannot_be_scored_is_told_with_its_remedy(
    scored: Ended, results: dict[str, dict[str, Any]], name: str
) -> None:
    """A reason of the closed set for scripts, a sentence for people, and no score."""
    _, reason, message = UNSCORED[name]
    it = results[name]
    [told] = [line for line in scored.complaints if line.startswith(f"{name}: ")]

    assert it["quality"] is it["uncertainty"] is None
    assert it["no_score_reason"] == reason
    assert message in told
    assert message in it["explanation"] or it["segments"]
    assert all(segment["quality"] is None for segment in it["segments"])


@pytest.mark.parametrize("name", SCORED)
def test_what_can_be_scored_is(results: dict[str, dict[str, Any]], name: str) -> None:
    """For as long as it lasts, with the faults that it has and none that it has not."""
    _, seconds, broken = SCORED[name]
    it = results[name]
    found = {finding["name"] for finding in it["findings"]}

    assert 0 <= it["quality"] <= 100
    assert it["no_score_reason"] is None
    assert sum(segment["seconds"] for segment in it["segments"]) == pytest.approx(seconds, abs=0.25)
    assert found & BROKEN == broken
    assert found <= set(FINDING_NAMES)
    begin, last = it["segments"][0]["start"], it["segments"][-1]
    for finding in it["findings"]:
        assert begin <= finding["start"]
        assert finding["start"] + finding["seconds"] <= last["start"] + last["seconds"] + 0.001


def test_the_same_picture_scores_the_same_in_every_lossless_file(
    results: dict[str, dict[str, Any]],
) -> None:
    """What a picture is worth must not depend on how it is wrapped."""
    qualities = [results[name]["quality"] for name in LOSSLESS]

    assert max(qualities) - min(qualities) < 1


def test_what_was_good_scores_as_if_nothing_bad_had_been_near(
    results: dict[str, dict[str, Any]],
) -> None:
    """The first, one in between and the last of a call with a hundred bad files."""
    first, film, last = (results[name] for name in ("first.mp4", "film.png", "last.mp4"))

    assert first["quality"] == film["quality"] == last["quality"]


# -- the command line itself -------------------------------------------------------------------

NAMES = (
    "with space.png",
    "\N{SNOWMAN} ünïcödé.png",
    "-dash.png",
    "--json",
    "new\nline.png",
    "tab\t.png",
    "\x1b[31mred.png",
    "[bold]red.png",
    "'quote\".png",
    "$(x).png",
    "a|b.png",
    "#.png",
    "a?b=c.png",
    "%d.png",
    "img%03d.png",
    "pipe:",
    "pipe:0",
    "concat:a.png",
    "http:x.png",
    "synthetic:x",
    "file:x.png",
    "data:x",
    "subfile,,start,0,:x.png",
    "x" * 251 + ".png",
    os.fsdecode(b"no text\xff.png"),
)
"""Names that a shell, FFmpeg, JSON or a terminal could take for something else."""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    photograph(64, 48).save(folder / "a.png")
    for name in NAMES:
        shutil.copy(folder / "a.png", folder / name)
    return folder


def test_a_file_may_have_any_name(named: Path) -> None:
    """It is read as it is written, and told so that a program can find it again."""
    done = vqmon("score", "--json", "--", *NAMES, folder=named)

    assert done.code == 0
    assert [it["source"] for it in done.told] == list(NAMES)
    assert len({it["quality"] for it in done.told} - {None}) == 1


def test_names_in_csv_are_those_on_disk(named: Path) -> None:
    """With line breaks, quotes and bytes that are no text."""
    done = vqmon("score", "--csv", "--", *NAMES, folder=named)

    rows = list(csv.DictReader(io.StringIO(done.out, newline="")))
    assert [it["source"] for it in rows] == list(NAMES)


def test_a_name_cannot_write_on_the_terminal(named: Path) -> None:
    """An escape sequence in a name would colour, move or clear what others wrote."""
    done = vqmon("score", "--", *NAMES, "\x1b[2Jgone.png", folder=named)

    shown = done.out + done.err
    assert len(done.out.splitlines()) == len(NAMES) + 1
    assert [it for it in shown if not it.isprintable()] == ["\n"] * shown.count("\n")
    assert r"\x1b[31mred.png" in done.out
    assert r"\x1b[2Jgone.png: no such file" in done.err


def test_a_name_like_an_option_is_told_from_one(named: Path) -> None:
    """`vqmon score *` in a folder with such a file; the shell's own remedy is `--`."""
    done = vqmon("score", "-dash.png", folder=named)

    assert done.code == 2
    assert "No such option" in done.err


def test_an_empty_name_is_told(tmp_path: Path) -> None:
    """As from an unset variable in a script."""
    done = vqmon("score", "", folder=tmp_path)

    assert done.code == 1
    assert "the name is empty" in done.err


def test_what_may_not_be_read_says_so(named: Path, tmp_path: Path) -> None:
    """Somebody else's recording: another file is not the remedy, rights are."""
    shutil.copy(named / "a.png", tmp_path)
    (tmp_path / "a.png").chmod(0)
    bounds = "-dac_override,-dac_read_search"
    weak = () if os.getuid() else (servers.need("setpriv"), f"--bounding-set={bounds}", "--")

    done = vqmon("score", "--json", "a.png", folder=tmp_path, prefix=weak)

    assert done.code == 1
    assert done.told[0]["no_score_reason"] == "auth"
    assert "check its permissions" in done.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_change_nothing_but_what_is_seen(named: Path, closed: str) -> None:
    """Cron jobs and daemons start programs like that; the exit code still tells."""
    command = " ".join(VQMON)

    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} score --json a.png missing.png {closed}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=named,
        env=ENVIRON,
    )

    assert done.returncode == 1
    assert "AttributeError" not in done.stderr
    assert ("missing.png: no such file" in done.stderr) is ("2>&-" not in closed)


# -- servers and addresses ---------------------------------------------------------------------

PAGE = b"<html><body>Please log in</body></html>" * 50
MASTER = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000\na.m3u8\n"


def hls(*rows: str) -> bytes:
    return "\n".join(("#EXTM3U", "#EXT-X-TARGETDURATION:1", *rows, "")).encode()


CLOSED = hls("#EXTINF:1,", "no.ts", "#EXT-X-ENDLIST")

REFUSING: dict[str, tuple[str, misbehaving.Talk, str, str]] = {
    "http that hangs up": ("http", misbehaving.hangs_up, "refused", "hung up"),
    "http that babbles": ("http", misbehaving.babbles, "", ""),
    "http that is silent": ("http", lambda _: time.sleep(60), "timeout_open", "no answer within"),
    "http with a page": ("http", misbehaving.answers(body=PAGE), "invalid_data", "a video at all"),
    "http with a letter": (
        "http+/a.txt",
        misbehaving.answers(body=b"Dear Sir or Madam,\n" * 500),
        "invalid_data",
        "is a text",
    ),
    "http with nothing": (
        "http",
        misbehaving.answers(),
        "invalid_data",
        "check that it is complete",
    ),
    "http 204": ("http", misbehaving.answers("204 No Content"), "invalid_data", ""),
    "http 400": ("http", misbehaving.answers("400 Bad Request"), "refused", "HTTP error 400"),
    "http 401": (
        "http",
        misbehaving.answers("401 Unauthorized"),
        "auth",
        "user, password or token",
    ),
    "http 403": ("http", misbehaving.answers("403 Forbidden"), "auth", "user, password or token"),
    "http 404": ("http", misbehaving.answers("404 Not Found"), "not_found", "check the path"),
    "http 410": ("http", misbehaving.answers("410 Gone"), "not_found", "check the path"),
    "http 429": ("http", misbehaving.answers("429 Too Many Requests"), "refused", "HTTP error 429"),
    "http 500": ("http", misbehaving.answers("500 Oops"), "refused", "answers with an error"),
    "http 503": ("http", misbehaving.answers("503 Busy"), "refused", "HTTP error 503 Busy"),
    "http 500 for hls": ("http+/a.m3u8", misbehaving.answers("500 Oops"), "refused", "see its log"),
    "http in circles": ("http", misbehaving.circles, "refused", "redirects in a circle"),
    "http to a file": (
        "http",
        misbehaving.answers("302 Found", Location="file:///etc/passwd"),
        "invalid_data",
        "another protocol, which is not followed",
    ),
    "http to rtsp": (
        "http",
        misbehaving.answers("302 Found", Location="rtsp://127.0.0.1:9/a"),
        "invalid_data",
        "another protocol, which is not followed",
    ),
    "http with endless headers": (
        "http",
        misbehaving.never_stops_its_headers,
        "timeout_open",
        "no answer within",
    ),
    "http that drips": (
        "http",
        misbehaving.streams(misbehaving.drips),
        "timeout_open",
        "no answer",
    ),
    "http with zeros": (
        "http",
        misbehaving.streams(misbehaving.endless(bytes(65536))),
        "invalid_data",
        "a video at all",
    ),
    "http with half a film": (
        "http+/a.mp4",
        misbehaving.answers(body=b"\0\0\0\x10ftypisom\0\0\0\0" + bytes(9999)),
        "invalid_data",
        "check that it is complete",
    ),
    "hls with nothing": ("http+/a.m3u8", misbehaving.answers(), "invalid_data", "a video at all"),
    "hls with a page": ("http+/a.m3u8", misbehaving.answers(body=PAGE), "invalid_data", ""),
    "hls without segments": (
        "http+/a.m3u8",
        misbehaving.answers(body=hls("#EXT-X-ENDLIST")),
        "invalid_data",
        "has no video",
    ),
    "hls with lost segments": (
        "http+/a.m3u8",
        misbehaving.site({"/a.m3u8": CLOSED}),
        "invalid_data",
        "not its first segment",
    ),
    "hls with pages for segments": (
        "http+/a.m3u8",
        misbehaving.site({"/a.m3u8": CLOSED, "/no.ts": PAGE}),
        "invalid_data",
        "not its first segment",
    ),
    "hls with a file for a segment": (
        "http+/a.m3u8",
        misbehaving.site({"/a.m3u8": CLOSED.replace(b"no.ts", b"file:///etc/passwd")}),
        "invalid_data",
        "not its first segment",
    ),
    "hls that leads to itself": (
        "http+/a.m3u8",
        misbehaving.site({"/a.m3u8": MASTER}),
        "invalid_data",
        "lead only to other playlists",
    ),
    "hls without end": (
        "http+/a.m3u8",
        misbehaving.site({"/a.m3u8": misbehaving.never_stops_its_playlist}),
        "invalid_data",
        "longer than 16 MiB",
    ),
    "hls that drips": (
        "http+/a.m3u8",
        misbehaving.streams(misbehaving.drips),
        "timeout_open",
        "no answer within",
    ),
    "rtsp that hangs up": ("rtsp", misbehaving.hangs_up, "refused", "does it speak rtsp"),
    "rtsp that babbles": ("rtsp", misbehaving.babbles, "refused", "does it speak rtsp"),
    "rtsp that is a web server": ("rtsp", misbehaving.answers(), "refused", "does it speak rtsp"),
    "rtsp 401": (
        "rtsp",
        misbehaving.rtsp(DESCRIBE='401 Unauthorized\nWWW-Authenticate: Basic realm="x"'),
        "auth",
        "user, password or token",
    ),
    "rtsp 404": ("rtsp", misbehaving.rtsp(DESCRIBE="404 Not Found"), "not_found", "check the path"),
    "rtsp 454": ("rtsp", misbehaving.rtsp(PLAY="454 Session Not Found"), "not_found", ""),
    "rtsp 461": (
        "rtsp",
        misbehaving.rtsp(SETUP="461 Unsupported Transport"),
        "refused",
        "set the option `transport`",
    ),
    "rtsp 500": ("rtsp", misbehaving.rtsp(PLAY="500 Oops"), "refused", "PLAY failed: 500"),
    "rtsp 503": ("rtsp", misbehaving.rtsp(DESCRIBE="503 Busy"), "refused", "DESCRIBE failed: 503"),
    "rtsp with an unknown codec": (
        "rtsp",
        misbehaving.rtsp(
            DESCRIBE="200 OK\nContent-Type: application/sdp\n\n"
            + misbehaving.SDP.replace("H264", "NOSUCH")
        ),
        "decoder_missing",
        "vqmon doctor",
    ),
    "rtsp without media": ("rtsp", misbehaving.rtsp(), "timeout_read", "the sender stalls"),
    "rtmp that hangs up": ("rtmp", misbehaving.hangs_up, "refused", "does it speak rtmp"),
    "rtmp that babbles": ("rtmp", misbehaving.babbles, "refused", "does it speak rtmp"),
    "tcp with a page": ("tcp", misbehaving.sends(lambda: iter([PAGE])), "invalid_data", ""),
    "tcp with zeros": (
        "tcp",
        misbehaving.sends(misbehaving.endless(bytes(65536))),
        "invalid_data",
        "a video at all",
    ),
    "tcp with stuffing": (
        "tcp",
        misbehaving.sends(misbehaving.endless((b"\x47\x1f\xff\x10" + b"\xff" * 184) * 50)),
        "timeout_open",
        "no answer within",
    ),
}
"""what -> (scheme and path, what the server says, reason, a part of the message)."""


@dataclass(frozen=True)
class Probed:
    code: int
    told: dict[str, Any]
    complaint: str
    took: float


Probe = Callable[..., Probed]


@pytest.fixture
def probe(capfd: pytest.CaptureFixture[str]) -> Iterator[Probe]:
    """`vqmon probe --json` in this process: a start of its own for each would take minutes."""
    root, ours = logging.getLogger(), logging.getLogger("vqmon")
    before = list(root.handlers), root.level, ours.level

    def run(url: str, *options: str, limit: str = "0.7") -> Probed:
        limits = [f"--option={name}_timeout={limit}" for name in ("open", "read")] if limit else []
        began = time.monotonic()
        code = run_program(["probe", "--json", "--duration=2", url, *limits, *options])
        took = time.monotonic() - began
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert "bug in vqmon" not in err
        return Probed(code, json.loads(out) if out else {}, err, took)

    yield run
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.mark.parametrize("what", REFUSING)
def test_a_server_that_gives_no_video_is_told_with_the_remedy(probe: Probe, what: str) -> None:
    """One of the closed set of reasons, in bounded time; who is to blame decides who is called."""
    scheme, _, path = REFUSING[what][0].partition("+")
    _, talk, reason, message = REFUSING[what]
    with servers.accepting(talk) as port:
        seen = probe(f"{scheme}://127.0.0.1:{port}{path or ('' if scheme == 'tcp' else '/a/b.ts')}")

    assert seen.code == 1
    assert seen.told["quality"] is None
    assert seen.told["no_score_reason"] in ({reason} if reason else set(DOWN_REASONS))
    assert message in seen.complaint
    assert f"127.0.0.1:{port}" in seen.complaint
    assert seen.took < 6


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rstp://camera/1", "did you mean 'rtp' or 'rtsp'"),
        ("ftp://host/a.mp4", "unknown scheme 'ftp'"),
        ("pipe:0", "unknown scheme 'pipe'"),
        ("concat:a.mp4|b.mp4", "unknown scheme 'concat'"),
        ("rtsp://", "there is no host; write rtsp://HOST[:PORT]/PATH"),
        ("rtsp:camera/1", "there is no host"),
        ("http:///a.ts", "there is no host"),
        ("http://[::1/a.ts", "host or port is not written right"),
        ("http://host:port/a.ts", "host or port is not written right"),
        ("http://host:99999/a.ts", "host or port is not written right"),
        ("http://host/a b.ts", "a space is written %20"),
        ("http://host/a\r\nX-Evil: 1", "control characters have no place here"),
        ("udp://239.0.0.1", "there is no port; write udp://HOST:PORT"),
        ("tcp://host:0", "there is no port"),
        ("tcp://host:9?listen", "does not listen"),
        ("srt://host", "there is no port"),
        ("srt://:9000", "there is no host"),
        ("rtsp://me:s3cret#1@camera/1", "# / ? @ as %23 %2F %3F %40"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_at_once(
    probe: Probe, url: str, message: str
) -> None:
    """Exit code 2, before anything is waited for; and a password stays secret even then."""
    seen = probe(url, limit="")

    assert seen.code == 2
    assert message in seen.complaint
    assert "s3cret" not in seen.complaint
    assert seen.took < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--option=transprot=udp"],
            "unknown option 'transprot' of rtsp; did you mean 'transport'",
        ),
        (["--option=transport=sctp"], "it must be one of: tcp, udp"),
        (["--option=read_timeout=soon"], "it must be a number above 0"),
        (["--option=read_timeout=0"], "it must be a number above 0"),
        (["--option=read_timeout=nan"], "it must be a number above 0"),
        (["--option=passphrase"], "must be NAME=VALUE"),
        (["--duration=-1"], "write a number and a unit"),
        (["--duration=soon"], "soon"),
        (["--model=nowhere"], "no model folder nowhere"),
        (["--fail-on=blakc"], "did you mean 'black'"),
    ],
)
def test_a_wrong_option_is_told_with_what_would_be_right(
    probe: Probe, options: list[str], message: str
) -> None:
    """Before the stream is opened."""
    seen = probe("rtsp://127.0.0.1:9/a", *options, limit="")

    assert seen.code == (1 if "--model=nowhere" in options else 2)
    assert message in seen.complaint


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "https", "tcp"])
def test_a_closed_port_and_an_unknown_host_are_told_apart(probe: Probe, scheme: str) -> None:
    """The commonest of all; one is for who runs the server, the other for who wrote the URL."""
    port = servers.free_port()
    closed = probe(f"{scheme}://127.0.0.1:{port}/a/b")
    unknown = probe(f"{scheme}://nosuchhost.invalid:{port}/a/b")

    assert closed.told["no_score_reason"] == "refused"
    assert "is the server running" in closed.complaint
    assert unknown.told["no_score_reason"] == "dns"
    assert "cannot be resolved" in unknown.complaint


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("srt://nosuchhost.invalid:9000", "dns"),
        ("srt://127.0.0.1:{port}", "timeout_open"),
        ("srt://127.0.0.1:{port}?mode=listener", "timeout_open"),
    ],
)
def test_srt_through_a_helper_fails_as_clearly(probe: Probe, url: str, reason: str) -> None:
    """And in one limit, not two."""
    servers.need("srt-live-transmit")

    seen = probe(url.format(port=servers.free_port(socket.SOCK_DGRAM)), limit="1.5")

    assert seen.told["no_score_reason"] == reason
    assert seen.took < 4


# -- streams that begin well -------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four seconds of a transport stream, one keyframe a second."""
    path = tmp_path_factory.mktemp("recorded") / "a.ts"
    return clip(path, 4.0, options={"bf": "0"}).read_bytes()


def found(seen: Probed) -> set[str]:
    return {it["name"] for it in seen.told["findings"]}


def watched(seen: Probed) -> float:
    return float(sum(it["seconds"] for it in seen.told["segments"]))


def test_what_came_before_a_stall_is_kept(probe: Probe, recorded: bytes) -> None:
    """And that it ended early, with the limit that ended it."""
    with servers.stalling(recorded) as port:
        seen = probe(f"tcp://127.0.0.1:{port}", "--duration=30")

    assert seen.code == 0
    assert seen.told["quality"] is not None
    assert watched(seen) == pytest.approx(4.0, abs=0.3)
    assert any("nothing came for 0.7 s" in it for it in seen.told["warnings"])
    assert seen.took < 8


def test_what_came_before_a_broken_transfer_is_kept(probe: Probe, recorded: bytes) -> None:
    """A length was promised, and the connection ends before it."""
    answer = misbehaving.answers(body=recorded[: len(recorded) // 2], Content_Length="9999999")
    with servers.accepting(answer) as port:
        seen = probe(f"http://127.0.0.1:{port}/a.ts", "--duration=30")

    assert seen.code == 0
    assert watched(seen) == pytest.approx(2.0, abs=0.3)
    assert any("it ended early" in it for it in seen.told["warnings"])


def test_time_goes_on_when_the_encoder_starts_again(probe: Probe, recorded: bytes) -> None:
    """Its time stamps begin anew, twice; what is told of them stays in order."""
    with servers.closing_after(recorded * 3) as port:
        seen = probe(f"tcp://127.0.0.1:{port}", "--duration=30")

    assert "timestamp_jump" in found(seen)
    assert seen.told["facts"]["timestamp_jumps"] == 2
    assert watched(seen) == pytest.approx(12.0, abs=0.5)
    starts = [it["start"] for it in seen.told["segments"]]
    assert starts == sorted(starts)


def test_a_live_stream_of_sound_alone_says_so(probe: Probe, tmp_path: Path) -> None:
    """The camera's cable is out while the microphone goes on: nobody need look for a decoder."""
    spoiled.sound(tmp_path / "a.ts", "aac", "mpegts")
    with servers.closing_after((tmp_path / "a.ts").read_bytes()) as port:
        seen = probe(f"tcp://127.0.0.1:{port}", "--duration=10")

    assert seen.code == 1
    assert seen.told["no_score_reason"] == "no_video"
    assert "a stream of sound alone cannot be scored" in seen.complaint


def test_lost_datagrams_are_found(probe: Probe, recorded: bytes, tmp_path: Path) -> None:
    """A stream over UDP that loses 3 % is watched all the same, and the loss is told."""
    spoiled.lossy(tmp_path / "lossy.ts", recorded * 4)
    data = (tmp_path / "lossy.ts").read_bytes()

    with sending(data, seconds=16) as port:
        seen = probe(f"udp://127.0.0.1:{port}", "--duration=4", limit="3")

    assert seen.code == 0
    assert "packet_loss" in found(seen)


def test_datagrams_of_nonsense_are_no_stream(probe: Probe) -> None:
    """Another sender on the port, or a scrambled one: no score, and an end in time."""
    nonsense = random.Random(9).randbytes(400_000)

    with sending(nonsense, seconds=8) as port:
        seen = probe(f"udp://127.0.0.1:{port}", limit="1.5")

    assert seen.code == 1
    assert seen.told["quality"] is None
    assert seen.told["no_score_reason"] in DOWN_REASONS
    assert seen.took < 8


def test_a_pipe_is_watched_while_somebody_writes(
    probe: Probe, recorded: bytes, tmp_path: Path
) -> None:
    """`ffmpeg … > pipe.ts` beside `vqmon probe pipe.ts`."""
    os.mkfifo(tmp_path / "pipe.ts")
    writer = threading.Thread(target=(tmp_path / "pipe.ts").write_bytes, args=(recorded,))
    writer.start()

    seen = probe(str(tmp_path / "pipe.ts"), "--duration=10", limit="")

    writer.join(5)
    assert seen.code == 0
    assert watched(seen) == pytest.approx(4.0, abs=0.3)


@pytest.mark.slow
def test_a_pipe_without_a_writer_is_left_in_time(probe: Probe, tmp_path: Path) -> None:
    """Opening one waits for a writer, and FFmpeg would wait for ever. (10 s; files have no limits
    to set.)
    """
    os.mkfifo(tmp_path / "pipe.ts")

    seen = probe(str(tmp_path / "pipe.ts"), limit="")

    assert seen.code == 1
    assert seen.told["no_score_reason"] == "timeout_open"
    assert "does a program write into it" in seen.complaint
    assert seen.took < 15


@contextmanager
def sending(data: bytes, seconds: float) -> Iterator[int]:
    """Datagrams of seven packets each, evenly over `seconds` and again from the start; gives the
    port.
    """
    port = servers.free_port(socket.SOCK_DGRAM)
    stopped = threading.Event()
    pieces = [data[i : i + 1316] for i in range(0, len(data), 1316)]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for piece in itertools.cycle(pieces):
                if stopped.wait(seconds / len(pieces)):
                    return
                sender.sendto(piece, ("127.0.0.1", port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield port
    finally:
        stopped.set()
        thread.join()


# -- the daemon --------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, str]] = {
    "an empty file": ("", "the file is empty"),
    "binary": ("\x00", "vqmon.yaml"),
    "a broken file": ("streams: {a: {url: x.mp4}", "not valid YAML"),
    "a list for a map": ("streams: [x.mp4]", "streams"),
    "an address without a host": ("streams: {a: {url: 'rtsp://'}}", "there is no host"),
    "a wrong option": (
        "streams: {a: {url: 'rtsp://h/x', options: {transprot: udp}}}",
        "'transport'",
    ),
    "a wrong expectation": ("streams: {a: {url: x.mp4, expect: [no_sound]}}", "no_audio"),
    "a number without a unit": ("defaults: {segment: 10}\nstreams: {a: {url: x.mp4}}", "segment"),
    "a folder nobody can make": (
        "data_dir: /proc/nowhere\nstreams: {a: {url: x.mp4}}",
        "/proc/nowhere",
    ),
    "a database that is away": (
        "database: postgresql://127.0.0.1:1/x\nstreams: {a: {url: x.mp4}}",
        "127.0.0.1",
    ),
    "a model that is not there": (
        "scorer: {model: nowhere}\nstreams: {a: {url: x.mp4}}",
        "nowhere",
    ),
}
"""what -> (the configuration, a part of the message); each kind of mistake has its unit test."""


@pytest.mark.parametrize("what", WRONG)
def test_a_daemon_that_cannot_start_says_why(tmp_path: Path, what: str) -> None:
    """With the place and what would be right, and at once."""
    text, message = WRONG[what]
    (tmp_path / "vqmon.yaml").write_text(text)

    done = vqmon("run", "--duration", "2", folder=tmp_path, seconds=60)

    assert done.code in {1, 2}
    assert message in done.err
    assert len([it for it in done.err.splitlines() if it.startswith("error: ")]) == 1


def test_bad_streams_are_recorded_beside_a_good_one(tmp_path: Path) -> None:
    """One daemon over all of them: the good one is scored from start to end, and every other has
    its rows with the reason, so that availability is a sum over rows.
    """
    spoiled.letter(tmp_path / "letter.mp4")
    spoiled.png_claiming(tmp_path / "bomb.png", 60000, 60000)
    spoiled.sound(tmp_path / "a.ts", "aac", "mpegts")
    sound = misbehaving.endless((tmp_path / "a.ts").read_bytes(), pause=1.0)
    talks: dict[str, misbehaving.Talk] = {
        "silent": lambda _: time.sleep(60),
        "page": misbehaving.answers(body=PAGE),
        "busy": misbehaving.answers("503 Busy"),
        "sound": misbehaving.streams(sound),
    }
    streams: dict[str, dict[str, Any]] = {
        "good": {"url": "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0"},
        "letter": {"url": "letter.mp4"},
        "bomb": {"url": "bomb.png"},
        "missing": {"url": "nowhere.mp4"},
        "closed": {"url": f"rtmp://127.0.0.1:{servers.free_port()}/a/b"},
    }
    with ExitStack() as stack:
        for name, talk in talks.items():
            port = stack.enter_context(servers.accepting(talk))
            limits = {"open_timeout": "1", "read_timeout": "3"}
            streams[name] = {"url": f"http://127.0.0.1:{port}/live", "options": limits}
        defaults = {"segment": "1s", "sampling": {"every": "500ms"}}
        settings = {"data_dir": "data", "defaults": defaults, "streams": streams}
        (tmp_path / "vqmon.yaml").write_text(json.dumps(settings))
        done = vqmon("run", "--duration", "6", folder=tmp_path)

    with open_store(f"sqlite:///{tmp_path}/data/vqmon.db", migrate=False) as store:
        rows = {name: store.segments(name) for name in streams}
    good = rows.pop("good")
    assert done.code == 0
    assert len(good) >= 3
    assert all(row.scored for row in good)
    assert {name: {row.no_score_reason for row in told} for name, told in rows.items()} == {
        "letter": {"invalid_data"},
        "bomb": {"invalid_data"},
        "missing": {"not_found"},
        "closed": {"refused"},
        "silent": {"timeout_open"},
        "page": {"invalid_data"},
        "busy": {"refused"},
        "sound": {"no_video"},
    }
