"""What crosses between ingest processes and the scoring process, over a Unix socket.

A message is two lengths, a JSON header and a body of bytes. Small inputs travel as the body;
larger ones lie in a slot of the client's arena, anonymous memory whose descriptor crosses the
socket once. Anonymous memory has no name, so nothing is left behind whichever side is killed.

    client: arena {slots, slot_bytes} · picture {id, position, expires, arrays, slot} · stats {id}
    server: hello {protocol, model, inputs} · assessment {id, ...} · stats {id, stats}
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Assessment, Finding

PROTOCOL = 1
LENGTHS = struct.Struct("!II")
MAX_HEADER = 1 << 20
MAX_BODY = 1 << 26
"""64 MiB: far beyond any model input; more means that the other side speaks something else."""

Header = dict[str, Any]
Inputs = Mapping[str, NDArray[Any]]


class BadMessage(Exception):
    """The other side does not speak this protocol; the connection is useless."""


def pack(header: Header, body: bytes = b"") -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


class Unpacker:
    """Bytes as they arrive become whole messages."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Header, bytes]]:
        """Messages completed by `data`; raises BadMessage."""
        self._waiting += data
        while len(self._waiting) >= LENGTHS.size:
            header_size, body_size = LENGTHS.unpack_from(self._waiting)
            if header_size > MAX_HEADER or body_size > MAX_BODY:
                raise BadMessage(f"message of {header_size} + {body_size} bytes")
            end = LENGTHS.size + header_size + body_size
            if len(self._waiting) < end:
                return
            message = bytes(self._waiting[LENGTHS.size : end])
            del self._waiting[:end]
            yield _header(message[:header_size]), message[header_size:]


def _header(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise BadMessage(str(error)) from error
    if not isinstance(header, dict):
        raise BadMessage("a header that is no object")
    return header


def describe(inputs: Inputs) -> list[list[Any]]:
    """[name, dtype, shape] of each array, in the order in which their bytes are laid out."""
    return [[name, array.dtype.str, list(array.shape)] for name, array in inputs.items()]


def lay_out(inputs: Inputs) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in inputs.values())


def take_up(arrays: list[list[Any]], data: bytes) -> dict[str, NDArray[Any]]:
    """The inverse of `describe` and `lay_out`; raises BadMessage when sizes do not fit."""
    inputs: dict[str, NDArray[Any]] = {}
    start = 0
    try:
        for name, dtype, shape in arrays:
            kind = np.dtype(dtype)
            count = int(np.prod(shape, dtype=np.int64))
            inputs[name] = np.frombuffer(data, kind, count, start).reshape(shape)
            start += count * kind.itemsize
    except (TypeError, ValueError) as error:
        raise BadMessage(f"arrays {arrays} in {len(data)} bytes: {error}") from error
    return inputs


def array_bytes(arrays: list[list[Any]]) -> int:
    return sum(
        int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize for _, kind, shape in arrays
    )


def pack_assessment(number: int, assessment: Assessment) -> bytes:
    return pack({"type": "assessment", "id": number, **asdict(assessment)})


def unpack_assessment(header: Header) -> Assessment:
    fields = {k: v for k, v in header.items() if k not in ("type", "id")}
    fields["findings"] = tuple(_finding(f) for f in header["findings"])
    fields["outputs"] = {name: tuple(values) for name, values in header["outputs"].items()}
    return Assessment(**fields)


def _finding(fields: Header) -> Finding:
    region = fields["region"]
    return Finding(**{**fields, "region": None if region is None else tuple(region)})


class Arena:
    """Shared anonymous memory in equal slots. The client writes, the server reads.

    Sealed against shrinking, so that the other side can never fault on it.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        """Takes over `descriptor`; raises BadMessage when it is not such memory."""
        self.descriptor = descriptor
        self.slots = slots
        self.slot_bytes = slot_bytes
        try:
            self._memory = _mapped(descriptor, slots * slot_bytes)
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise BadMessage(f"an arena that cannot be used: {error}") from error

    @classmethod
    def create(cls, slots: int, slot_bytes: int) -> Arena:
        size = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("vqmon-inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, slots * size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return cls(descriptor, slots, size)

    def write(self, slot: int, data: bytes) -> None:
        start = slot * self.slot_bytes
        self._memory[start : start + len(data)] = data

    def read(self, slot: int, size: int) -> bytes:
        """A copy, so that the slot may be written again at once."""
        if not (0 <= slot < self.slots and 0 <= size <= self.slot_bytes):
            raise BadMessage(f"slot {slot} of {self.slots}, {size} bytes of {self.slot_bytes}")
        start = slot * self.slot_bytes
        return self._memory[start : start + size]

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise ValueError("it is not sealed against shrinking")
    if os.fstat(descriptor).st_size < size:
        raise ValueError("it is smaller than announced")
    return mmap.mmap(descriptor, size)
