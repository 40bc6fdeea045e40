"""Durations and sizes as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmon.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("5m", 300),
        ("24h", 86_400),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("500ms", 0.5),
        ("1h30m", 5400),
        (" 1.5 h ", 5400),
        ("0", 0),
    ],
)
def test_durations_mean_what_they_say(text: str, seconds: float) -> None:
    """Prometheus' way of writing, which operators know."""
    assert parse_duration(text) == seconds
    assert re.search(DURATION_PATTERN, text.strip())


@pytest.mark.parametrize("text", ["", "10", "-5s", "5 minutes", "s", "1e3s", "5S", "1,5h", "٣s"])
def test_what_is_no_duration_is_refused_with_the_way_to_write_one(text: str) -> None:
    """A bare number could be seconds or minutes; guessing wrong costs a day of data."""
    with pytest.raises(ValueError, match="10s, 5m, 24h or 7d"):
        parse_duration(text)


@given(st.integers(1, 10**8))
def test_a_duration_survives_writing_and_reading(milliseconds: int) -> None:
    """`config show` prints what `config check` accepts."""
    seconds = milliseconds / 1000

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("10GB", 10**10), ("2GiB", 2**31), ("1.5mb", 1_500_000), ("100B", 100), ("1 TB", 10**12)],
)
def test_sizes_tell_decimal_from_binary_units(text: str, count: int) -> None:
    """Disks are sold in GB and measured in GiB; 7 % apart."""
    assert parse_size(text) == count
    assert re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize("text", ["", "10", "10G", "-1GB", "ten GB", "1e9B"])
def test_what_is_no_size_is_refused_with_the_way_to_write_one(text: str) -> None:
    """As for durations."""
    with pytest.raises(ValueError, match="500MB, 10GB or 2GiB"):
        parse_size(text)


@given(st.integers(0, 10**15))
def test_a_size_survives_writing_and_reading(count: int) -> None:
    """`config show` prints what `config check` accepts."""
    assert parse_size(format_size(count)) == count
