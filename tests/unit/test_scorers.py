"""Loading a model: every way in which folder, runtime or device can be wrong gets its remedy."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from vqmon.domain import Assessment
from vqmon.errors import ScorerError
from vqmon.preprocess import Prepared, prepare
from vqmon.scorers import SHIPPED, load_scorer, model_folder
from vqmon.scorers.card import read_card
from vqmon.scorers.comparison import compare
from vqmon.scorers.onnx import OnnxScorer, runtimes
from vqmon.scorers.shared import SharedScorer
from vqmon.scorers.wire import Arena, BadMessage, Unpacker, describe, lay_out, pack, take_up
from vqmon.testing import textured_frame

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be damaged."""
    return Path(shutil.copytree(model_folder(), tmp_path / "model"))


def change(folder: Path, how: Change) -> Path:
    path = folder / "card.json"
    card = json.loads(path.read_text())
    how(card)
    path.write_text(json.dumps(card))
    return folder


def picture(seed: int = 0) -> Prepared:
    return prepare(textured_frame(brightness=40 + seed, size=(320, 180), seed=seed))


def test_the_shipped_model_is_the_default() -> None:
    """`vqmon score FILE` must work without a word of configuration."""
    assert load_scorer().model == load_scorer(SHIPPED).model == load_scorer(model_folder()).model


def test_a_shared_scorer_can_be_named_in_the_configuration(tmp_path: Path) -> None:
    """Several daemons of one machine may share a scoring process."""
    scorer = load_scorer(f"shared:{tmp_path / 'scorer.sock'}")

    assert isinstance(scorer, SharedScorer)
    scorer.close()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda c: c.update(format=9), "format 9"),
        (lambda c: c.update(kind="magic"), "kind 'magic'"),
        (lambda c: c.pop("version"), "lacks the key 'version'"),
        (lambda c: c["outputs"].pop("score"), "names no output 'score'"),
        (lambda c: c["outputs"]["score"].update(kind="number"), "of kind 'distribution'"),
        (lambda c: c["outputs"]["score"]["values"].reverse(), "must rise"),
        (lambda c: c["outputs"]["score"]["values"].pop(), "has 20 values"),
        (lambda c: c["calibration"]["quality"].update(to=[100, 0]), "calibration of quality"),
        (lambda c: c["calibration"].update(uncertainty=3), "cannot be read"),
        (lambda c: c.update(inputs=[]), "cannot be read"),
        (lambda c: c["inputs"]["measures"].update(dtype="float128x"), "cannot be read"),
        (lambda c: c["inputs"]["measures"]["names"].pop(), "names"),
        (lambda c: c["files"]["model.onnx"].update(sha256="0"), "is damaged"),
        (lambda c: c["files"].update({"other.bin": {"sha256": "0"}}), "other.bin is missing"),
        (lambda c: c["inputs"].update(more={"dtype": "float32", "shape": [3]}), "the card says"),
        (lambda c: c.pop("findings"), "lacks the key 'findings'"),
    ],
)
def test_a_wrong_card_is_explained(folder: Path, how: Change, message: str) -> None:
    """The folder is named, and never a traceback shown: people do edit these files."""
    change(folder, how)

    with pytest.raises(ScorerError, match=message) as caught:
        load_scorer(folder)

    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_an_unreadable_card_is_explained(folder: Path, text: str) -> None:
    """A half-written file must be told from a missing one."""
    (folder / "card.json").write_text(text, encoding="latin-1")

    with pytest.raises(ScorerError, match=r"card\.json"):
        load_scorer(folder)


def test_a_folder_without_a_card_is_no_model_folder(tmp_path: Path) -> None:
    """The usual mistake: naming the folder above."""
    with pytest.raises(ScorerError, match="is no model folder"):
        load_scorer(tmp_path)


def test_an_unknown_model_names_those_that_are_shipped() -> None:
    """A typing mistake in the configuration ends at the next start, with the right name."""
    with pytest.raises(ScorerError, match=f"shipped models: .*{SHIPPED}"):
        load_scorer("measurs")


def test_a_damaged_network_is_not_loaded(folder: Path) -> None:
    """A truncated download would otherwise fail deep inside the runtime, or score nonsense."""
    network = folder / "model.onnx"
    network.write_bytes(network.read_bytes()[:-100])

    with pytest.raises(ScorerError, match="is damaged"):
        load_scorer(folder)


def test_a_network_that_the_runtime_refuses_is_named(folder: Path) -> None:
    """The checksum may be right and the file still be no network."""
    from vqmon.scorers.card import sha256

    (folder / "model.onnx").write_bytes(b"no network")
    digest = sha256(folder / "model.onnx")
    change(folder, lambda c: c["files"]["model.onnx"].update(sha256=digest))

    with pytest.raises(ScorerError, match=r"model\.onnx cannot be loaded"):
        load_scorer(folder)


