"""What every memory of decisions promises: SQLite, PostgreSQL and the public fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import nan
from typing import Any

import numpy as np
import pytest

from vqmon.domain import Decision
from vqmon.ports import Decisions
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Decisions]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    with open_store(request.getfixturevalue(kind)) as opened:
        yield opened


def decision(kind: str = "raise", **fields: Any) -> Decision:
    given: dict[str, Any] = {
        "plugin": "encoder",
        "stream": "news",
        "reason": "compression is obvious",
        "at": NOON,
    }
    return Decision(kind=kind, **given | fields)


def kinds(found: list[Decision]) -> list[str]:
    return [it.kind for it in found]


def test_a_decision_comes_back_as_it_went_in(store: Decisions) -> None:
    """A plugin that is started again acts on what it reads here."""
    given = decision(
        reason="wegen Blöcken 📺",
        data={"from": {"kbps": 2000, "cap": None}, "steps": [1, 2.5, True]},
        segment="s1",
        alert="a1",
    )

    store.record(given)

    assert store.decisions() == [given]


def test_a_known_decision_is_left_alone(store: Decisions) -> None:
    """A plugin that was killed after recording may record again."""
    first = decision()
    store.record(first)

    store.record(replace(first, kind="keep"))

    assert store.decisions() == [first]


def test_decisions_are_found_by_plugin_stream_and_time(store: Decisions) -> None:
    """One plugin never reads the memory of another."""
    store.record(decision("a"))
    store.record(decision("b", stream="sport", at=NOON + MINUTE))
    store.record(decision("c", plugin="other", at=NOON + 2 * MINUTE))

    assert kinds(store.decisions("encoder")) == ["a", "b"]
    assert kinds(store.decisions("encoder", "sport")) == ["b"]
    assert kinds(store.decisions(stream="news")) == ["a", "c"]
    assert kinds(store.decisions(since=NOON + MINUTE)) == ["b", "c"]
    assert store.decisions("nobody") == []


def test_decisions_of_one_moment_keep_the_order_in_which_they_were_made(store: Decisions) -> None:
    """Raise, then roll back is not roll back, then raise."""
    for kind in ("raise", "verify", "roll_back"):
        store.record(decision(kind))
    store.record(decision("earlier", at=NOON - MINUTE))

    assert kinds(store.decisions()) == ["earlier", "raise", "verify", "roll_back"]


def test_the_newest_few_are_still_oldest_first(store: Decisions) -> None:
    for minute in range(5):
        store.record(decision(f"at {minute}", at=NOON + minute * MINUTE))

    assert kinds(store.decisions("encoder", newest=2)) == ["at 3", "at 4"]
    assert kinds(store.decisions("encoder", newest=9)) == [f"at {it}" for it in range(5)]
    assert store.decisions("encoder", newest=0) == []


def test_the_oldest_are_deleted_a_few_at_a_time(store: Decisions) -> None:
    """Retention never holds the database for long."""
    for minute in range(5):
        store.record(decision(f"at {minute}", at=NOON + minute * MINUTE))

    assert store.prune_decisions(NOON + 4 * MINUTE, limit=3) == 3
    assert store.prune_decisions(NOON + 4 * MINUTE, limit=3) == 1
    assert store.prune_decisions(NOON + 4 * MINUTE, limit=3) == 0
    assert kinds(store.decisions()) == ["at 4"]


def test_a_time_without_a_zone_is_refused(store: Decisions) -> None:
    """Nobody could tell when it was."""
    with pytest.raises(ValueError, match="time zone"):
        store.record(decision(at=NOON.replace(tzinfo=None)))


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_what_no_json_can_hold_is_stored_as_near_as_can_be(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """A measured value that is no number must not cost a plugin its memory."""
    data = {"kbps": np.float32(2.5), "margin": nan, "text": "nul\0"}
    with open_store(request.getfixturevalue(kind)) as store:
        store.record(decision(data=data))

        [found] = store.decisions()

    assert found.data["kbps"] == 2.5
    assert found.data["margin"] is None
    assert "\0" not in found.data["text"]
