"""The enhancement plugin, given segments and clips by `vqmon.testing.FakeContext`."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.media import write_clip
from vqmon.domain import Assessment, Comparison, Finding, Segment
from vqmon.scorers.comparison import compare
from vqmon.testing import FakeContext
from vqmon_enhancement.plugin import Enhancement
from vqmon_enhancement.settings import EnhancementSettings
from vqmon_enhancement.shelf import Shelf

WORK = 60.0


class Context(FakeContext):
    """Scores files by their names: what is enhanced scores `gain` points more."""

    gain = 10.0

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        quality = 50.0 + self.gain * ("trial" in path.name or "enhanced" in path.name)
        return [Assessment(i / 10, quality, 5.0, model="fake@1") for i in range(6)]

    def compare(self, a: Any, b: Any, *, same_content: bool = False) -> Comparison:
        return compare(a, b, shared=0.9 if same_content else 0.0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("ring") / "a.mkv", 0.6, width=160, height=96)


def segment(name: str = "compression", severity: int = 4, stream: str = "news") -> Segment:
    found = Finding(name, severity, 0.9, 80.0, 20.0, start=0.0, seconds=10.0)
    return Segment(stream, datetime.now(UTC), 0.0, 10.0, 5, 50.0, findings=(found,))


def told(context: Context, plugin: Enhancement, recorded: Path, one: Segment) -> None:
    """A segment is closed, its packets at hand, and all work is done."""
    clip = context.data_dir / f"{one.id}-cut.mkv"
    shutil.copy(recorded, clip)
    context.clips[one.id] = clip
    plugin.segment_closed(one)
    assert plugin.settled(WORK)


def made(context: Context, **settings: Any) -> Enhancement:
    return Enhancement(context, EnhancementSettings(budget=1.0, **settings))


def kinds(context: Context) -> list[str]:
    return [it.kind for it in context.decisions()]


def test_a_preferred_rendition_is_kept_beside_its_original(tmp_path: Path, recorded: Path) -> None:
    context, one = Context(tmp_path), segment()
    plugin = made(context)

    told(context, plugin, recorded, one)
    plugin.stopping()

    assert kinds(context) == ["begin", "keep"]
    kept = context.decisions()[-1]
    assert kept.segment == one.id
    assert kept.data["verdict"]["gain"] == pytest.approx(10)
    assert "preferred" in kept.reason
    names = {it.name.removeprefix(one.id) for it in (tmp_path / "kept").iterdir()}
    assert names == {".original.mkv", ".enhanced.mp4", ".json"}
    assert not list(tmp_path.glob("*.mkv"))


def test_what_is_not_better_leaves_nothing_but_the_decision(tmp_path: Path, recorded: Path) -> None:
    context = Context(tmp_path)
    context.gain = -3.0
    plugin = made(context)

    told(context, plugin, recorded, segment())
    plugin.stopping()

    assert kinds(context) == ["begin", "reject"]
    assert not [it for it in tmp_path.rglob("*") if it.is_file()]


@pytest.mark.parametrize(
    "one",
    [segment(severity=1), segment("freeze", 5), segment(stream="other")],
    ids=["slight", "not mendable", "another stream"],
)
def test_segments_that_nobody_asked_for_are_left_alone(
    one: Segment, tmp_path: Path, recorded: Path
) -> None:
    context = Context(tmp_path)
    plugin = made(context, streams=("news",))

    told(context, plugin, recorded, one)
    plugin.stopping()

    assert kinds(context) == []


def test_what_is_past_mending_is_said_once_an_hour(tmp_path: Path, recorded: Path) -> None:
    """A stream that is burnt out all day must not fill the database."""
    context = Context(tmp_path)
    plugin = made(context)

    for _ in range(3):
        told(context, plugin, recorded, segment("overexposed", 5))
    plugin.stopping()

    [decision] = context.decisions()
    assert decision.kind == "unmendable"
    assert "burnt out" in decision.reason


def test_the_hour_holds_only_so_much_work_even_after_a_restart(
    tmp_path: Path, recorded: Path
) -> None:
    context = Context(tmp_path)
    first = made(context, per_hour=1)
    told(context, first, recorded, segment())
    first.stopping()

    again = made(context, per_hour=1)
    told(context, again, recorded, segment())
    again.stopping()

    assert kinds(context).count("begin") == 1


def test_a_clip_that_cannot_be_read_is_a_recorded_failure_and_no_crash(
    tmp_path: Path, recorded: Path
) -> None:
    context = Context(tmp_path)
    plugin = made(context)
    (tmp_path / "letter.mkv").write_text("Dear Sir or Madam, " * 100)

    told(context, plugin, tmp_path / "letter.mkv", segment())
    told(context, plugin, recorded, segment())
    plugin.stopping()

    assert kinds(context) == ["begin", "fail", "begin", "keep"]


def test_a_stream_without_packets_is_passed_by(tmp_path: Path) -> None:
    context = Context(tmp_path)
    plugin = made(context)

    plugin.segment_closed(segment())
    plugin.stopping()

    assert kinds(context) == []


def test_clips_of_a_former_life_are_tidied_away(tmp_path: Path) -> None:
    (tmp_path / "left.mkv").write_bytes(b"half a clip")

    made(Context(tmp_path)).stopping()

    assert not (tmp_path / "left.mkv").exists()


def test_the_shelf_gives_up_its_oldest_sets_first(tmp_path: Path) -> None:
    """A disk that fills up stops the whole daemon."""
    import os

    shelf = Shelf(tmp_path, 250)
    for age, name in enumerate(("new", "middle", "old")):
        for kind in ("original.mkv", "json"):
            path = shelf.place(name, kind)
            path.write_bytes(bytes(50))
            os.utime(path, (1e9 - age, 1e9 - age))

    gone = shelf.make_room()

    assert gone == ["old"]
    assert {it.name.partition(".")[0] for it in tmp_path.iterdir()} == {"new", "middle"}


def test_a_finding_that_no_filter_mends_is_a_wrong_setting() -> None:
    with pytest.raises(ValidationError, match="nothing that filters mend"):
        EnhancementSettings(findings=("freeze",))


def test_settings_come_as_an_operator_writes_them() -> None:
    settings = EnhancementSettings.model_validate({"budget": "90s", "keep": "2GB"})

    assert settings.budget == 90
    assert settings.keep == 2 * 10**9
