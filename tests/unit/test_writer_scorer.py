"""A writing model on this machine, with real transformers classes and the smallest of models."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny_writer
from vqmon.domain import DEGRADATIONS, Assessment
from vqmon.errors import ScorerError, ScorerUnavailable
from vqmon.measures import Measures
from vqmon.preprocess import Prepared
from vqmon.scorers import load_scorer
from vqmon.scorers.writer import Local, Speaker, Speech, WriterScorer, found
from vqmon.scorers.writing import Limits
from vqmon.writing.answers import PREFERENCES
from vqmon.writing.expectation import END, choose, expect
from vqmon.writing.prompts import Picture, encode, save_prompts, shipped

PROMPTS = tiny_writer.prompts()

pytestmark = pytest.mark.timeout(600)


def picture(seed: int = 0, size: tuple[int, int] = (56, 56)) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def prepared(seed: int = 0, position: float = 0.0) -> Prepared:
    values = np.zeros(1, np.float32)
    return Prepared(position, Measures(values, {}), {"measures": values, "picture": picture(seed)})


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return tiny_writer.school()


@pytest.fixture(scope="module")
def writer(checkpoint: Path) -> WriterScorer:
    return WriterScorer(str(checkpoint))


@pytest.fixture(scope="module")
def assessment(writer: WriterScorer) -> Assessment:
    return writer.write([picture()], 12.5)


class TestAssessment:
    def test_says_how_good_what_is_wrong_and_why(self, assessment: Assessment) -> None:
        assert assessment.quality == pytest.approx(65, abs=12)
        assert assessment.uncertainty is not None
        assert 0 < assessment.uncertainty < 30
        assert assessment.explanation == tiny_writer.THINK
        assert assessment.no_score_reason is None
        assert assessment.position == 12.5
        [finding] = assessment.findings
        assert finding.name in ("blur", "noise")
        assert finding.start == 12.5
        assert 0.1 < finding.confidence <= 1

    def test_keeps_the_number_that_was_written_beside_the_expectation(
        self, assessment: Assessment
    ) -> None:
        """People compare them; a wide gap means that the text does not say what the model means."""
        [written], [rating] = assessment.outputs["written"], assessment.outputs["rating"]

        assert written in (3.4, 3.8)
        assert rating != written
        assert assessment.quality == pytest.approx((rating - 1) * 25, abs=0.001)
        assert assessment.outputs["lost"][0] < 0.5
        assert sum(assessment.outputs["ratings"]) == pytest.approx(1, abs=0.001)
        levels = np.reshape(assessment.outputs["levels"], (8, 6)).sum(1)
        assert dict(zip(DEGRADATIONS, levels, strict=True)) == {
            name: float(name in ("noise", "compression", "blur", "underexposed"))
            for name in DEGRADATIONS
        }, "what was not asked about is not called absent"

    def test_names_the_model_and_a_version_that_its_weights_make(
        self, writer: WriterScorer, checkpoint: Path, tmp_path: Path
    ) -> None:
        copied = shutil.copytree(checkpoint, tmp_path / "tiny")
        same = WriterScorer(str(copied)).model
        weights = bytearray((copied / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (copied / "model.safetensors").write_bytes(weights)

        assert writer.model.startswith("tiny@")
        assert same == writer.model
        assert WriterScorer(str(copied)).model != writer.model

    def test_is_the_same_on_every_run_and_in_every_batch(self, writer: WriterScorer) -> None:
        alone = [writer.assess([prepared(seed)])[0] for seed in (0, 1)]
        together = writer.assess([prepared(1), prepared(0)])

        assert [a.quality for a in alone] == [a.quality for a in reversed(together)]
        assert [a.explanation for a in alone] == [a.explanation for a in reversed(together)]
        assert writer.assess([]) == []

    def test_several_frames_are_one_assessment(self, writer: WriterScorer) -> None:
        one = writer.write([picture(0), picture(1), picture(2)])

        assert isinstance(one, Assessment)
        with pytest.raises(ScorerError, match="no picture"):
            writer.write([])

    def test_can_be_compared_by_its_scores_like_any_other(self, writer: WriterScorer) -> None:
        a = writer.assess([prepared(0)])

        assert writer.compare(a, a).better == "similar"
        assert writer.compare(a, a, same_content=True).probability == 0.5

    def test_is_loaded_by_its_name(self, checkpoint: Path, assessment: Assessment) -> None:
        scorer = load_scorer(f"writer:{checkpoint}")

        assert scorer.assess([prepared()])[0].quality == assessment.quality


def test_a_file_is_scored_by_it_in_its_own_words(writer: WriterScorer, tmp_path: Path) -> None:
    """`vqmon score --model writer:...`: decoded by the same line as everything else."""
    from PIL import Image

    from vqmon.files import as_json, score_file

    Image.fromarray(picture()).save(tmp_path / "noise.png")

    result = score_file(str(tmp_path / "noise.png"), writer)

    assert result.quality is not None
    assert result.model == writer.model
    assert [it.name for it in result.findings] == ["noise"]
    assert result.explanation.endswith(f"In the words of {writer.model}:\n{tiny_writer.THINK}")
    assert tiny_writer.THINK in as_json(result)["segments"][0]["explanation"]


def test_looking_at_both_gives_a_preference_that_forgets_the_order(writer: WriterScorer) -> None:
    """Models favour the first picture, or the second; a picture is not better than itself."""
    same = writer.prefer([picture()], [picture()])
    forth, back = (writer.prefer([picture(a)], [picture(1 - a)]) for a in (0, 1))

    assert same.better == "similar"
    assert same.probability == pytest.approx(0.5)
    assert forth.probability == pytest.approx(1 - back.probability)
    assert forth.reason == tiny_writer.THINK
    assert forth.spread is None
    with pytest.raises(ScorerError, match="pairs"):
        writer.prefer([picture()], [])


class TestTree:
    """What the cache says is what the model says: compared with runs that use none."""

    PREFIX = '<think>\nx\n</think>\n<answer>\n{"rating": '

    @staticmethod
    def plainly(speaker: Speaker, prefix: str) -> Callable[[Any], Any]:
        """The next tokens from the whole text, anew for every beginning."""
        import torch

        prompt = encode(speaker.processor, PROMPTS, "score", [picture()], prefix=prefix)

        def follow(beginnings: Any) -> list[dict[str, float]]:
            paths = [[speaker.tokens.index(text) for text in tokens] for tokens in beginnings]
            path = torch.tensor(paths, dtype=torch.long)
            inputs = {n: v.repeat(len(paths), *[1] * (v.dim() - 1)) for n, v in prompt.items()}
            inputs["input_ids"] = torch.cat([inputs["input_ids"], path], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            beside = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([beside, torch.zeros_like(path)], 1)
            with torch.inference_mode():
                logits = speaker.network(**inputs, use_cache=False).logits[:, -1].double()
                logits[:, speaker.forbidden] = -torch.inf
            return [by_text(speaker, row) for row in logits.softmax(-1).tolist()]

        return follow

    @pytest.mark.parametrize("kind", tiny_writer.KINDS)
    def test_of_digits_is_the_exact_expectation(self, kind: str, tmp_path: Path) -> None:
        import torch

        tiny_writer.checkpoint(tmp_path, kind, seed=3)
        speaker = Speaker(found(str(tmp_path)), "cpu", 1)

        exact = expect(self.plainly(speaker, self.PREFIX), least=0.0)
        with torch.inference_mode():
            prompt = encode(speaker.processor, PROMPTS, "score", [picture()], prefix=self.PREFIX)
            speech = Speech(speaker, prompt)
            quick = expect(speech.following(speaker.digits), least=0.0)

        assert exact.rating is not None
        assert quick.rating == pytest.approx(exact.rating, abs=1e-5)
        assert quick.deviation == pytest.approx(exact.deviation, abs=1e-5)
        assert quick.lost == pytest.approx(exact.lost, abs=1e-6)

    def test_of_words_is_what_the_model_says(self, writer: WriterScorer) -> None:
        import torch

        speaker, prefix = speaker_of(writer), "<think>\nx\n</think>\n<answer>"

        exact = choose(self.plainly(speaker, prefix), tuple(PREFERENCES), least=1e-9)
        with torch.inference_mode():
            speech = Speech(
                speaker, encode(speaker.processor, PROMPTS, "score", [picture()], prefix=prefix)
            )
            quick = choose(speech.following(speaker.words), tuple(PREFERENCES), least=1e-9)

        assert sum(exact.values()) == pytest.approx(1)
        assert quick == pytest.approx(exact, abs=1e-5)

    def test_leaves_the_text_as_it_would_have_been(self, writer: WriterScorer) -> None:
        """Looking at what might have been written must not change what is written."""
        import torch

        speaker = speaker_of(writer)
        inputs = encode(speaker.processor, PROMPTS, "score", [picture()])
        with torch.inference_mode():
            plain = speaker.network.generate(
                **inputs, max_new_tokens=40, do_sample=False, repetition_penalty=1.0
            )
        tokenizer = speaker.processor.tokenizer
        text = tokenizer.decode(plain[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

        said = writer.voice.say("score", [picture()], deadline())

        assert said.text == text

    def test_a_number_in_the_reasoning_is_not_the_answer(self, writer: WriterScorer) -> None:
        """Models repeat the question: `I should write "rating": ...`."""
        from vqmon.scorers.writer import _number_comes

        assert not _number_comes('<think>I write {"rating": ')
        assert _number_comes('<think>I write {"rating": </think><answer>{"rating": ')
        assert _number_comes('{"rating":')
        assert not _number_comes('<think>x</think><answer>{"rating": 4')

    def test_what_ends_a_number_is_given_together(self, writer: WriterScorer) -> None:
        """150,000 tokens are not looked at one by one."""
        import torch

        speaker = speaker_of(writer)
        with torch.inference_mode():
            speech = Speech(speaker, encode(speaker.processor, PROMPTS, "score", [picture()]))
            [row] = speech.following(speaker.digits)([()])

        assert set("0123456789.") <= set(row)
        assert 0 < row[END] < 1
        assert len(row) < 60


def by_text(speaker: Speaker, chances: list[float]) -> dict[str, float]:
    """Halves of characters look alike as texts."""
    found: dict[str, float] = {}
    for text, chance in zip(speaker.tokens, chances, strict=True):
        found[text] = found.get(text, 0.0) + chance
    return found


def speaker_of(writer: WriterScorer) -> Speaker:
    assert isinstance(writer.voice, Local)
    assert writer.voice._speaker is not None
    return writer.voice._speaker


def deadline(seconds: float = 60.0) -> Any:
    from vqmon.scorers.writing import Deadline

    return Deadline(seconds)


class TestBounds:
    def test_a_text_that_does_not_end_is_cut_and_gives_no_score(self, checkpoint: Path) -> None:
        """Random or damaged weights write for ever."""
        writer = WriterScorer(str(checkpoint), limits=Limits(tokens=5))

        assessment = writer.write([picture()])

        assert assessment.quality is None
        assert assessment.no_score_reason == "scorer_failed"
        assert "still writing after 5 tokens" in assessment.explanation
        assert assessment.findings == ()

    def test_time_that_is_up_ends_the_writing(self, checkpoint: Path) -> None:
        writer = WriterScorer(str(checkpoint), limits=Limits(seconds=0))

        assessment = writer.write([picture()])

        assert assessment.quality is None
        assert "still writing after 0 seconds" in assessment.explanation
        assert "not asked what is wrong" in assessment.explanation

    def test_untaught_weights_give_no_score_and_say_why(self, tmp_path: Path) -> None:
        tiny_writer.checkpoint(tmp_path)
        writer = WriterScorer(str(tmp_path), limits=Limits(tokens=30))

        [assessment] = writer.assess([prepared(position=3.0)])

        assert (assessment.quality, assessment.position) == (None, 3.0)
        assert "There is no score" in assessment.explanation
        with pytest.raises(ScorerError, match="did not compare"):
            writer.prefer([picture()], [picture(1)])


class TestFailures:
    def test_digits_go_in_smaller_batches_where_memory_is_short(
        self, writer: WriterScorer, assessment: Assessment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each beginning of a number needs a copy of the cache."""
        import torch

        network, sizes = speaker_of(writer).network, list[int]()
        plain = network.forward

        def tight(*args: Any, **named: Any) -> Any:
            sizes.append(len(named["input_ids"]))
            if sizes[-1] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(*args, **named)

        monkeypatch.setattr(network, "forward", tight)

        assert writer.write([picture()]).quality == pytest.approx(assessment.quality, abs=1e-3)
        assert max(sizes) > 3

    def test_a_device_without_memory_may_have_some_later(
        self, writer: WriterScorer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        def full(*_args: object, **_named: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        monkeypatch.setattr(speaker_of(writer).network, "forward", full)

        with pytest.raises(ScorerUnavailable, match=r"too little memory.*pixels\.most"):
            writer.write([picture()])
        [silent] = writer.assess([prepared()])
        assert silent.no_score_reason == "scorer_unavailable"

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    def test_a_missing_package_is_named_with_the_remedy(
        self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)

        with pytest.raises(ScorerError, match=rf"needs {package}: pip install 'vqmon\[writer\]'"):
            WriterScorer(str(checkpoint))

    def test_a_folder_that_is_no_checkpoint_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ScorerError, match=r"no config\.json"):
            WriterScorer(str(tmp_path))

    @pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all", "nowhere", "~/nowhere"])
    def test_a_folder_that_is_not_there_is_named(self, place: str) -> None:
        with pytest.raises(ScorerError, match=f"no folder {place}"):
            WriterScorer(place)

    def test_weights_that_were_not_downloaded_are_not_fetched(self) -> None:
        """A daemon does not load sixteen gigabytes because of a typing mistake."""
        with pytest.raises(ScorerError, match="hf download nobody/nothing"):
            WriterScorer("nobody/nothing")

    def test_damaged_weights_are_refused(self, checkpoint: Path, tmp_path: Path) -> None:
        copied = shutil.copytree(checkpoint, tmp_path / "tiny")
        weights = copied / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])

        with pytest.raises(ScorerError, match="tiny cannot be loaded"):
            WriterScorer(str(copied))

    def test_a_model_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')

        with pytest.raises(ScorerError, match="AutoModelForImageTextToText"):
            WriterScorer(str(tmp_path))

    @pytest.mark.parametrize(("device", "says"), [("cuda:7", "sees"), ("tpu", "unknown device")])
    def test_a_device_that_is_not_there_is_named(
        self, checkpoint: Path, device: str, says: str
    ) -> None:
        with pytest.raises(ScorerError, match=says):
            WriterScorer(str(checkpoint), device=device)

    def test_a_closed_writer_says_so(self, checkpoint: Path) -> None:
        writer = WriterScorer(str(checkpoint))
        writer.close()

        with pytest.raises(ScorerUnavailable, match="closed"):
            writer.write([picture()])

    def test_frames_that_were_measured_only_are_refused(self, writer: WriterScorer) -> None:
        """Pictures do not cross to the scoring process; watching a stream with it cannot work."""
        blind = prepared()

        with pytest.raises(ScorerError, match="as `writer`"):
            writer.assess([Prepared(0.0, blind.measures, {"measures": blind.inputs["measures"]})])