def test_a_model_of_other_measures_is_refused(folder: Path) -> None:
    """Measures in another order would be scored without any error, and wrongly."""
    [names] = [it.names for it in read_card(folder).inputs if it.name == "measures"]
    swapped = [names[1], names[0], *names[2:]]
    change(folder, lambda c: c["inputs"]["measures"].update(names=swapped))

    with pytest.raises(ScorerError, match="another order"):
        load_scorer(folder)

    renamed = ["gone", *names[1:]]
    change(folder, lambda c: c["inputs"]["measures"].update(names=renamed))
    with pytest.raises(ScorerError, match=rf"needs gone .*not fitted on {names[0]}"):
        load_scorer(folder)


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not installed by default, because two builds of it exist."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(ScorerError, match=r"pip install 'vqmon\[cpu\]'"):
        load_scorer()


def test_cuda_that_the_runtime_lacks_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CPU build has no CUDA at all."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])

    with pytest.raises(ScorerError, match=r"pip install 'vqmon\[gpu\]'.*or use device cpu"):
        load_scorer(device="cuda")


def test_cuda_that_falls_back_in_silence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU build lists CUDA even where there is no driver: only the session tells."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: session(path, options, providers=providers[-1:]),
    )

    with pytest.raises(ScorerError, match=r"fell back to the CPU.*nvidia-smi"):
        load_scorer(device="cuda:0")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    """Nothing may run elsewhere than the configuration says."""
    with pytest.raises(ScorerError, match="unknown device"):
        load_scorer(device=device)


def test_threads_are_at_least_one() -> None:
    """Zero means "all cores" to the runtime: the opposite of what was asked for."""
    with pytest.raises(ScorerError, match="at least 1"):
        load_scorer(threads=0)


def test_threads_are_explicit_and_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spinning threads would take a core from the decoders all the time."""
    seen = {}
    session = onnxruntime.InferenceSession

    def note(path: str, options: Any, providers: Any) -> Any:
        seen["threads"] = options.intra_op_num_threads, options.inter_op_num_threads
        for kind in ("intra_op", "inter_op"):
            entry = options.get_session_config_entry(f"session.{kind}.allow_spinning")
            seen[kind] = entry
        return session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)

    load_scorer(threads=2)

    assert seen == {"threads": (2, 1), "intra_op": "0", "inter_op": "0"}


def test_the_installed_runtimes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both at once break each other; `doctor` has to see that."""
    versions = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.19"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    both = runtimes()
    del versions["onnxruntime"]

    assert both == (("onnxruntime", "1.20"), ("onnxruntime-gpu", "1.19"))
    assert runtimes() == (("onnxruntime-gpu", "1.19"),)


def test_stored_outputs_read_as_they_were_scored() -> None:
    """Old segments are compared from what was stored, without their pictures."""
    scorer = OnnxScorer(model_folder())
    [scored] = scorer.assess([picture()])

    again = scorer.read(scored.outputs)

    assert again.quality == pytest.approx(scored.quality, abs=0.01)
    assert again.uncertainty == pytest.approx(scored.uncertainty, abs=0.01)


def test_outputs_of_another_kind_of_model_are_refused() -> None:
    """Reading the wrong column must not give a number."""
    with pytest.raises(ScorerError, match="hold no 'score'"):
        OnnxScorer(model_folder()).read({"quality": (3.0,)})


def test_inputs_that_do_not_fit_are_an_error() -> None:
    """Model and preprocessing of different versions: say so instead of scoring."""
    scorer = OnnxScorer(model_folder())
    whole = picture()
    short = replace(whole, inputs={**whole.inputs, "measures": np.zeros(3, np.float32)})
    other = replace(whole, inputs={"view": whole.inputs["view"]})

    with pytest.raises(ScorerError, match="has shape"):
        scorer.assess([short])
    with pytest.raises(ScorerError, match="was not prepared"):
        scorer.assess([other])


