"""What is shipped, on footage that is fine: nobody may be woken for it."""

from __future__ import annotations

import pytest

from vqmon.alerting import RULES, StreamState, judge
from vqmon.domain import AlertEvent, Stream
from vqmon.pipeline import monitor
from vqmon.ports import Scorer
from vqmon.scorers import load_scorer
from vqmon.sources import open_source

MINUTES = 3
"""Three times the start-up grace, and longer than any shipped rule takes to raise on a score."""


@pytest.fixture(scope="module")
def lite() -> Scorer:
    return load_scorer()


@pytest.mark.parametrize("seed", range(4))
def test_clean_content_raises_no_alert(lite: Scorer, seed: int) -> None:
    """Signals, the default model and the default rules together, on several contents."""
    url = f"synthetic:?size=640x360&fps=25&seconds={60 * MINUTES}&seed={seed}"
    stream = Stream(f"clean-{seed}", url)
    state, told, scored = StreamState(), list[AlertEvent](), 0

    for segment in monitor(stream, open_source(stream), lite, batch=8):
        turn = judge(stream, RULES.values(), state, segment)
        state, scored = turn.state, scored + segment.scored
        told += turn.events

    assert scored == 6 * MINUTES
    assert [(it.kind, it.alert.rule, it.alert.reason) for it in told] == []
