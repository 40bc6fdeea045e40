"""A model's raw outputs as few bytes, without losing any.

Layout, all of it zlib-compressed: one byte of version, four bytes little-endian length of a JSON
header, the header, the values little-endian. The header is {"type": "<f4" or "<f8", "frames":
[[[name, count], ...], ...]}; single precision is used only when every value survives it, which
is so for what a network gives.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from vqmon.errors import StoreError

VERSION = 1
Outputs = Mapping[str, tuple[float, ...]]


def pack(outputs: Sequence[Outputs]) -> bytes | None:
    """The bytes, or None when there is nothing to keep."""
    if not outputs:
        return None
    values = np.array([v for frame in outputs for vs in frame.values() for v in vs], "<f8")
    with np.errstate(over="ignore"):
        short = values.astype("<f4")
    exact = np.array_equal(short.astype("<f8"), values, equal_nan=True)
    frames = [[[name, len(vs)] for name, vs in frame.items()] for frame in outputs]
    header = json.dumps({"type": "<f4" if exact else "<f8", "frames": frames}).encode()
    body = (short if exact else values).tobytes()
    return zlib.compress(struct.pack("<BI", VERSION, len(header)) + header + body, 6)


def unpack(packed: bytes | None) -> tuple[Outputs, ...]:
    """The outputs that `pack` was given. Raises StoreError when the bytes are damaged."""
    if packed is None:
        return ()
    try:
        return tuple(_frames(zlib.decompress(packed)))
    except (zlib.error, struct.error, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the model outputs of a stored segment are damaged ({error}): restore the database "
            "from a backup, or delete the segment"
        ) from error


def _frames(data: bytes) -> list[dict[str, tuple[float, ...]]]:
    version, length = struct.unpack_from("<BI", data)
    if version != VERSION:
        raise ValueError(f"layout {version} is unknown to this vqmon")
    at = struct.calcsize("<BI")
    header = json.loads(data[at : at + length])
    values = np.frombuffer(data[at + length :], header["type"]).tolist()
    frames: list[dict[str, tuple[float, ...]]] = []
    begin = 0
    for shape in header["frames"]:
        frame: dict[str, tuple[float, ...]] = {}
        for name, count in shape:
            frame[name] = tuple(values[begin : begin + count])
            begin += count
        frames.append(frame)
    if begin != len(values):
        raise ValueError(f"{len(values)} values where {begin} are announced")
    return frames
