"""Asking the writer: whatever it does, a question ends with an answer or with a reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqmon.asking import PAUSE_SECONDS, RETRY_SECONDS, Asker, AskingPlan, plan_of
from vqmon.domain import Acting, Asked, Assessment, Finding, Question, Segment
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable
from vqmon.settings import Settings
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SAID = Assessment(
    position=0.0,
    quality=21.5,
    uncertainty=4.0,
    findings=(Finding("noise", 4, 0.8, 4.0, 1.0, "of 5"),),
    outputs={"written": (1.9,)},
    model="big@7",
    explanation="Grain everywhere.",
)


class FakeWriter:
    """Says what it is told to, or raises it."""

    def __init__(self, *answers: Assessment | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[int, int]] = []

    def write(self, pictures: Sequence[Any], position: float = 0.0) -> Assessment:
        self.seen = [picture.shape[:2] for picture in pictures]
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Scene:
    """A store with segments that are asked about, a clock, and an asker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOON
        self.store = MemoryStore()
        self.plan = AskingPlan("here", "remote:x", "cpu", 1, folder, 100, 60.0, 3, 2)

    def asked_about(self, id_: str = "s1", *, pictures: int = 3) -> None:
        paths = [f"{id_}-{name}.jpg" for name in ("worst", "1", "2")[:pictures]]
        for number, path in enumerate(paths):
            Image.fromarray(np.full((32 + number, 48, 3), 90, np.uint8)).save(self.folder / path)
        segment = Segment(
            "news", NOON, 5.0, 10.0, quality=60.0, uncertainty=3.0, evidence=tuple(paths), id=id_
        )
        expires_at = NOON + timedelta(hours=6)
        question = Question(id_, "news", "here", "alert", NOON, expires_at)
        self.store.add([segment], Acting(questions=(question,)))

    def asker(self, *answers: Assessment | Exception) -> Asker:
        return self.over(FakeWriter(*answers))

    def over(self, writer: FakeWriter) -> Asker:
        return Asker(self.store, self.plan, by="me", opened=lambda _: writer, now=lambda: self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def question(self, id_: str = "s1") -> Asked:
        found = self.store.question(id_)
        assert found
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_an_answer_is_stored_with_what_it_was_made_from(scene: Scene) -> None:
    """The worst picture first, as many as the plan says, and what else the model told."""
    scene.asked_about()
    writer = FakeWriter(SAID)

    answered = scene.over(writer).turn()

    assert answered == scene.question()
    assert writer.seen == [(32, 48), (33, 48)]
    opinion = scene.question().opinion
    assert opinion
    assert (opinion.model, opinion.quality, opinion.uncertainty) == ("big@7", 21.5, 4.0)
    assert opinion.explanation == "Grain everywhere."
    assert opinion.pictures == ("s1-worst.jpg", "s1-1.jpg")
    assert opinion.details == {"written": [1.9]}
    [finding] = opinion.findings
    assert finding.seconds == 10.0
    apart = scene.question().disagreement
    assert apart
    assert apart.differs


def test_nothing_to_ask_loads_no_model(scene: Scene) -> None:
    """It may take twenty gigabytes."""

    def opened(_: AskingPlan) -> FakeWriter:
        raise AssertionError

    assert Asker(scene.store, scene.plan, opened=opened).turn() is None


def test_a_segment_without_pictures_is_given_up_with_the_reason(scene: Scene) -> None:
    """Retention may have taken them meanwhile."""
    scene.asked_about(pictures=1)
    (scene.folder / "s1-worst.jpg").unlink()

    scene.asker(SAID).turn()

    assert scene.question().state == "unanswered"
    assert "No full-size picture" in (scene.question().reason or "")


def test_a_server_that_is_away_is_left_alone_and_asked_again(scene: Scene) -> None:
    """Everything that waits says why; nobody's attempts are wasted meanwhile."""
    scene.asked_about("s1")
    scene.asked_about("s2")
    asker = scene.asker(ScorerUnavailable("http://gpu: connection refused"), SAID)

    asker.turn()

    assert [it.reason for it in scene.store.questions()] == ["http://gpu: connection refused"] * 2
    assert asker.trouble == "http://gpu: connection refused"
    assert asker.turn() is None
    scene.later(PAUSE_SECONDS[0])
    assert asker.turn() == scene.question("s2")
    assert asker.trouble == ""
    scene.later(RETRY_SECONDS[0])
    asker.turn()
    assert [it.state for it in scene.store.questions()] == ["answered", "answered"]
    assert scene.question("s1").attempts == 2


def test_the_longer_it_is_away_the_less_often_it_is_tried(scene: Scene) -> None:
    """A server that is down for a day is asked some 150 times, not 100,000 times."""
    for number in range(10):
        scene.asked_about(f"s{number}")
    asker = scene.asker(ScorerUnavailable("away"))

    for pause in (*PAUSE_SECONDS, PAUSE_SECONDS[-1]):
        assert asker.turn()
        scene.later(pause - 1)
        assert asker.turn() is None
        scene.later(1)


@pytest.mark.parametrize(
    "fault",
    [
        ScorerError("the GPU has too little memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        MemoryError("cannot allocate"),
    ],
)
def test_a_failure_is_tried_again_further_and_further_apart_and_then_given_up(
    scene: Scene, fault: Exception
) -> None:
    """The segment keeps the scorer's explanation and says why there is no other."""
    scene.asked_about()
    asker = scene.asker(fault)

    for delay in RETRY_SECONDS[:2]:
        assert asker.turn()
        assert scene.question().state == "waiting"
        scene.later(delay - 1)
        assert asker.turn() is None
        scene.later(1)
    asker.turn()

    assert (scene.question().state, scene.question().attempts) == ("unanswered", 3)
    assert str(fault) in (scene.question().reason or "")


def test_a_model_that_broke_is_loaded_anew(scene: Scene) -> None:
    """A GPU in a wrong state stays in it."""
    scene.asked_about()
    loads: list[FakeWriter] = []

    def opened(_: AskingPlan) -> FakeWriter:
        loads.append(FakeWriter(RuntimeError("device-side assert") if not loads else SAID))
        return loads[-1]

    asker = Asker(scene.store, scene.plan, opened=opened, now=lambda: scene.now)
    asker.turn()
    scene.later(RETRY_SECONDS[0])
    asker.turn()

    assert len(loads) == 2
    assert scene.question().state == "answered"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Assessment(0.0, None, None, explanation="I like it."), "I like it."),
        (PictureUnsupported("sides differ too much"), "sides differ"),
    ],
)
def test_what_would_be_the_same_again_is_not_tried_again(
    scene: Scene, answer: Assessment | Exception, says: str
) -> None:
    """A model without chance in it writes the same garbage twice."""
    scene.asked_about()

    scene.asker(answer).turn()

    assert scene.question().state == "unanswered"
    assert says in (scene.question().reason or "")


