"""Which process watches which stream."""

from __future__ import annotations

from collections import Counter

import pytest

from vqmon.daemon.seating import Seating


def seated(seating: Seating, names: list[str]) -> dict[str, str]:
    seating.seat(names)
    return {name: seating.place(name) for name in names}


@pytest.mark.parametrize(
    ("streams", "loads"), [(1, [1]), (8, [8]), (9, [5, 4]), (50, [8, 7, 7, 7, 7, 7, 7])]
)
def test_streams_are_spread_evenly_over_as_few_processes_as_do(
    streams: int, loads: list[int]
) -> None:
    """Nine streams are five and four, not eight and one: the ninth is no cheaper alone."""
    places = seated(Seating("ingest", 8), [f"s{n}" for n in range(streams)])

    assert sorted(Counter(places.values()).values(), reverse=True) == loads


def test_a_stream_keeps_its_process_whatever_comes_and_goes() -> None:
    """A reload must not restart streams that did not change."""
    seating = Seating("ingest", 4)
    before = seated(seating, list("abcdefgh"))

    seating.leave("a")
    after = seated(seating, list("bcdefghijk"))

    assert all(after[name] == before[name] for name in "bcdefgh")
    assert max(Counter(after.values()).values()) <= 4


def test_a_free_place_is_filled_before_a_process_is_opened() -> None:
    """Each process takes 100 MB before its first stream."""
    seating = Seating("ingest", 4)
    before = seated(seating, list("abcdefgh"))
    seating.leave("a")

    assert seated(seating, ["new"])["new"] == before["a"]


def test_a_harmful_stream_gets_a_process_that_nobody_shares() -> None:
    """Its neighbours are never interrupted by it again."""
    seating = Seating("ingest", 4)
    seated(seating, list("abc"))

    alone = seating.isolate("b")
    places = seated(seating, list("abcdefgh"))

    assert Counter(places.values())[alone] == 1
    assert places["b"] == alone


def test_a_closed_process_gets_no_streams_and_its_name_never_comes_back() -> None:
    """It is about to end; a stream seated there would wait for nothing."""
    seating = Seating("ingest", 2)
    place = seated(seating, ["a"])["a"]
    seating.leave("a")

    seating.close(place)

    assert seated(seating, ["b"])["b"] != place


def test_processes_for_visits_stay_open_between_visits() -> None:
    """Otherwise each visit would pay for starting a process."""
    seating = Seating("visits", 2)
    place = seated(seating, ["a"])["a"]
    seating.leave("a")

    assert seated(seating, ["b"])["b"] == place
