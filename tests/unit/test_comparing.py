"""Which of two is better: what is compared, what is refused, and how the reason is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media import write_clip
from tests.scenes import EPOCH
from vqmon import comparing, terminal
from vqmon.comparing import Compared, Means, compare
from vqmon.domain import Assessment, Comparison, Finding, Segment
from vqmon.errors import ScorerError, StoreError, VqmonError
from vqmon.ports import Scorer, SegmentStore
from vqmon.scorers.comparison import SHARED_ERROR
from vqmon.scorers.comparison import compare as by_score
from vqmon.testing import FakeScorer, MemoryStore


class SureScorer(FakeScorer):
    """Compares as the real ones do, from scores and uncertainties."""

    def compare(
        self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
    ) -> Comparison:
        return by_score(a, b, shared=SHARED_ERROR if same_content else 0.0)


def segment(id_: str, quality: float | None, *findings: Finding, **more: object) -> Segment:
    made = Segment(
        "news",
        EPOCH,
        0.0,
        10.0,
        frames_scored=5,
        quality=quality,
        quality_worst=quality,
        uncertainty=None if quality is None else 8.0,
        findings=findings,
        model="fake@1",
        no_score_reason=None if quality is not None else "black",
        id=id_.ljust(32, "0"),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def means(folder: Path, *stored: Segment, scorer: Callable[[], Scorer] = SureScorer) -> Means:
    store = MemoryStore()
    store.add(stored)

    def opened() -> AbstractContextManager[SegmentStore]:
        return nullcontext(store)

    return Means(scorer=scorer, store=opened, evidence_dir=folder)


def noisy_noise(seed: int, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(40, 220, (9, 16))
    return np.kron(coarse, np.ones((size[0] // 9, size[1] // 16))).astype(np.uint8)


def picture(path: Path, seed: int, brighter: int = 0) -> str:
    luma = np.clip(noisy_noise(seed).astype(int) + brighter, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([luma] * 3, axis=-1)).save(path)
    return str(path)


# What is compared ---------------------------------------------------------------------------------


def test_two_files_are_scored_and_compared(tmp_path: Path) -> None:
    """The fake's quality is brightness: the brighter rendition of one picture wins, surely."""
    dark, bright = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 1, brighter=30)

    compared = compare(dark, bright, means(tmp_path))

    assert compared.found.better == "b"
    assert compared.alike == (1, 1)
    assert compared.found.shared == SHARED_ERROR
    assert compared.found.margin == pytest.approx(
        (compared.a.result.quality or 0) - (compared.b.result.quality or 0)
    )


def test_one_content_makes_an_order_surer_than_two(tmp_path: Path) -> None:
    """Paired errors cancel; the same distance between different scenes says less."""
    first = picture(tmp_path / "a.png", 1)
    rendition = picture(tmp_path / "b.png", 1, brighter=15)
    other = picture(tmp_path / "c.png", 2, brighter=15)

    paired = compare(first, rendition, means(tmp_path)).found
    apart = compare(first, other, means(tmp_path)).found

    assert paired.spread is not None
    assert apart.spread is not None
    assert paired.spread < apart.spread / 2
    assert apart.shared == 0.0


def test_swapping_sides_swaps_the_answer(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 1, brighter=30)

    forth, back = (compare(x, y, means(tmp_path)).found for x, y in ((a, b), (b, a)))

    assert (forth.better, back.better) == ("b", "a")
    assert forth.margin == -back.margin
    assert forth.probability == pytest.approx(1 - back.probability)


def test_stored_segments_are_compared_without_scoring_anything(tmp_path: Path) -> None:
    """Their ids may be shortened, in capitals too, and no model needs to be at hand."""

    def none() -> Scorer:
        raise ScorerError("no model")

    good, poor = segment("ab1", 80.0), segment("cd2", 40.0)

    compared = compare("AB", "cd2", means(tmp_path, good, poor, scorer=none))

    assert compared.found.better == "a"
    assert compared.found.margin == 40.0
    assert compared.a.stored == good
    assert compared.alike is None


