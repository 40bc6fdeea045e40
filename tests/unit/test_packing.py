"""A model's raw outputs must come back bit for bit, and take little room."""

from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmon.errors import StoreError
from vqmon.store.packing import Outputs, pack, unpack

frames = st.lists(
    st.dictionaries(
        st.text(max_size=8),
        st.lists(st.floats(allow_nan=False) | st.floats(width=32, allow_nan=False), max_size=5).map(
            tuple
        ),
        max_size=3,
    ),
    max_size=4,
)


@given(frames)
def test_what_goes_in_comes_out(outputs: list[Outputs]) -> None:
    """Comparing stored segments must give what comparing fresh ones gave."""
    assert unpack(pack(outputs)) == tuple(outputs)


def test_what_is_no_number_survives() -> None:
    """A model that went wrong must be visible as such."""
    [frame] = unpack(pack([{"quality": (math.nan, math.inf, 1e300)}]))

    assert math.isnan(frame["quality"][0])
    assert frame["quality"][1:] == (math.inf, 1e300)


def test_nothing_takes_no_room() -> None:
    """Segments of a stream that is down have no outputs."""
    assert pack([]) is None
    assert unpack(None) == ()


def test_a_networks_outputs_take_half_of_what_text_would() -> None:
    """They are single precision, five times forty of them in each of 8640 segments a day."""
    rng = np.random.default_rng(1)
    outputs = [
        {"quality": tuple(rng.normal(size=40).astype(np.float32).tolist())} for _ in range(5)
    ]

    packed = pack(outputs)

    assert packed is not None
    assert len(packed) < len(zlib.compress(json.dumps(outputs).encode())) / 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: b"",
        lambda packed: packed[:-8],
        lambda packed: b"\0" + packed[1:],
        lambda packed: zlib.compress(b"\x02" + zlib.decompress(packed)[1:]),
        lambda packed: zlib.compress(zlib.decompress(packed)[:-4]),
        lambda packed: zlib.compress(zlib.decompress(packed)[:3]),
    ],
)
def test_damage_is_said_to_be_damage(damage: object) -> None:
    """Never wrong numbers, never a traceback."""
    packed = pack([{"quality": (1.0, 2.0)}])
    assert packed is not None
    assert callable(damage)

    with pytest.raises(StoreError, match="damaged"):
        unpack(damage(packed))