def test_a_runtime_that_fails_gives_no_scores_and_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA can run out of memory: the stream goes on without scores, and the log not flooded."""
    scorer = OnnxScorer(model_folder())

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(scorer, "_session", type("Session", (), {"run": fail}))
        failed = [scorer.assess([picture(), picture(1)]) for _ in range(3)]
    [recovered] = scorer.assess([picture()])

    assert {a.no_score_reason for batch in failed for a in batch} == {"scorer_failed"}
    assert [len(batch) for batch in failed] == [2, 2, 2]
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["scorer_failed"]
    assert recovered.quality is not None


def assessed(*qualities: float, uncertainty: float = 10.0) -> list[Assessment]:
    return [Assessment(float(i), q, uncertainty) for i, q in enumerate(qualities)]


def test_the_probability_follows_from_margin_and_uncertainties() -> None:
    """Two independent deviations of 10 and a margin of 14.14 are one deviation: 84 %."""
    comparison = compare(assessed(60 + 14.142), assessed(60))

    assert comparison.better == "a"
    assert comparison.margin == pytest.approx(14.142)
    assert comparison.probability == pytest.approx(0.8413, abs=1e-3)


def test_what_is_misjudged_alike_on_both_sides_cancels() -> None:
    """Of deviations of 10 and 8, .9 in common: sqrt(100 + 64 - 2 * .9 * 80) = 4.47."""
    one, other = assessed(60), assessed(56, uncertainty=8)

    paired, apart = compare(one, other, shared=0.9), compare(one, other)

    assert paired.spread == pytest.approx(4.4721, abs=1e-4)
    assert apart.spread == pytest.approx(12.8062, abs=1e-4)
    assert paired.probability > apart.probability > 0.5
    assert (paired.shared, apart.shared) == (0.9, 0.0)


def test_errors_wholly_in_common_leave_no_doubt() -> None:
    """Nothing is divided by zero."""
    assert compare(assessed(60), assessed(59), shared=1.0).probability == 1.0
    assert compare(assessed(60), assessed(60), shared=1.0).better == "similar"


def test_more_frames_do_not_make_a_model_surer_of_itself() -> None:
    """Its errors on the frames of one scene go together; their mean is as uncertain."""
    one = compare(assessed(70), assessed(60))
    many = compare(assessed(*[70] * 100), assessed(*[60] * 100))

    assert many.probability == pytest.approx(one.probability)


def test_small_differences_are_similar_unless_the_model_is_sure() -> None:
    """The zone of similarity is one of probability, not of points."""
    assert compare(assessed(62), assessed(60)).better == "similar"
    assert compare(assessed(62, uncertainty=1), assessed(60, uncertainty=1)).better == "a"
    assert compare(assessed(60, uncertainty=0), assessed(60, uncertainty=0)).better == "similar"


def test_unscored_frames_are_left_out_of_a_comparison() -> None:
    """A frame lost to a restart is no zero."""
    lost = Assessment(9.0, None, None, no_score_reason="scorer_unavailable")

    assert compare([*assessed(80), lost], assessed(40)).margin == pytest.approx(40)


def test_the_reason_tells_both_scores() -> None:
    """A person should be able to check the answer from its text."""
    comparison = compare(assessed(40), assessed(80))

    assert comparison.better == "b"
    assert "80.0" in comparison.reason
    assert "40.0" in comparison.reason


def test_inputs_survive_the_wire_bit_by_bit() -> None:
    """What is scored in another process must be what was prepared here."""
    rng = np.random.default_rng(0)
    inputs = {
        "measures": rng.normal(size=40).astype(np.float32),
        "patches": rng.integers(0, 255, (4, 8, 8, 3), np.uint8),
    }

    back = take_up(json.loads(json.dumps(describe(inputs))), lay_out(inputs))

    assert back.keys() == inputs.keys()
    for name, array in inputs.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def test_messages_are_found_however_the_bytes_arrive() -> None:
    """A socket cuts messages where it likes."""
    stream = pack({"id": 1}, b"abc") + pack({"id": 2}) + pack({"id": 3}, b"x" * 1000)

    for size in (1, 7, 64, len(stream)):
        unpacker = Unpacker()
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        found = [message for piece in pieces for message in unpacker.feed(piece)]

        assert [header["id"] for header, _ in found] == [1, 2, 3]
        assert [len(body) for _, body in found] == [3, 0, 1000]


def test_arrays_that_do_not_fit_their_bytes_are_a_bad_message() -> None:
    """Sizes come from the other side: never read past what it sent."""
    with pytest.raises(BadMessage):
        take_up([["measures", "<f4", [40]]], b"123")
    with pytest.raises(BadMessage):
        take_up([["measures", "no type", [1]]], b"1234")


def test_an_arena_gives_back_what_was_written_and_no_more() -> None:
    """Slots are apart, and addresses from outside are checked."""
    arena = Arena.create(2, 100)
    arena.write(0, b"first")
    arena.write(1, b"second")

    assert arena.read(0, 5) == b"first"
    assert arena.read(1, 6) == b"second"
    for slot, size in ((2, 1), (-1, 1), (0, 1 << 30), (0, -1)):
        with pytest.raises(BadMessage):
            arena.read(slot, size)
    arena.close()