def test_the_model_that_scored_stored_segments_also_compares_them(tmp_path: Path) -> None:
    """A model may know better than its scores tell, from its stored outputs."""
    seen: list[Assessment] = []

    class Pairwise(FakeScorer):
        def compare(
            self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
        ) -> Comparison:
            seen.extend([*a, *b])
            return Comparison("b", -1.0, 0.2, "by its own head")

    outputs = ({"score": (0.2, 0.8)}, {"score": (0.4, 0.6)})
    some = [segment("a", 60.0, outputs=outputs), segment("b", 61.0, outputs=outputs)]

    found = compare("a", "b", means(tmp_path, *some, scorer=Pairwise)).found

    assert found.better == "b"
    assert [it.quality for it in seen] == [60.0, 61.0]
    assert seen[0].outputs == {"score": pytest.approx((0.3, 0.7))}


def test_stored_pictures_tell_that_two_streams_carry_the_same(tmp_path: Path) -> None:
    """Two rungs of one ladder, watched as two streams."""
    for name, seed in (("x.jpg", 1), ("y.jpg", 1), ("z.jpg", 5)):
        picture(tmp_path / name, seed)
    some = [segment(n * 3, 50.0, thumbnail=f"{p}.jpg") for n, p in (("a", "x"), ("b", "y"))]
    some += [segment("ccc", 50.0, thumbnail="z.jpg"), segment("ddd", 50.0, thumbnail="gone.jpg")]
    using = means(tmp_path, *some)

    assert compare("aaa", "bbb", using).alike == (1, 1)
    assert compare("aaa", "ccc", using).alike == (0, 1)
    assert compare("aaa", "ddd", using).alike is None


def test_a_file_goes_before_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(picture(tmp_path / "abc.png", 1)).rename("abc")

    assert comparing.kind("abc") == "file"
    assert comparing.kind("abd") == "segment"
    assert comparing.kind("rtsp://camera/live") == "url"
    assert comparing.kind("synthetic:?seconds=1") == "url"


def test_two_streams_are_watched_at_once(tmp_path: Path) -> None:
    """Live, they show the same moments; one after the other they would not."""
    a, b = "synthetic:?seconds=3&size=64x64", "synthetic:?seconds=3&size=64x64&kbps=50"

    compared = compare(a, b, replace(means(tmp_path), duration=3.0))

    assert compared.alike is not None
    assert compared.alike[0] == compared.alike[1]
    assert compared.a.result.source == a
    assert compared.b.result.segments


def test_a_mistake_in_a_url_is_told_from_its_thread(tmp_path: Path) -> None:
    with pytest.raises(VqmonError, match="nosuch"):
        compare("synthetic:?seconds=3", "synthetic:?nosuch=3", means(tmp_path))


def test_clips_are_compared_with_their_pictures(tmp_path: Path) -> None:
    fine = write_clip(tmp_path / "fine.mp4", 2, options={"crf": "10"})
    coarse = write_clip(tmp_path / "coarse.mp4", 2, options={"crf": "40"})

    compared = compare(str(fine), str(coarse), means(tmp_path))

    assert compared.alike == (2, 2)
    assert compared.found.better == "similar"


# What is refused ----------------------------------------------------------------------------------


def test_a_side_without_a_score_is_refused_with_its_reason(tmp_path: Path) -> None:
    some = segment("a", 50.0), segment("b", None)

    with pytest.raises(VqmonError, match=r"B, news at .*, has no score \(black\): every picture"):
        compare("a", "b", means(tmp_path, *some))


def test_scores_of_different_models_are_refused(tmp_path: Path) -> None:
    """50 of one model is not 50 of another; the way out is told."""
    old, new = segment("a", 50.0, model="lite@1"), segment("b", 60.0)
    file = picture(tmp_path / "x.png", 1)

    with pytest.raises(VqmonError, match=r"A was scored by lite@1, B by fake@1: .*cannot"):
        compare("a", "b", means(tmp_path, old, new))
    with pytest.raises(VqmonError, match="--model with the folder of lite@1"):
        compare("a", file, means(tmp_path, old))


def test_what_names_nothing_is_told(tmp_path: Path) -> None:
    some = segment("ab1", 50.0), segment("ab2", 50.0)

    with pytest.raises(VqmonError, match=r"nosuch\.mp4: no such file"):
        compare("nosuch.mp4", "ab1", means(tmp_path, *some))
    with pytest.raises(VqmonError, match="f00: neither a file"):
        compare("f00", "ab1", means(tmp_path, *some))
    with pytest.raises(StoreError, match="several segments"):
        compare("ab", "ab1", means(tmp_path, *some))


