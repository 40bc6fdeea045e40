"""What every queue of questions promises: SQLite, PostgreSQL and the public fake alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vqmon.domain import Acting, Asked, Disagreement, Finding, Opinion, Question, Segment
from vqmon.ports import AskingStore
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
AGREES = Disagreement(False, -1.5, (), ("noise",), "The writer agrees.")
DIFFERS = replace(AGREES, differs=True, quality=-40.0, sentence="The writer finds it worse.")


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[AskingStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    with open_store(request.getfixturevalue(kind)) as opened:
        yield opened


def segment(number: int, stream: str = "news") -> Segment:
    started_at = NOON + timedelta(seconds=10 * number)
    return Segment(stream, started_at, 10.0 * number, 10.0, quality=50.0, id=f"s{number}")


def question(number: int = 1, **fields: Any) -> Question:
    given: dict[str, Any] = {
        "stream": "news",
        "instance": "here",
        "cause": "alert",
        "asked_at": NOON,
        "expires_at": NOON + HOUR,
    }
    return Question(segment=f"s{number}", **given | fields)


def opinion(**fields: Any) -> Opinion:
    given: dict[str, Any] = {
        "model": "big@7",
        "at": NOON + MINUTE,
        "quality": 48.5,
        "uncertainty": 3.25,
        "findings": (Finding("noise", 3, 0.5, 3.0, 1.0, "of 5", None, 10.0, 10.0),),
        "explanation": "Körnig, überall 📺.",
        "pictures": ("news/a-worst.jpg", "news/a-1.jpg"),
        "seconds": 4.5,
        "details": {"written": [2.9], "lost": [0.001]},
    }
    return Opinion(**given | fields)


def stored(store: AskingStore, *some: Question) -> None:
    """The questions, with segments for all of them."""
    known = [segment(int(it.segment[1:]), it.stream) for it in some]
    store.add(known, Acting(questions=some))


def claimed(store: AskingStore, at: datetime = NOON, **fields: Any) -> Asked | None:
    given: dict[str, Any] = {"seconds": 60, "per_hour": 100}
    return store.claim_question("here", "me", at, **given | fields)


def ids(found: list[Asked]) -> list[str]:
    return [it.question.segment for it in found]


def test_a_question_comes_back_as_it_went_in(store: AskingStore) -> None:
    """With the segment that it is about, in one transaction."""
    given = question(alert="a1")

    stored(store, given)

    assert store.question("s1") == Asked(given, "waiting", NOON)
    assert store.questions() == [Asked(given, "waiting", NOON)]
    assert store.opinions(["s1", "s2"]) == {"s1": Asked(given, "waiting", NOON)}


def test_a_question_that_is_asked_again_by_a_replay_is_left_alone(store: AskingStore) -> None:
    """The work of a killed daemon is done again; its answers must not be asked for again."""
    stored(store, question())
    one = claimed(store)
    assert one
    store.answer(one, "me", opinion(), AGREES)

    stored(store, question(asked_at=NOON + MINUTE))

    asked = store.question("s1")
    assert asked
    assert (asked.state, asked.question.asked_at) == ("answered", NOON)


def test_what_is_no_longer_stored_is_not_asked_about(store: AskingStore) -> None:
    """The journal may set a segment aside that no database takes."""
    store.add([segment(1)], Acting(questions=(question(1), question(2))))

    assert ids(store.questions()) == ["s1"]


def test_an_answer_is_kept_beside_the_segment_with_the_disagreement(store: AskingStore) -> None:
    """With model and version, and everything it was made from."""
    stored(store, question())
    one = claimed(store)
    assert one

    assert store.answer(one, "me", opinion(), DIFFERS)

    asked = store.question("s1")
    assert asked
    assert (asked.state, asked.reason, asked.attempts) == ("answered", None, 1)
    assert asked.opinion == opinion()
    assert asked.disagreement == DIFFERS
    kept = store.segment("s1")
    assert kept
    assert kept.quality == 50.0


def test_the_more_urgent_goes_first_and_then_the_newer(store: AskingStore) -> None:
    """Of those that nobody waits for, old ones lose their use first."""
    stored(
        store,
        question(1, cause="low_confidence"),
        question(2, asked_at=NOON - MINUTE),
        question(3),
        question(4, cause="demand", asked_at=NOON - MINUTE),
    )

    order = [it.question.segment for it in iter(lambda: claimed(store), None)]

    assert order == ["s4", "s3", "s2", "s1"]


def test_a_claimed_question_is_nobody_elses_until_the_claim_ends(store: AskingStore) -> None:
    """Two daemons never ask the same; one that was killed holds nothing up for ever."""
    stored(store, question())
    first = claimed(store, seconds=60)
    assert first

    assert claimed(store, NOON + timedelta(seconds=59)) is None
    second = store.claim_question("here", "other", NOON + MINUTE, seconds=60, per_hour=100)
    assert second
    assert second.attempts == 2
    assert not store.answer(first, "me", opinion(explanation="late"), AGREES)
    assert not store.put_off(first, "me", "late", due_at=None)
    assert store.answer(second, "other", opinion(), AGREES)
    asked = store.question("s1")
    assert asked
    assert asked.opinion == opinion()


def test_many_claimants_at_once_share_one_budget_and_no_question(store: AskingStore) -> None:
    """The daemon and `vqmon explain --now` ask from the same queue."""
    stored(store, *(question(number) for number in range(1, 13)))
    won: list[str] = []
    begin = threading.Barrier(4)

    def claim(name: str) -> None:
        begin.wait()
        for _ in range(4):
            one = store.claim_question("here", name, NOON, seconds=60, per_hour=10)
            if one:
                won.append(one.question.segment)

    threads = [threading.Thread(target=claim, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == len(set(won)) == 8
    assert store.budget_used("here", NOON) == 8


def test_questions_of_another_instance_are_not_ours(store: AskingStore) -> None:
    """Their pictures lie on another machine."""
    stored(store, question(instance="there"))

    assert claimed(store) is None
    assert not store.question_due("here", NOON)
    assert store.question_due("there", NOON)


def test_the_budget_is_counted_over_an_hour_and_keeps_some_for_people(store: AskingStore) -> None:
    """Of four an hour alerts get three."""
    stored(store, *(question(number, expires_at=NOON + 2 * HOUR) for number in range(1, 7)))

    got = [claimed(store, NOON + number * MINUTE, per_hour=4) for number in range(4)]

    assert [it is not None for it in got] == [True, True, True, False]
    assert claimed(store, NOON + HOUR, per_hour=4)
    assert claimed(store, NOON + HOUR, per_hour=4) is None


def test_people_are_answered_from_what_is_kept_for_them(store: AskingStore) -> None:
    """But not beyond the whole budget."""
    stored(store, *(question(number) for number in range(1, 7)))
    for _ in range(3):
        assert claimed(store, per_hour=4)
    assert claimed(store, per_hour=4) is None
    store.ask(question(5, cause="demand"))
    store.ask(question(6, cause="demand"))

    assert claimed(store, per_hour=4)
    assert claimed(store, per_hour=4) is None
    assert store.budget_used("here", NOON) == 4


def test_what_failed_is_due_later_and_says_why(store: AskingStore) -> None:
    """The segment has no answer yet, and whoever looks is told the reason."""
    stored(store, question())
    one = claimed(store)
    assert one

    assert store.put_off(one, "me", "the server was away", due_at=NOON + MINUTE)

    assert claimed(store, NOON + timedelta(seconds=59)) is None
    again = claimed(store, NOON + MINUTE)
    assert again
    assert (again.attempts, again.reason) == (2, "the server was away")


def test_what_is_given_up_says_why_for_good(store: AskingStore) -> None:
    """An honest silence."""
    stored(store, question())
    one = claimed(store)
    assert one

    store.put_off(one, "me", "CUDA out of memory", due_at=None)

    asked = store.question("s1")
    assert asked
    assert (asked.state, asked.reason, asked.opinion) == ("unanswered", "CUDA out of memory", None)
    assert claimed(store, NOON + MINUTE) is None


def test_what_waits_says_what_holds_it_up(store: AskingStore) -> None:
    """A model that cannot be loaded concerns them all."""
    stored(store, question(1), question(2, instance="there"))

    store.hold_up("here", "no such model")

    found = store.opinions(["s1", "s2"])
    assert (found["s1"].reason, found["s2"].reason) == ("no such model", None)


def test_what_was_not_asked_in_time_is_given_up(store: AskingStore) -> None:
    """With the reason why it had to wait, where one is known."""
    stored(store, question(1), question(2), question(3, expires_at=NOON + 2 * HOUR))
    one = claimed(store, segment="s2")
    assert one
    store.put_off(one, "me", "it was away", due_at=NOON + MINUTE)

    assert store.expire_questions(NOON + HOUR) == 2

    found = store.opinions(["s1", "s2", "s3"])
    assert [found[it].state for it in ("s1", "s2", "s3")] == ["unanswered", "unanswered", "waiting"]
    assert found["s1"].reason
    assert "budget" in found["s1"].reason
    assert found["s2"].reason == "it was away"
    assert store.expire_questions(NOON + HOUR) == 0


def test_an_attempt_that_the_end_of_the_daemon_cut_off_does_not_count(store: AskingStore) -> None:
    """A few restarts must not use up the attempts."""
    stored(store, question())
    claimed(store)
    assert ids(store.claimed_questions("here")) == ["s1"]

    store.release_questions("here")

    assert store.claimed_questions("here") == []
    again = claimed(store)
    assert again
    assert again.attempts == 1


def test_asking_on_demand_makes_what_waits_urgent(store: AskingStore) -> None:
    """And due at once, though it failed a moment ago."""
    stored(store, question())
    one = claimed(store)
    assert one
    store.put_off(one, "me", "away", due_at=NOON + HOUR)

    asked = store.ask(question(cause="demand", asked_at=NOON + MINUTE))

    assert asked
    assert (asked.state, asked.question.cause, asked.due_at) == ("waiting", "demand", NOON + MINUTE)
    assert claimed(store, NOON + MINUTE)


def test_asking_on_demand_takes_up_what_was_given_up(store: AskingStore) -> None:
    """Somebody has freed the GPU and wants to know."""
    stored(store, question())
    one = claimed(store)
    assert one
    store.put_off(one, "me", "no memory", due_at=None)

    asked = store.ask(question(cause="demand", asked_at=NOON + MINUTE))

    assert asked
    assert (asked.state, asked.attempts, asked.reason) == ("waiting", 0, None)


def test_an_answer_is_asked_for_again_only_when_told_to(store: AskingStore) -> None:
    """It stays until there is another."""
    stored(store, question())
    one = claimed(store)
    assert one
    store.answer(one, "me", opinion(), AGREES)

    left = store.ask(question(cause="demand"))
    anew = store.ask(question(cause="demand"), again=True)

    assert left
    assert anew
    assert (left.state, anew.state, anew.opinion) == ("answered", "waiting", opinion())


def test_nothing_is_asked_about_a_segment_that_is_not_there(store: AskingStore) -> None:
    """It may have been deleted between two looks."""
    assert store.ask(question()) is None
    assert store.question("s1") is None


def test_questions_go_with_their_segments(store: AskingStore) -> None:
    """Nothing outlives what it is about; the budget does."""
    stored(store, question())
    claimed(store)

    store.prune(NOON + HOUR)

    assert store.questions() == []
    assert store.budget_used("here", NOON) == 1
    assert store.prune_askings(NOON + MINUTE) == 1
    assert store.budget_used("here", NOON) == 0


def test_questions_are_found_by_stream_time_state_and_disagreement(store: AskingStore) -> None:
    """For reports; the newest first."""
    stored(
        store,
        question(1),
        question(2, stream="sport", asked_at=NOON + MINUTE),
        question(3, asked_at=NOON + 2 * MINUTE),
    )
    one = claimed(store, NOON + HOUR - MINUTE, segment="s3")
    assert one
    store.answer(one, "me", opinion(), DIFFERS)

    assert ids(store.questions()) == ["s3", "s2", "s1"]
    assert ids(store.questions("news")) == ["s3", "s1"]
    assert ids(store.questions(since=NOON + MINUTE, until=NOON + 2 * MINUTE)) == ["s2"]
    assert ids(store.questions(states=["waiting"], limit=1)) == ["s2"]
    assert ids(store.questions(differing=True)) == ["s3"]


def test_when_a_stream_was_last_asked_about_is_known(store: AskingStore) -> None:
    """Weak scores come in runs; one question says it for all."""
    stored(
        store,
        question(1, cause="low_confidence"),
        question(2, cause="low_confidence", asked_at=NOON + MINUTE),
        question(3, cause="low_confidence", stream="sport"),
        question(4, asked_at=NOON + HOUR),
        question(5, cause="low_confidence", instance="there", asked_at=NOON + HOUR),
    )

    assert store.last_asked("here", "low_confidence") == {"news": NOON + MINUTE, "sport": NOON}
