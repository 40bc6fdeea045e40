"""``vqmon explain``: what it prints and returns; asking itself is tested elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vqmon import asking
from vqmon.cli import DONE, FAILED, MISUSED, run_program
from vqmon.domain import Assessment, Segment
from vqmon.errors import ScorerError
from vqmon.store import open_store

BEGAN = datetime.now(UTC) - timedelta(minutes=5)
SAID = Assessment(0.0, 72.0, 5.0, model="big@7", explanation="A little soft.\n\nNothing else.")


class Writer:
    def write(self, pictures: object, position: float = 0.0) -> Assessment:
        return SAID


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration with a writer, and one segment with a picture."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "loaded", lambda _: Writer())
    pictures = tmp_path / "vqmon-data" / "evidence" / "lobby"
    pictures.mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(pictures / "a-worst.jpg")
    configure("remote:http://gpu.example/v1")
    database = f"sqlite:///{tmp_path}/vqmon-data/vqmon.db"
    with open_store(database) as store:
        store.add(
            [
                Segment(
                    "lobby",
                    BEGAN,
                    0.0,
                    10.0,
                    quality=31.0,
                    quality_worst=31.0,
                    uncertainty=6.0,
                    explanation="1. It is blurred.",
                    model="lite@1",
                    evidence=("lobby/a-worst.jpg",),
                    id="5f0c1234",
                )
            ]
        )
    return database


def configure(model: str | None, extra: str = "") -> None:
    writer = f"writer: {{model: '{model}'{extra}}}\n" if model else ""
    Path("vqmon.yaml").write_text(f"{writer}streams: {{lobby: {{url: a.mp4}}}}\n")


@pytest.mark.usefixtures("url")
def test_a_segment_is_explained_and_the_writer_is_asked(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The question waits for the daemon; what the scorer said stands at once."""
    code = run_program(["explain", "5f0c"])

    said = capsys.readouterr().out
    assert code == DONE
    assert "lobby" in said
    assert "lite@1: 31 of 100 (poor), give or take 6" in said
    assert "1. It is blurred." in said
    assert "the writer has not answered yet (asked because somebody asked)" in said
    with open_store(url) as store:
        asked = store.question("5f0c1234")
    assert asked
    assert (asked.state, asked.question.cause) == ("waiting", "demand")


@pytest.mark.usefixtures("url")
def test_asking_at_once_shows_the_answer_and_how_both_differ(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without any daemon."""
    code = run_program(["explain", "5f0c", "--now"])

    said = capsys.readouterr().out
    assert code == DONE
    assert "big@7: 72 of 100 (good), give or take 5" in said
    assert "  A little soft." in said
    assert "finds it 41 points better" in said


@pytest.mark.usefixtures("url")
def test_programs_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason where there is no answer."""
    run_program(["explain", "5f0c", "--now"])
    capsys.readouterr()

    code = run_program(["explain", "5f0c", "--no-ask", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == DONE
    assert (told["stream"], told["id"], told["quality"]) == ("lobby", "5f0c1234", 31.0)
    assert told["writer"]["state"] == "answered"
    assert told["writer"]["opinion"]["model"] == "big@7"
    assert told["writer"]["disagreement"]["differs"] is True


@pytest.mark.usefixtures("url")
def test_a_writer_that_cannot_be_loaded_says_how_to_help_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the exit code tells a script that there is no answer."""

    def missing(_: object) -> Writer:
        raise ScorerError("pip install 'vqmon[writer]'")

    monkeypatch.setattr(asking, "loaded", missing)

    code = run_program(["explain", "5f0c", "--now"])

    assert code == FAILED
    assert "pip install 'vqmon[writer]'" in capsys.readouterr().err


@pytest.mark.usefixtures("url")
def test_without_a_writer_the_scorer_alone_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """And the setting that would change that is named."""
    configure(None)

    code = run_program(["explain", "5f0c"])

    said = capsys.readouterr().out
    assert code == DONE
    assert "1. It is blurred." in said
    assert "writer.model" in said


@pytest.mark.usefixtures("url")
def test_demand_may_be_switched_off(url: str) -> None:
    """Where every call costs money."""
    configure("remote:http://gpu.example/v1", ", ask_on: [alert]")

    run_program(["explain", "5f0c"])

    with open_store(url) as store:
        assert store.questions() == []


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["explain", "nope"], FAILED), (["explain", "5f0c", "--no-ask", "--wait"], MISUSED)],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], code: int) -> None:
    """A wrong id, and asking without asking."""
    assert run_program(arguments) == code
