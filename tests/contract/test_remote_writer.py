"""A writing model behind a server: a real process, real HTTP, the same small model as elsewhere."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_writer
from tests.contract.servers import free_port
from vqmon.domain import Assessment
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable
from vqmon.measures import Measures
from vqmon.preprocess import Prepared
from vqmon.scorers import load_scorer
from vqmon.scorers.remote import Remote, RemoteScorer
from vqmon.scorers.writer import WriterScorer
from vqmon.scorers.writing import Limits
from vqmon.writing.prompts import Picture

PROGRAM = Path(__file__).parent.parent / "writer_server.py"
PROMPTS = tiny_writer.prompts()

pytestmark = pytest.mark.timeout(600)


def picture(seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (56, 56, 3), dtype=np.uint8)


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    command = [sys.executable, str(PROGRAM), str(tiny_writer.school()), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def remote(url: str, fault: str = "", seconds: float = 60.0) -> RemoteScorer:
    model = f"tiny-{fault}" if fault else "tiny"
    return RemoteScorer(url, model=model, prompts=PROMPTS, limits=Limits(60, seconds))


def skills(scorer: RemoteScorer) -> tuple[bool | None, bool | None, bool | None]:
    assert isinstance(scorer.voice, Remote)
    found = scorer.voice.skills
    return found.chances, found.continuing, found.schemas


@pytest.fixture(scope="module")
def local() -> Assessment:
    return WriterScorer(str(tiny_writer.school())).write([picture()], 3.0)


class TestSameAsLocal:
    """One checkpoint, here and behind a server: who watches need not know which."""

    @pytest.fixture(scope="class")
    def assessment(self, url: str) -> Assessment:
        return remote(url).write([picture()], 3.0)

    def test_it_writes_the_same(self, assessment: Assessment, local: Assessment) -> None:
        assert assessment.explanation == local.explanation
        assert assessment.outputs["written"] == local.outputs["written"]
        assert assessment.position == local.position

    def test_the_score_is_the_same_expectation(
        self, assessment: Assessment, local: Assessment
    ) -> None:
        """Nearly: from twenty rivals at each place, and beginnings likelier than 2 %."""
        assert assessment.quality == pytest.approx(local.quality, abs=1.5)
        assert assessment.uncertainty == pytest.approx(local.uncertainty, abs=1.5)
        [written] = assessment.outputs["written"]
        assert assessment.outputs["rating"][0] != pytest.approx(written, abs=0.1)

    def test_it_survives_a_server_that_strips_what_was_begun(
        self, url: str, assessment: Assessment
    ) -> None:
        """Chat templates do; the space before a number then has to be written again."""
        scorer = remote(url, "trims")

        assert scorer.write([picture()]).quality == assessment.quality
        assert skills(scorer)[1] is True

    def test_so_are_the_findings(self, assessment: Assessment, local: Assessment) -> None:
        [ours], [theirs] = local.findings, assessment.findings

        assert (theirs.name, theirs.severity) == (ours.name, ours.severity)
        assert theirs.confidence == pytest.approx(ours.confidence, abs=0.01)

    def test_so_is_a_comparison(self, url: str) -> None:
        here = WriterScorer(str(tiny_writer.school())).prefer([picture()], [picture(1)])
        there = remote(url).prefer([picture()], [picture(1)])

        assert there.better == here.better
        assert there.probability == pytest.approx(here.probability, abs=0.02)
        assert there.reason == here.reason

    def test_it_is_the_same_again(self, url: str, assessment: Assessment) -> None:
        assert remote(url).write([picture()]).quality == assessment.quality


def test_the_only_model_of_a_server_needs_no_name(url: str) -> None:
    scorer = load_scorer(f"remote:{url}")

    assert scorer.model == "tiny@remote"
    assert RemoteScorer(f"{url}#tiny-silent").model == "tiny-silent@remote"
    assert RemoteScorer(url.removesuffix("/v1"), model="x").voice._api == url  # type: ignore[attr-defined]


def test_of_several_models_one_must_be_named(url: str) -> None:
    with pytest.raises(ScorerError, match=r"#NAME; the server has one, two"):
        RemoteScorer(url.replace("/v1", "/two/v1"))


class TestLesserServers:
    """Not every server tells probabilities, or goes on with what was begun."""

    @pytest.mark.parametrize("fault", ["silent", "begins-anew", "refuses"])
    def test_the_written_number_counts_and_is_marked(
        self, url: str, fault: str, local: Assessment
    ) -> None:
        scorer = remote(url, fault)

        assessment = scorer.write([picture()])

        [written] = assessment.outputs["written"]
        assert assessment.quality == (written - 1) * 25
        assert "rating" not in assessment.outputs
        assert assessment.uncertainty is None
        assert assessment.explanation == local.explanation
        assert skills(scorer)[:2] in ((False, None), (True, False))

    def test_such_scores_are_compared_with_a_usual_uncertainty(self, url: str) -> None:
        """A score of unknown spread is not a certain one."""
        [a] = remote(url, "silent").assess([prepared()])

        comparison = remote(url, "silent").compare([a], [a])

        assert comparison.better == "similar"
        assert comparison.spread is not None
        assert comparison.spread > 10

    def test_a_preference_is_what_was_written(self, url: str) -> None:
        assert remote(url, "silent").prefer([picture()], [picture(1)]).probability in (
            0, 0.25, 0.5, 0.75, 1,
        )  # fmt: skip

    def test_structured_output_saves_an_answer_without_form(self, url: str) -> None:
        scorer = remote(url, "rambles")

        assessment = scorer.write([picture()])

        assert assessment.quality == 37.5
        assert assessment.explanation == "blocky"
        assert assessment.findings[0].name == "noise"
        assert skills(scorer)[2] is True

    def test_a_server_that_has_enough_in_between_leaves_what_is_known(self, url: str) -> None:
        """The first call answered; the calls for other digits met an overloaded server."""
        assessment = remote(url, "forgets").write([picture()])

        assert assessment.quality is not None
        assert assessment.outputs["written"]


def prepared() -> Prepared:
    values = np.zeros(1, np.float32)
    return Prepared(0.0, Measures(values, {}), {"measures": values, "picture": picture()})


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            ("busy", "busy, for 7 s: too many requests"),
            ("broken", r"failed \(500\): CUDA error"),
            ("garbage", "something else than an OpenAI-compatible server"),
            ("nonsense", "something else than an OpenAI-compatible server"),
            ("dies", "does not answer"),
        ],
    )
    def test_may_pass(self, url: str, fault: str, says: str) -> None:
        """Whoever asks puts the question off, and says why there is no answer yet."""
        with pytest.raises(ScorerUnavailable, match=says):
            remote(url, fault).write([picture()])
        [silent] = remote(url, fault).assess([prepared()])
        assert silent.no_score_reason == "scorer_unavailable"
        assert silent.quality is None

    @pytest.mark.parametrize("fault", ["slow", "drips"])
    def test_a_server_that_is_slow_costs_no_more_than_its_time(self, url: str, fault: str) -> None:
        """One that sends a byte a second never runs into the usual timeouts."""
        begun = time.monotonic()

        with pytest.raises(ScorerUnavailable, match="does not answer"):
            remote(url, fault, seconds=1.0).write([picture()])

        assert time.monotonic() - begun < 3.5

    def test_a_server_that_is_away_is_named(self) -> None:
        port = free_port()

        with pytest.raises(ScorerUnavailable, match=f"127.0.0.1:{port}/v1 does not answer"):
            RemoteScorer(f"http://127.0.0.1:{port}/v1")

    def test_a_server_that_takes_and_says_nothing_is_left(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            place = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
            with pytest.raises(ScorerUnavailable, match="does not answer"):
                remote(place, seconds=0.5).write([picture()])

    def test_a_picture_that_is_too_large_is_the_pictures_fault(self, url: str) -> None:
        with pytest.raises(PictureUnsupported, match=r"pixels\.most"):
            remote(url, "too-large").write([picture()])

    def test_an_unknown_model_is_named(self, url: str) -> None:
        with pytest.raises(ScorerError, match="no model other at this address"):
            RemoteScorer(url, model="other", prompts=PROMPTS).write([picture()])

    def test_redirects_are_not_followed(self, url: str) -> None:
        """A token must not go elsewhere."""
        with pytest.raises(ScorerError, match="307"):
            remote(url, "moved").write([picture()])

    @pytest.mark.parametrize(
        ("place", "says"),
        [
            ("gpu:8000", "no address"),
            ("ftp://gpu/v1", "no address"),
            ("http://", "no address"),
            ("", "no address"),
            ("http://me:secret@gpu/v1", "credentials"),
        ],
    )
    def test_an_address_that_is_none_is_refused(self, place: str, says: str) -> None:
        with pytest.raises(ScorerError, match=says) as refused:
            RemoteScorer(place, model="tiny")

        assert "secret" not in str(refused.value)


class TestToken:
    @pytest.fixture(scope="class")
    def guarded(self) -> Iterator[str]:
        with serving("let-me-in") as url:
            yield url

    def test_is_sent(self, guarded: str) -> None:
        assert RemoteScorer(guarded, token="let-me-in").model == "tiny@remote"

    def test_comes_from_the_environment_like_that_of_every_client(
        self, guarded: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "let-me-in")

        assert RemoteScorer(guarded).model == "tiny@remote"

    def test_that_is_wrong_is_said_without_showing_it(self, guarded: str) -> None:
        with pytest.raises(ScorerError, match="wants another token") as refused:
            RemoteScorer(guarded, token="open-sesame")

        assert "sesame" not in str(refused.value)
        assert not isinstance(refused.value, ScorerUnavailable)