# What is told -------------------------------------------------------------------------------------


def blur(severity: int, cost: float | None = None, seconds: float = 10.0) -> Finding:
    return Finding("blur", severity, 0.9, 2.5, 1.25, "px", seconds=seconds, cost=cost)


def noise(severity: int, cost: float | None = None) -> Finding:
    return Finding("noise", severity, 0.8, 12.0, 5.0, "levels", ("top",), 0.0, 10.0, cost)


FREEZE = Finding("freeze", 3, 1.0, 5.0, 2.0, "s", start=2.0, seconds=5.0)


def reason(tmp_path: Path, a: Segment, b: Segment) -> list[str]:
    return compare("a", "b", means(tmp_path, a, b)).found.reason.split("\n")


def test_the_reason_tells_what_each_shows_and_what_it_costs(tmp_path: Path) -> None:
    """Every number of it stands in one of the segments, or follows from two that do."""
    facts = {"codec": "h264", "width": 640, "height": 360, "video_bitrate_kbps": 400.0}
    rich = facts | {"width": 1280, "height": 720, "video_bitrate_kbps": 1600.0}
    a = segment("a", 42.0, blur(4, 22.0), noise(2, 6.0), facts=facts)
    b = segment("b", 71.0, blur(1, 3.0), facts=rich)

    steps = reason(tmp_path, a, b)

    assert [int(step.partition(".")[0]) for step in steps] == list(range(1, len(steps) + 1))
    assert "A is news at 2024-01-01 00:00:00 UTC" in steps[0]
    assert "Quality is fair, 42 of 100 (give or take 8)." in steps[0]
    assert "A has 25 % of the other's video bitrate (400 against 1600 kb/s)." in steps[2]
    assert "A has fewer lines (360 against 720)." in steps[3]
    assert (
        "Both show blur: serious in A (measured 2.5 px, limit 1.25 px), in the whole picture, "
        "throughout (10 s); slight in B"
    ) in steps[4]
    assert "A is 3 levels worse. It costs A about 22 points and B about 3 points." in steps[4]
    assert "Only A shows noise, moderate" in steps[5]
    assert "at top" in steps[5]
    assert "It costs A about 6 points." in steps[5]
    assert "A has 42 points, B 71: B is 29 ahead." in steps[6]
    assert "What was found costs A about 28 points and B about 3 points." in steps[6]
    assert "8 and 8 points then make one standard deviation of the difference 11.3" in steps[7]
    assert steps[8].endswith(
        "Conclusion: B is better by 29 points (over 99 % sure), mainly because of less blur and "
        "noise."
    )


def test_a_cost_counts_for_the_time_that_it_lasts(tmp_path: Path) -> None:
    """Half of the segment is blurred: half of the cost is in its score."""
    steps = reason(tmp_path, segment("a", 60.0, blur(4, 20.0, seconds=5.0)), segment("b", 75.0))

    assert any("It costs A about 10 points." in step for step in steps)


def test_without_costs_severities_speak(tmp_path: Path) -> None:
    steps = reason(tmp_path, segment("a", 50.0, blur(3)), segment("b", 80.0, blur(2), noise(1)))

    assert any("A is a level worse. It speaks for B." in step for step in steps)
    assert any("Only B shows noise, slight" in step and "speaks for A" in step for step in steps)
    assert steps[-1].endswith("mainly because of less blur.")


def test_a_fault_stands_beside_the_scores_and_is_not_forgotten(tmp_path: Path) -> None:
    """A frozen picture may be sharp: the better score must not hide it."""
    steps = reason(tmp_path, segment("a", 80.0, FREEZE), segment("b", 50.0))

    assert any("see one picture and no motion; the scores do not count it." in s for s in steps)
    assert "though no single finding tells them apart" in steps[-1]
    assert steps[-1].endswith("Mind that A has freeze for 5 s, which no score counts.")


def test_two_alike_are_called_similar_and_why(tmp_path: Path) -> None:
    steps = reason(tmp_path, segment("a", 60.0), segment("b", 61.0))

    assert any("Neither shows a fault or a degradation." in step for step in steps)
    assert steps[-1].endswith(
        "both are similar; 1 point is too little to tell where one standard deviation is 11.3."
    )


