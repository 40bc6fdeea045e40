"""What a large model says of pictures, kept as lessons for a small one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tests import tiny_writer
from trainer import distil, supervised, warmup
from trainer.distil import TargetsUnusable
from trainer.extract import made_up
from trainer.groups import UNKNOWN, Pictures
from trainer.policies.lite import Lite, lite
from trainer.supervised import Course, joined, learn, new_heads, taught_pictures
from trainer.views import Views
from vqmon.domain import DEGRADATIONS
from vqmon.measures import MEASURES

torch.set_num_threads(1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, and a file that only looks like one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture = made_up(np.random.default_rng(number), 56, 56)
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "3.png").write_text("no picture")
    return folder


def asked(teacher: str, pictures: Path, out: Path) -> int:
    return distil.main(["--teacher", teacher, "--pictures", str(pictures), "--out", str(out)])


def test_a_writer_teaches_scores_and_what_it_names(pictures: Path, tmp_path: Path) -> None:
    """Real classes, a tiny checkpoint; what it was not asked about is unknown, not absent, and an
    answer that nobody can read is no lesson.
    """
    out = tmp_path / "targets.jsonl"

    assert asked(f"writer:{tiny_writer.school()}", pictures, out) == 0

    *found, broken = distil.read(out)
    scored = [it for it in found if it.scored]  # a tiny model is not always readable
    assert scored
    assert all(0 <= (it.quality or -1) <= 100 for it in scored)
    unasked = [DEGRADATIONS.index(name) for name in ("banding", "upscaled", "corrupted")]
    assert all(it.levels[place] == UNKNOWN for it in scored for place in unasked)
    assert any(level > 0 for it in scored for level in it.levels)
    assert not broken.scored
    assert "3.png" in broken.message


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also behind a line that was cut off in the middle."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:2]) + '{"path": "cut')
    capsys.readouterr()

    assert asked("lite", pictures, out) == 0

    assert out.read_text() == whole
    assert "2 asked now" in capsys.readouterr().out


def test_lessons_of_two_teachers_are_not_mixed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their scales differ."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0

    assert asked("measures", pictures, out) == 2

    assert "name another --out" in capsys.readouterr().err


def test_targets_become_lessons_of_the_network(pictures: Path, tmp_path: Path) -> None:
    """Pictures as the network reads them, beside what was said; a changed picture is refused."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0

    taught = distil.taught(out, draws=2, processes=1)

    assert len(taught) == 3
    assert taught.lessons.quality.tolist() == pytest.approx(
        [it.quality for it in distil.read(out) if it.scored]
    )
    Image.fromarray(made_up(np.random.default_rng(9), 72, 72)).save(pictures / "0.png")
    with pytest.raises(TargetsUnusable, match="has changed"):
        distil.taught(out, draws=2, processes=1)


def test_the_warm_up_learns_from_targets_beside_opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One loss more; levels that the teacher did not name teach nothing."""
    monkeypatch.setattr(warmup, "LESSON", 4)
    torch.manual_seed(0)
    student = warmup.Student(lite())
    score = student.network.heads.degradations
    lessons = taught(8, level=UNKNOWN)

    losses = warmup._losses(student, judged(12), None, np.random.default_rng(0), lessons)
    losses["taught"].backward()  # type: ignore[no-untyped-call]

    assert torch.isfinite(losses["taught"])
    assert student.network.heads.score.weight.grad is not None
    assert score.weight.grad is None or score.weight.grad.abs().max() == 0


def test_heads_follow_targets_where_people_said_nothing() -> None:
    """Supervised heads take the teacher's score and level on its pictures; opinions stay theirs."""
    torch.manual_seed(0)
    network = lite().eval()
    whole = joined(known(network), taught_pictures(network, taught(24, level=2)))
    further = whole.dataset == supervised.TAUGHT
    course = Course(steps=60, lr=5e-3, look_every=60, dropout=0.0)

    heads = learn(new_heads(whole, course), whole, course, told=False)

    reading = heads.read(torch.from_numpy(whole.features[further, 0]).float())
    assert further.sum() == 24
    assert float(reading.quality.mean()) == pytest.approx(30, abs=12)
    assert float(reading.present[:, 0].mean()) > 0.7
    assert set(whole.split[further]) == {"train"}  # nothing is chosen by a teacher


def taught(count: int, level: int) -> distil.Taught:
    """Noise that a teacher gives 30 points, and `level` of the first degradation alone."""
    levels = np.full((count, 8), UNKNOWN, np.int8)
    levels[:, 0] = level
    quality = np.full(count, 30, np.float32)
    lessons = distil.Lessons(quality, np.full(count, 5, np.float32), levels)
    return distil.Taught(views(count, seed=7, darkest=0, lightest=60), lessons, "teacher@1")


def judged(count: int) -> warmup.Opinions:
    rng = np.random.default_rng(3)
    quality = rng.uniform(60, 100, count).astype(np.float32)
    seen = views(count, seed=1, darkest=150, lightest=255)
    return warmup.Opinions(seen, quality, np.array(["a", "b"] * (count // 2)))


def known(network: Lite) -> Pictures:
    """Opinions, half of them to choose by."""
    part = judged(24)
    features = supervised.featured(
        network, part.views.patches, part.views.view, part.views.measures
    )
    return Pictures(
        features=features,
        mos=part.quality,
        sigma=np.full(24, np.nan, np.float32),
        dataset=np.full(24, "set"),
        subset=part.subset,
        split=np.array(["train"] * 12 + ["validation"] * 12),
        levels=np.full((24, 8), UNKNOWN, np.int8),
        regions=np.full((24, 9), UNKNOWN, np.int8),
        ladder=np.full(24, UNKNOWN, np.int64),
        rung=np.zeros(24, np.float32),
    )


def views(count: int, *, seed: int, darkest: int, lightest: int) -> Views:
    rng = np.random.default_rng(seed)
    return Views(
        rng.integers(darkest, lightest, (count, 2, 36, 40, 40), dtype=np.uint8),
        rng.integers(darkest, lightest, (count, 3, 96, 96), dtype=np.uint8),
        rng.standard_normal((count, 2, len(MEASURES))).astype(np.float32),
        np.zeros((count, 256), bool),
    )
