"""Memory for intermediate arrays, kept per thread."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class _Scratch(threading.local):
    """Buffers kept per thread: fresh pages for every picture cost more than the arithmetic."""

    def __init__(self) -> None:
        self.memory: dict[str, NDArray[np.uint8]] = {}
        self.views: dict[tuple[str, tuple[int, ...], type], NDArray[Any]] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: type = np.float32) -> NDArray[Any]:
    """An uninitialised array, in memory that the next call with the same name hands out again."""
    view = _scratch.views.get((name, shape, dtype))
    return _carved(name, shape, dtype) if view is None else view


def _carved(name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    size = prod(shape) * np.dtype(dtype).itemsize
    memory = _scratch.memory.get(name)
    if memory is None or memory.size < size or len(_scratch.views) > _VIEWS_KEPT:
        memory = _scratch.memory[name] = np.empty(max(size, 1), np.uint8)
        _scratch.views = {key: kept for key, kept in _scratch.views.items() if key[0] != name}
    view: NDArray[Any] = memory[:size].view(dtype).reshape(shape)
    _scratch.views[name, shape, dtype] = view
    return view


_VIEWS_KEPT = 400
"""Streams of many sizes in one thread must not make views pile up."""