def test_a_picture_that_cannot_be_read_is_the_questions_end(scene: Scene) -> None:
    """A disk may have filled up in the middle of it."""
    scene.asked_about(pictures=1)
    (scene.folder / "s1-worst.jpg").write_bytes(b"no picture")

    scene.asker(SAID).turn()

    assert "s1-worst.jpg cannot be read" in (scene.question().reason or "")


def test_a_model_that_cannot_be_loaded_uses_up_no_attempt(scene: Scene) -> None:
    """Its reason stands at everything that waits, with the remedy."""
    scene.asked_about()
    remedy = "pip install 'vqmon[writer]'"
    faults: list[Exception] = [ScorerError(remedy), ImportError("libcudart")]

    def opened(_: AskingPlan) -> FakeWriter:
        if faults:
            raise faults.pop(0)
        return FakeWriter(SAID)

    asker = Asker(scene.store, scene.plan, opened=opened, now=lambda: scene.now)

    for word, pause in (("pip install", PAUSE_SECONDS[0]), ("libcudart", PAUSE_SECONDS[1])):
        assert asker.turn() is None
        assert (scene.question().state, scene.question().attempts) == ("waiting", 0)
        assert word in (scene.question().reason or "")
        assert scene.store.budget_used("here", scene.now) == 0
        scene.later(pause)
    assert asker.turn()
    assert (scene.question().state, scene.question().reason) == ("answered", None)


def test_a_failure_too_late_for_another_attempt_is_the_last(scene: Scene) -> None:
    """An answer next week is of no use."""
    scene.asked_about()
    scene.later(6 * 3600 - 5)

    scene.asker(ScorerError("no memory")).turn()

    assert scene.question().state == "unanswered"


def test_the_budget_holds_questions_back(scene: Scene) -> None:
    """And lets them go an hour later."""
    scene.asked_about("s1")
    scene.asked_about("s2")
    scene.plan = AskingPlan("here", "remote:x", "cpu", 1, scene.folder, 1, 60.0, 3, 2)
    asker = scene.asker(SAID)

    assert asker.turn()
    assert asker.turn() is None
    scene.later(3600)
    assert asker.turn()


def test_a_process_that_ended_under_a_question_has_failed_it(scene: Scene) -> None:
    """A picture that kills the model must not do so for ever."""
    scene.asked_about()
    for _ in range(3):
        scene.store.claim_question("here", "before", scene.now, seconds=60, per_hour=100)
        scene.asker(SAID).take_over("before", "It was killed.")
        scene.later(RETRY_SECONDS[1])

    assert (scene.question().state, scene.question().reason) == ("unanswered", "It was killed.")


def test_an_asker_that_takes_too_long_is_noticed_from_outside(scene: Scene) -> None:
    """Native code cannot be interrupted; the process ends instead, and the question says why."""
    scene.asked_about()
    begun, go_on = threading.Event(), threading.Event()

    class Stuck(FakeWriter):
        def write(self, pictures: Sequence[Any], position: float = 0.0) -> Assessment:
            begun.set()
            go_on.wait(20)
            return super().write(pictures, position)

    asker = scene.over(Stuck(SAID))
    thread = threading.Thread(target=asker.turn)
    thread.start()
    assert begun.wait(20)
    one = asker.under_way
    assert one
    assert not asker.overdue(time.monotonic())
    assert asker.overdue(time.monotonic() + 75)

    asker.give_up(one, "no answer within 60 s")
    go_on.set()
    thread.join(20)

    assert scene.question().reason == "no answer within 60 s"
    assert scene.question().opinion is None


@pytest.mark.parametrize("model", ["writer:some/name", "remote:http://gpu:8000/v1#big"])
def test_settings_become_a_plan(model: str) -> None:
    """Without a model there is none."""
    settings = Settings.model_validate({"writer": {"model": model, "tries": 5}})

    plan = plan_of(settings)

    assert plan
    assert (plan.model, plan.tries, plan.instance) == (model, 5, "vqmon")
    assert plan_of(Settings.model_validate({})) is None


@pytest.mark.parametrize("model", ["lite", "writer:", "http://gpu:8000/v1"])
def test_a_model_that_does_not_write_is_refused(model: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match="writer:FOLDER"):
        Settings.model_validate({"writer": {"model": model}})