def test_a_side_of_keyframes_alone_is_told_against_one_of_all_pictures(tmp_path: Path) -> None:
    """A stored segment of a daemon, say, beside a file that was looked at whole."""
    a = segment("a", 60.0, facts={"keyframes_only": True, "sampling": "keyframes"})
    b = segment("b", 70.0, facts={"keyframes_only": True, "sampling": "every"})

    assert "Only A was scored from keyframes alone" in reason(tmp_path, a, b)[2]
    assert not any(
        "from keyframes alone" in step for step in reason(tmp_path, a, replace(a, id="b" * 32))
    )


def test_what_is_about_vqmon_itself_tells_nothing_between_streams(tmp_path: Path) -> None:
    overload = Finding("overload", 3, 1.0, 4.0, 1.0, seconds=10.0)

    steps = reason(tmp_path, segment("a", 60.0, overload), segment("b", 70.0))

    assert not any("overload" in step for step in steps)


def test_json_has_both_sides_and_the_answer(tmp_path: Path) -> None:
    told = comparing.as_json(
        compare("a", "b", means(tmp_path, segment("a", 42.0, blur(4, 22.0)), segment("b", 71.0)))
    )

    assert told["better"] == "b"
    assert told["margin"] == -29.0
    assert told["probability"] == pytest.approx(0.005, abs=0.001)
    assert told["same_content"] is None
    assert told["a"]["findings"][0]["cost"] == 22.0
    assert told["a"]["segment"] == "a".ljust(32, "0")
    assert told["b"]["model"] == "fake@1"
    assert re.match(r"1\. A is news", told["reason"])


def test_a_model_without_a_spread_is_told_as_it_is(tmp_path: Path) -> None:
    """A pair head gives a probability and no standard deviation."""

    class Pairwise(FakeScorer):
        def compare(
            self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
        ) -> Comparison:
            return Comparison("a", 1.0, 0.9, "by its own head")

    some = segment("a", 61.0), segment("b", 60.0)

    compared: Compared = compare("a", "b", means(tmp_path, *some, scorer=Pairwise))

    assert "The model holds that A is better with a probability of 90 %." in compared.found.reason


# A model that looks at both -----------------------------------------------------------------------


class LookingScorer(SureScorer):
    """Sees both at once, as a model that writes does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def prefer(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Comparison:
        self.seen.append((len(a), len(b)))
        assert {one.shape for one in (*a, *b)} == {(90, 160, 3)}
        brighter = float(np.mean(a)) > float(np.mean(b))
        return Comparison("a" if brighter else "b", 9.0, 0.8 if brighter else 0.2, "It is lighter.")


def test_a_model_that_writes_looks_at_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores compare two numbers; such a model can say what the eye prefers, and why."""
    dark, bright = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 1, brighter=30)
    scorer = LookingScorer()

    compared = compare(dark, bright, means(tmp_path, scorer=lambda: scorer))

    assert scorer.seen == [(1, 1)]
    assert compared.looked is not None
    assert comparing.as_json(compared)["looked"] == {
        "better": "b",
        "probability": 0.2,
        "reason": "It is lighter.",
    }
    terminal.print_comparison(compared)
    assert (
        "Looking at both, fake@1 prefers B (80 % sure).\nIt is lighter." in capsys.readouterr().out
    )


def test_of_a_video_it_sees_some_pictures_evenly_spread(tmp_path: Path) -> None:
    """Each pair takes seconds; a film has thousands of pictures."""
    for name, seconds in (("a.mkv", 12.0), ("b.mkv", 5.0)):
        write_clip(tmp_path / name, seconds, width=160, height=90, rate=5, sound=False)
    scorer = LookingScorer()

    looked = compare(
        str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv"), means(tmp_path, scorer=lambda: scorer)
    )

    [(of_a, of_b)] = scorer.seen
    assert of_a == of_b > 1
    assert 3 <= len(looked.a.pictures) <= 2 * comparing.LOOKS


def test_a_look_that_fails_leaves_the_scores(tmp_path: Path) -> None:
    class Blind(LookingScorer):
        def prefer(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Comparison:
            raise ScorerError("it did not compare")

    a, b = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)

    compared = compare(a, b, means(tmp_path, scorer=Blind))

    assert compared.looked is None
    assert comparing.as_json(compared)["looked"] is None
