"""The dry run over stored history, as an operator types it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vqmon.domain import Finding, Segment
from vqmon.store import open_store
from vqmon_adaptive_encoding import cli

NOW = datetime.now(UTC)
STREAM = """
      {name}:
        target: {{type: gstreamer, socket: /run/{name}.sock}}
        cap_kbps: 5000
        ladder:
          - {{quality: 5, cap_kbps: 1500}}
          - {{quality: 7, cap_kbps: 4000}}
"""
CONFIG = f"""
data_dir: data
streams:
  news: {{url: 'udp://127.0.0.1:5000'}}
  films: {{url: 'udp://127.0.0.1:5001'}}
plugins:
  adaptive_encoding:
    rules: {{cooldown: 15m}}
    streams:
{STREAM.format(name="news")}
{STREAM.format(name="films")}
"""


def stored(stream: str, number: int, *, faulty: bool) -> Segment:
    finding = Finding("banding", 3, 0.9, 14.0, 10.0, "%")
    return Segment(
        stream,
        NOW - timedelta(hours=20) + timedelta(seconds=10 * number),
        10.0 * number,
        10.0,
        quality=50.0,
        quality_worst=50.0,
        findings=(finding,) if faulty else (),
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours of banding on `news`, a clean hour on `films`."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "data").mkdir()
    with open_store(f"sqlite:///{folder}/data/vqmon.db") as store:
        store.add(stored("news", n, faulty=True) for n in range(720))
        store.add(stored("films", n, faulty=False) for n in range(360))
    (folder / "vqmon.yaml").write_text(CONFIG)
    return folder / "vqmon.yaml"


def test_a_dry_run_says_what_would_have_been_asked(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["replay", "-c", str(config), "--since", "1d"]) == 0

    said = capsys.readouterr().out
    assert "would ask for quality 7 under 4000 kb/s" in said
    assert "4 requests would have been made in 3.0 watched hours" in said


def test_a_dry_run_for_programs_is_one_object_per_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["replay", "-c", str(config), "--stream", "news", "--json"]) == 0

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["stream"] for row in rows} == {"news"}
    assert [row["kind"] for row in rows].count("observe") == 4
    assert rows[0]["to"] == {"quality": 7, "cap_kbps": 4000}


def test_older_history_is_left_out(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["replay", "-c", str(config), "--since", "2h"]) == 0

    assert capsys.readouterr().out == "0 requests would have been made in 0.0 watched hours\n"


@dataclass(frozen=True)
class Wrong:
    complaint: str
    code: int = 2
    arguments: tuple[str, ...] = ()
    changed: tuple[str, str] = ("data_dir: data", "data_dir: data")


@pytest.fixture
def mistaken(config: Path, tmp_path: Path) -> Path:
    """Where a configuration of its own sees the same history."""
    (tmp_path / "data").symlink_to(config.parent / "data")
    return tmp_path / "vqmon.yaml"


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("it has: news, films", arguments=("--stream", "sport")),
        Wrong("--since", arguments=("--since", "soon")),
        Wrong("adaptive", changed=("adaptive_encoding", "adaptive")),
        Wrong("must stay under cap_kbps", changed=("cap_kbps: 5000", "cap_kbps: 3000")),
        Wrong("elsewhere", 1, changed=("data_dir: data", "data_dir: elsewhere")),
    ],
    ids=lambda wrong: wrong.complaint,
)
def test_mistakes_are_told_apart(
    mistaken: Path, capsys: pytest.CaptureFixture[str], wrong: Wrong
) -> None:
    """2 for what the operator wrote, 1 for what is not there."""
    mistaken.write_text(CONFIG.replace(*wrong.changed))

    assert cli.run(["replay", "-c", str(mistaken), *wrong.arguments]) == wrong.code

    assert wrong.complaint in capsys.readouterr().err


def test_help_names_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0

    said = capsys.readouterr().out
    assert "replay" in said
    assert "encoder" in said