class TestPlaces:
    def test_published_weights_by_task_are_found(self, checkpoint: Path, tmp_path: Path) -> None:
        """ByteDance/Q-Insight has two folders: one scores and names, the other compares."""
        shutil.copytree(checkpoint, tmp_path / "score_degradation")
        tiny_writer.checkpoint(tmp_path / "comparison")
        writer = WriterScorer(str(tmp_path), limits=Limits(tokens=60))

        assert writer.write([picture()]).explanation == tiny_writer.THINK
        with pytest.raises(
            ScorerError, match="did not compare"
        ):  # untaught, and asked all the same
            writer.prefer([picture()], [picture(1)])

    def test_prompts_beside_a_checkpoint_are_those_it_was_trained_with(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        copied = shutil.copytree(checkpoint, tmp_path / "tiny")
        mine = shipped().model_copy(update={"system": "Judge."})
        save_prompts(copied, mine)

        own = WriterScorer(str(copied)).voice
        told = WriterScorer(str(copied), prompts=shipped()).voice

        assert isinstance(own, Local)
        assert isinstance(told, Local)
        assert own.prompts == mine
        assert told.prompts == shipped()

    def test_files_of_earlier_versions_of_transformers_are_read(
        self, checkpoint: Path, tmp_path: Path, assessment: Assessment
    ) -> None:
        """Published weights have preprocessor_config.json with pixel limits of their own."""
        copied = shutil.copytree(checkpoint, tmp_path / "tiny")
        whole = json.loads((copied / "processor_config.json").read_text())
        images = whole["image_processor"]
        images.pop("size")
        images |= {"min_pixels": 3136, "max_pixels": 6272, "processor_class": "Qwen2_5_VLProcessor"}
        (copied / "preprocessor_config.json").write_text(json.dumps(images))
        (copied / "processor_config.json").unlink()

        assert WriterScorer(str(copied)).write([picture()]).quality == assessment.quality

    def test_an_adapter_is_put_on_its_base(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What LoRA training leaves: a few megabytes beside a base that is there already."""
        import peft
        import transformers

        base = transformers.AutoModelForImageTextToText.from_pretrained(str(checkpoint))
        config = peft.LoraConfig(r=2, target_modules=r".*language_model.*q_proj")
        adapted = peft.get_peft_model(base, config)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.05)
        adapted.save_pretrained(str(tmp_path / "adapter"))

        plain = WriterScorer(str(checkpoint))
        turned = WriterScorer(str(tmp_path / "adapter"))

        assert turned.write([picture()]).outputs != plain.write([picture()]).outputs
        assert turned.model.startswith("adapter@")
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ScorerError, match=r"needs peft: pip install 'vqmon\[writer\]'"):
            WriterScorer(str(tmp_path / "adapter"))

    def test_an_adapter_without_its_base_names_it(self, tmp_path: Path) -> None:
        config = {"base_model_name_or_path": "somebody/gone", "peft_type": "LORA"}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))

        with pytest.raises(ScorerError, match=r"an adapter of somebody/gone, which must be"):
            WriterScorer(str(tmp_path))

    def test_a_name_of_the_hub_is_looked_up_among_what_was_downloaded(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub.constants

        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--somebody--tiny"
        shutil.copytree(checkpoint, repository / "snapshots" / commit / "score_degradation")
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text(commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

        writer = WriterScorer("somebody/tiny")

        assert writer.model == f"somebody/tiny@{commit[:8]}"
        assert writer.write([picture()]).quality is not None


@pytest.mark.gpu
def test_on_a_gpu_it_means_the_same(checkpoint: Path, assessment: Assessment) -> None:
    """In bfloat16, so nearly; and to the last digit the same on every run."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")

    once, again = (
        WriterScorer(str(checkpoint), device="cuda").write([picture()], 12.5) for _ in range(2)
    )

    assert once.quality == again.quality
    assert once.quality == pytest.approx(assessment.quality, abs=3)
    assert once.explanation == assessment.explanation
