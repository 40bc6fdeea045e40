"""Media as people hand them in by mistake, by malice or out of a broken recorder.

Every function writes one file, made up on the spot and small. Damage is seeded.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.media import moving, write_clip

TS_PACKET = 188
SIZE = 192, 108


def photograph(width: int = 192, height: int = 128) -> Image.Image:
    """Soft shapes under fine texture, in colour."""
    rng = np.random.default_rng(7)
    shapes = rng.uniform(60, 190, (height // 16 + 1, width // 16 + 1, 3))
    soft = Image.fromarray(shapes.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))


def clip(path: Path, seconds: float = 2.0, **options: Any) -> Path:
    width, height = options.pop("size", SIZE)
    return write_clip(path, seconds, width=width, height=height, **options)


@cache
def recording(folder: Path, suffix: str = "ts", seconds: float = 2.0) -> bytes:
    """The bytes of a good clip, without B-frames."""
    path = folder / f"recording-{seconds:g}.{suffix}"
    return clip(path, seconds, options={"bf": "0"}).read_bytes()


# -- no video at all ---------------------------------------------------------------------------


def letter(path: Path) -> None:
    path.write_text("Dear Sir or Madam,\nthis is a letter and not a film.\n" * 200)


def web_page(path: Path) -> None:
    path.write_text("<html><body><h1>502 Bad Gateway</h1></body></html>\n" * 100)


def noise(path: Path, size: int = 300_000) -> None:
    path.write_bytes(random.Random(3).randbytes(size))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(300_000))


def sound(path: Path, codec: str, container: str | None = None) -> None:
    tone = (8000 * np.sin(np.arange(48000) / 8)).astype(np.int16)
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        resampled = av.AudioResampler(format=stream.format.name, layout="mono", rate=48000)
        for piece in resampled.resample(frame):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))


def playlist(path: Path, *addresses: str, ended: bool = True) -> None:
    rows = "".join(f"#EXTINF:2,\n{address}\n" for address in addresses)
    end = "#EXT-X-ENDLIST\n" if ended else ""
    path.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n{rows}{end}")


# -- headers that lie --------------------------------------------------------------------------


def png_claiming(path: Path, width: int, height: int) -> None:
    """A PNG of a few hundred bytes whose header promises gigabytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))


def claiming(path: Path, mark: bytes, offset: int, size: bytes) -> None:
    """A picture, saved by its suffix, with `size` written over its own at `offset` after `mark`."""
    photograph().save(path)
    data = bytearray(path.read_bytes())
    at = data.index(mark) + offset
    data[at : at + len(size)] = size
    path.write_bytes(data)


def packed(path: Path, side: int = 16_000) -> None:
    """A real picture of 256 Mpx in a few kilobytes."""
    Image.new("1", (side, side)).save(path)


# -- damage ------------------------------------------------------------------------------------


def cut(path: Path, whole: bytes, share: float) -> None:
    path.write_bytes(whole[: int(share * len(whole))])


def cut_picture(path: Path, share: float) -> None:
    photograph().save(path)
    cut(path, path.read_bytes(), share)


def flipped(path: Path, whole: bytes, *, spare: int, every: int = 1500) -> None:
    """Some bytes behind the first `spare` have other values."""
    data = bytearray(whole)
    for at in range(spare, len(data), every):
        data[at] ^= 0x55
    path.write_bytes(data)


def lossy(path: Path, whole: bytes, share: float = 0.03) -> None:
    """A transport stream without some of its packets, as UDP delivers it."""
    chance = random.Random(5)
    packets = [whole[i : i + TS_PACKET] for i in range(0, len(whole), TS_PACKET)]
    kept = [it for i, it in enumerate(packets) if i < 60 or chance.random() > share]
    path.write_bytes(b"".join(kept))


def scrambled(path: Path, whole: bytes) -> None:
    """As a conditional-access system leaves it: the tables are clear, picture and sound are not."""
    chance = random.Random(6)
    packets = [bytearray(whole[i : i + TS_PACKET]) for i in range(0, len(whole), TS_PACKET)]
    for packet in packets:
        if (packet[1] & 0x1F) == 0x01:  # PIDs 0x100 and on carry media
            packet[3] |= 0x80
            packet[4:] = chance.randbytes(TS_PACKET - 4)
    path.write_bytes(b"".join(packets))


# -- time and format ---------------------------------------------------------------------------


def still_video(path: Path, **options: Any) -> None:
    """One single picture in a container."""
    clip(path, 1 / 25, sound=False, **options)


def with_times(path: Path, times: Sequence[float]) -> None:
    """A picture at each of the times, seconds."""
    picture = moving(*SIZE)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "bf": "0", "g": "10"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def turned(path: Path) -> None:
    """As telephones record upright films."""
    picture = moving(*SIZE)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.set_display_rotation(90)
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))


def huge_video(path: Path) -> None:
    """8K."""
    picture = np.asarray(photograph(480, 270).resize((7680, 4320)))
    clip(path, 2 / 25, size=(7680, 4320), sound=False, picture=lambda _: picture)


def huge_photograph(path: Path) -> None:
    photograph(480, 270).resize((7680, 4320)).save(path)


def animation(path: Path, **options: Any) -> None:
    first, *others = (
        Image.fromarray(np.roll(np.asarray(photograph()), 9 * index, axis=1)) for index in range(5)
    )
    first.save(path, save_all=True, append_images=others, duration=100, **options)


def sideways(path: Path) -> None:
    """A photograph whose EXIF says how the camera was held; telephones write nothing else."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph().save(path, exif=exif)


def deep(path: Path) -> None:
    """16 bits a sample."""
    grey = np.asarray(photograph().convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def joined(path: Path, *parts: bytes) -> None:
    path.write_bytes(b"".join(parts))
