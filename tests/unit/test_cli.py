"""The command line: what it accepts, prints and returns; the work itself is tested elsewhere."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.media import write_clip
from vqmon import arguments, cli, daemon, doctor, scorers
from vqmon.cli import DONE, FAILED, INTERRUPTED, MISUSED, NO_READER, program, run_program
from vqmon.domain import Finding, Segment
from vqmon.errors import ConfigError, StoreError
from vqmon.settings import Settings
from vqmon.store import open_store
from vqmon.testing import FakeScorer

SHORT = "synthetic:?seconds=3&size=128x128"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, no settings in the environment, and a scorer that needs no model."""
    monkeypatch.chdir(tmp_path)
    for name in [it for it in os.environ if it.startswith("VQMON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(scorers, "load_scorer", lambda *_, **__: FakeScorer())
    return tmp_path


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The program sets up logging for its process, which here is that of all tests."""
    root, ours = logging.getLogger(), logging.getLogger("vqmon")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def stored(place: Path) -> Settings:
    """A configuration, and what a daemon stored a minute ago."""
    (place / "vqmon.yaml").write_text(
        "streams:\n  lobby: {url: 'rtsp://u:secret@h/x'}\n  hall: {url: b.mp4}\n"
    )
    settings = cli._settings(None)
    begin = datetime.now(UTC) - timedelta(seconds=60)
    black = Finding("black", 4, 0.9, 4.0, 0.5, "s", start=2.0, seconds=4.0)
    with open_store(settings.database) as store:
        store.add(
            Segment(
                "lobby",
                begin + timedelta(seconds=at),
                at,
                10.0,
                10,
                70.0,
                60.0,
                5.0,
                (black,) if at == 20 else (),
                "It is good.",
                model="m@1",
            )
            for at in range(0, 60, 10)
        )
        store.add([Segment("attic", begin, 0.0, 10.0, no_score_reason="refused")])
    return settings


def commands(group: click.Group = program, above: Sequence[str] = ()) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        yield [*above, name]
        if isinstance(command, click.Group):
            yield from commands(command, [*above, name])


# Help and usage


@pytest.mark.parametrize("command", [[], *commands()], ids=" ".join)
@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_every_command_explains_itself(
    command: list[str], asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard output, with exit code 0, and each option with a text."""
    code = run_program([*command, asked])

    out = capsys.readouterr().out
    assert code == DONE
    assert out.startswith(f"Usage: {' '.join(['vqmon', *command])}")


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_option_has_a_help_text(command: list[str]) -> None:
    """An option without one is a riddle."""
    found: Any = program
    for name in command:
        found = found.commands[name]

    assert found.help
    assert all(it.help for it in found.params if isinstance(it, click.Option))


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing asked for in a bug report."""
    assert run_program(["--version"]) == DONE
    assert capsys.readouterr().out.startswith("vqmon ")


@pytest.mark.parametrize(
    ("arguments_given", "told"),
    [
        (["scroe", "a.mp4"], "did you mean 'score'?"),
        (["nothing-like-it"], "no command 'nothing-like-it'; `vqmon --help` lists all"),
        (["config", "chek"], "'chek'"),
        (["score"], "Missing argument 'FILE...'"),
        (["score", "--jsn", "a.mp4"], "--json"),
        (["probe", SHORT, "--duration", "soon"], "write a number and a unit"),
        (["probe", SHORT, "--duration", "-1"], "write a number and a unit"),
        (["probe", SHORT, "--duration", "0"], "must be above 0"),
        (["probe", SHORT, "--fail-on", "blak"], "did you mean 'black'?"),
        (["probe", SHORT, "--min-quality", "101"], "101"),
        (["probe", SHORT, "--option", "transport"], "must be NAME=VALUE"),
        (["probe", SHORT, "--option", "transport=udp"], "unknown option 'transport'"),
        (["probe", "rtps://h/x"], "did you mean 'rtsp"),
        (["run"], "vqmon config init URL > vqmon.yaml"),
        (["run", "a.mp4", "-c", "x.yaml"], "not both"),
        (["run", "-c", "missing.yaml"], "missing.yaml: no such file"),
        (["config", "check"], "no configuration: give -c FILE"),
        (["report", "--since", "yesterday"], "write 24h (that long ago) or 2026-03-01T08:00"),
        (["report", "--since", "1h", "--until", "2h"], "--since must be earlier than --until"),
        (["report", "--format", "pdf"], "'pdf'"),
        ([], "Usage: vqmon"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_wrong_usage_gives_a_hint_and_exit_code_2(
    arguments_given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts tell it from a failed run; people see what to write."""
    code = run_program(arguments_given)

    printed = capsys.readouterr()
    assert code == MISUSED
    assert told in printed.err
    assert not printed.out


def test_another_program_becomes_a_command(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with git: an installed plugin may bring `vqmon-enhance`."""
    program_file = place / "vqmon-enhance"
    program_file.write_text("#!/bin/sh\n")
    program_file.chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    ran: list[Any] = []

    class Became(BaseException):
        """The process is another one now."""

    def execv(path: str, arguments_given: list[str]) -> None:
        ran.append((path, arguments_given))
        raise Became

    monkeypatch.setattr(os, "execv", execv)

    with pytest.raises(Became):
        run_program(["enhance", "--fast", "a.mp4"])

    assert ran == [(str(program_file), [str(program_file), "--fast", "a.mp4"])]


# Errors


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("vqmon.yaml:1:1: wrong"), MISUSED, "vqmon.yaml:1:1: wrong"),
        (StoreError("no database"), FAILED, "no database"),
        (
            RuntimeError("odd"),
            FAILED,
            "unexpected RuntimeError: odd\nThis is a bug in vqmon. VQMON_D",
        ),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (BrokenPipeError(), NO_READER, ""),
        (OSError(28, "No space left on device"), FAILED, "output: No space left on device"),
    ],
)
def test_errors_become_a_line_and_an_exit_code(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Never a traceback, whatever happens inside."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_settings", fails)
    monkeypatch.setattr(cli, "_drop_output", lambda: None)

    assert run_program(["streams"]) == code
    printed = capsys.readouterr()
    assert told in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out


def test_a_developer_gets_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """VQMON_DEBUG=1, as the message says."""

    def fails(_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(cli, "_settings", fails)
    monkeypatch.setenv("VQMON_DEBUG", "1")

    with pytest.raises(RuntimeError, match="odd"):
        run_program(["streams"])


# Durations and times


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("1.5", 1.5), ("2m", 120)])
def test_durations_may_be_bare_seconds_on_the_command_line(text: str, seconds: float) -> None:
    """`probe --duration 30` is what everybody types."""
    assert arguments.DURATION.convert(text, None, None) == seconds


def test_times_are_ago_or_absolute() -> None:
    """A time without a zone is the reader's own."""
    ago = arguments.MOMENT.convert("24h", None, None)
    fixed = arguments.MOMENT.convert("2026-03-01T08:00+02:00", None, None)
    local = arguments.MOMENT.convert("2026-03-01T08:00", None, None)

    assert abs(datetime.now(UTC) - timedelta(days=1) - ago) < timedelta(seconds=5)
    assert fixed == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert local == datetime(2026, 3, 1, 8).astimezone(UTC)


# probe and score


def test_probe_says_quality_reasons_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    """Without configuration or database, and leaving none behind."""
    code = run_program(["probe", SHORT, "--duration", "2"])

    out = capsys.readouterr().out
    assert code == DONE
    assert out.startswith(f"{SHORT}: ")
    assert "of 100" in out
    assert "codec" in out
    assert not list(Path.cwd().iterdir())


def test_probe_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """The object of a file, and what a stream adds."""
    run_program(["probe", SHORT, "--duration", "2", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert 0 <= told["quality"] <= 100
    assert told["facts"]["width"] == 128
    assert told["sentence"]
    assert told["warnings"] == []
    assert sum(it["seconds"] for it in told["segments"]) == pytest.approx(2, abs=0.2)


def test_probe_keeps_to_its_duration(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the source would go on."""
    run_program(["probe", "synthetic:?seconds=60&size=128x128", "--duration", "5", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert sum(it["seconds"] for it in told["segments"]) == pytest.approx(5, abs=0.2)


def test_probe_of_a_dead_address_fails_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """And without the password."""
    code = run_program(["probe", "rtsp://admin:hunter2@127.0.0.1:9/x", "--json"])

    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert code == FAILED
    assert told["no_score_reason"] == "refused"
    assert told["quality"] is None
    assert "hunter2" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("limits", "code", "told"),
    [
        (["--min-quality", "1"], DONE, ""),
        (["--min-quality", "99"], FAILED, "is below 99"),
        (["--fail-on", "black"], FAILED, "black was found"),
        (["--fail-on", "freeze"], DONE, ""),
        (["--fail-on", "freeze", "--fail-on", "black"], FAILED, "black was found"),
    ],
)
@pytest.mark.parametrize("command", ["probe", "score"])
def test_limits_turn_a_poor_result_into_exit_code_1(
    *,
    command: str,
    limits: list[str],
    code: int,
    told: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A low score alone is a result; a pipeline that wants to stop says so."""
    clip = write_clip(place / "a.mp4", 4, picture=lambda i: _black_after(i, 40))

    assert run_program([command, str(clip), *limits]) == code
    assert told in capsys.readouterr().err


def _black_after(index: int, last: int) -> Any:
    from tests.media import moving

    picture = moving()(index)
    return picture if index < last else picture * 0


def test_score_prints_a_json_array_in_order(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object for each file, those without a score too."""
    write_clip(place / "a.mp4", 2)
    (place / "b.mp4").write_text("a letter")

    code = run_program(["score", "none.mp4", "a.mp4", "b.mp4", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == FAILED
    assert [it["source"] for it in told] == ["none.mp4", "a.mp4", "b.mp4"]
    assert [it["no_score_reason"] for it in told] == ["not_found", None, "invalid_data"]


def test_an_interrupted_array_is_still_json(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C after two hours of scoring must not cost the two hours."""
    from vqmon import files

    write_clip(place / "a.mp4", 1)
    real = files.score_file

    def interrupted(path: str, *more: Any, **named: Any) -> Any:
        if path == "b.mp4":
            raise KeyboardInterrupt
        return real(path, *more, **named)

    monkeypatch.setattr(files, "score_file", interrupted)

    code = run_program(["score", "a.mp4", "b.mp4", "c.mp4", "--json"])

    assert code == INTERRUPTED
    assert [it["source"] for it in json.loads(capsys.readouterr().out)] == ["a.mp4"]


def test_score_prints_csv(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header and one row for each file."""
    write_clip(place / "a.mp4", 1)

    code = run_program(["score", "a.mp4", "none.mp4", "--csv"])

    header, row, last = capsys.readouterr().out.splitlines()
    assert code == FAILED
    assert header == "source,quality,uncertainty,top_finding,severity,no_score_reason"
    assert row.startswith("a.mp4,")
    assert last == "none.mp4,,,,,not_found"


def test_score_prints_a_line_for_each_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the reasons on standard error for those without a score."""
    write_clip(place / "a.mp4", 1)

    run_program(["score", "a.mp4", "none.mp4"])

    printed = capsys.readouterr()
    assert printed.out.splitlines()[1] == "none.mp4: no score (not_found)"
    assert printed.err == "error: none.mp4: no such file\n"


# run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    """What `daemon.run` was called with."""
    calls: list[tuple[Settings, dict[str, Any]]] = []

    def run(settings: Settings, **named: Any) -> int:
        calls.append((settings, named))
        return DONE

    monkeypatch.setattr(daemon, "run", run)
    return calls


def test_run_takes_urls_without_a_file(ran: list[Any], place: Path) -> None:
    """SQLite in ./vqmon-data."""
    assert run_program(["run", "rtsp://h/x", "a.mp4", "--standby", "--duration", "5s"]) == DONE

    [(settings, named)] = ran
    assert list(settings.streams) == ["h-x", "a"]
    assert settings.database == f"sqlite:///{place}/vqmon-data/vqmon.db"
    assert named == {"standby": True, "config_path": None, "data_dir": None, "duration": 5.0}


def test_run_finds_the_configuration(
    ran: list[Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vqmon.yaml of the working folder, $VQMON_CONFIG over it, -c over both."""
    for name in ("vqmon", "two", "three"):
        (place / f"{name}.yaml").write_text(f"instance: {name}\nstreams: {{a: {{url: x}}}}")

    run_program(["run"])
    monkeypatch.setenv("VQMON_CONFIG", "two.yaml")
    run_program(["run", "--data-dir", "elsewhere"])
    run_program(["run", "-c", "three.yaml"])

    assert [settings.instance for settings, _ in ran] == ["vqmon", "two", "three"]
    assert ran[1][0].data_dir == place / "elsewhere"
    assert ran[1][1]["data_dir"] == Path("elsewhere")
    assert ran[2][1]["config_path"] == Path("three.yaml")


# report and streams


@pytest.mark.parametrize("form", ["text", "json", "csv", "html"])
def test_report_prints_every_form(
    form: str, stored: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The quality of the only scored stream is in each of them."""
    assert run_program(["report", "--since", "1h", "--format", form]) == DONE

    out = capsys.readouterr().out
    assert "lobby" in out
    assert "70" in out


def test_report_takes_the_form_from_the_file_name(
    stored: Settings, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but the file is written, nothing is printed on standard output."""
    assert run_program(["report", "--output", "r.html"]) == DONE

    assert "<html" in (place / "r.html").read_text()
    assert capsys.readouterr().out == ""


def test_report_of_a_stream_that_is_not_there_names_the_nearest(
    stored: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty report would look like a stream that was never seen."""
    assert run_program(["report", "--stream", "loby"]) == MISUSED
    assert "did you mean 'lobby'?" in capsys.readouterr().err


def test_report_that_cannot_be_written_says_so(
    stored: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the path."""
    assert run_program(["report", "--output", "none/r.html"]) == FAILED
    assert "none/r.html: cannot be written: No such file" in capsys.readouterr().err


def test_report_before_anything_was_stored_says_so(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And makes no empty database."""
    assert run_program(["report"]) == FAILED
    assert "`vqmon run` fills it" in capsys.readouterr().err
    assert not list(place.iterdir())


def test_streams_tells_what_was_last_seen(
    stored: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Configured and stored ones; addresses without passwords."""
    assert run_program(["streams", "--json"]) == DONE

    out = capsys.readouterr().out
    rows = {it["name"]: it for it in json.loads(out)}
    assert {name: it["state"] for name, it in rows.items()} == {
        "lobby": "up",
        "hall": "never",
        "attic": "unconfigured",
    }
    assert rows["lobby"]["quality"] == 70
    assert "secret" not in out


def test_streams_of_a_run_without_a_file_have_a_state(
    stored: Settings, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vqmon run URL` leaves a database and no configuration."""
    (place / "vqmon.yaml").unlink()

    run_program(["streams", "--json"])

    rows = {it["name"]: it["state"] for it in json.loads(capsys.readouterr().out)}
    assert rows == {"attic": "stale", "lobby": "up"}


def test_streams_prints_a_table_that_no_pipe_cuts(
    stored: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vqmon streams | grep lobby` shows the whole address."""
    assert run_program(["streams"]) == DONE

    lines = capsys.readouterr().out.splitlines()
    [lobby] = [line for line in lines if line.startswith("lobby")]
    assert "rtsp://***@h/x" in lobby


# config, doctor, db


def test_config_check_counts_streams(stored: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A word that it was read at all."""
    assert run_program(["config", "check"]) == DONE
    assert capsys.readouterr().out == "vqmon.yaml: no mistakes, 2 streams\n"


def test_config_check_fails_on_a_mistake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a deployment stops before the daemon does."""
    (place / "bad.yaml").write_text("streams: {a: {ulr: x}}")

    assert run_program(["config", "check", "-c", "bad.yaml"]) == MISUSED
    assert "bad.yaml:1:15: streams.a.ulr: is not a setting" in capsys.readouterr().err
    assert run_program(["config", "check", "bad.yaml"]) == MISUSED


def test_config_check_warns_of_variables_that_mean_nothing(
    stored: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be somebody else's variable, or a setting badly misspelt."""
    monkeypatch.setenv("VQMON_HOME", "/opt/vqmon")

    assert run_program(["config", "check"]) == DONE
    assert "environment_variable_ignored variable=VQMON_HOME" in capsys.readouterr().err


def test_config_show_hides_passwords(stored: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """It is pasted into tickets."""
    assert run_program(["config", "show"]) == DONE

    out = capsys.readouterr().out
    assert yaml.safe_load(out)["streams"]["lobby"]["url"] == "rtsp://***@h/x"


def test_config_init_prints_a_file_that_check_accepts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vqmon config init URL > vqmon.yaml` is the second command of every user."""
    run_program(["config", "init", "rtsp://h/x"])
    (place / "vqmon.yaml").write_text(capsys.readouterr().out)

    assert run_program(["config", "check"]) == DONE


def test_config_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For editors."""
    assert run_program(["config", "schema"]) == DONE
    assert "streams" in json.loads(capsys.readouterr().out)["properties"]


def test_db_upgrade_makes_the_tables(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And may be repeated."""
    assert run_program(["db", "upgrade"]) == DONE
    assert run_program(["db", "upgrade"]) == DONE

    assert (place / "vqmon-data" / "vqmon.db").exists()
    assert "schema" in capsys.readouterr().out


def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Port 9 refuses."""
    monkeypatch.setenv("VQMON_DATABASE", "postgresql://vqmon:hunter2@127.0.0.1:9/vqmon")

    assert run_program(["streams"]) == FAILED
    printed = capsys.readouterr()
    assert "error: " in printed.err
    assert "hunter2" not in printed.err


def _statuses(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    run_program(["doctor", "--json"])
    return {it["name"]: it["status"] for it in json.loads(capsys.readouterr().out)}


def test_doctor_finds_this_machine_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tests run where vqmon runs. Nothing is left behind."""
    statuses = _statuses(capsys)

    for name in ("python", "ffmpeg", "protocols", "decoders", "data folder", "database", "model"):
        assert statuses[name] in {"ok", "warn"}, name
    assert not list(place.iterdir())


def test_doctor_calls_two_runtimes_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They overwrite each other's files, and CUDA goes missing without a word."""
    from vqmon.scorers import onnx

    both = (("onnxruntime", "1.20"), ("onnxruntime-gpu", "1.20"))
    monkeypatch.setattr(onnx, "runtimes", lambda: both)

    assert run_program(["doctor"]) == FAILED
    assert "overwrite each other" in capsys.readouterr().out


def test_doctor_sees_a_folder_that_cannot_be_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be made."""
    (place / "vqmon-data").write_text("")

    assert _statuses(capsys)["data folder"] == "fail"


def test_doctor_goes_on_after_a_check_that_fails_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked when things are odd."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: 1 / 0)

    statuses = _statuses(capsys)

    assert statuses["free disk"] == "fail"
    assert "open files" in statuses


def test_doctor_reports_a_missing_protocol(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a self-built FFmpeg."""
    monkeypatch.setattr(doctor, "PROTOCOLS", ("file", "gopherus"))

    assert run_program(["doctor"]) == FAILED
    assert "missing: gopherus" in capsys.readouterr().out


def test_output_without_a_terminal_has_no_colours(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs and pipes get plain text."""
    run_program(["doctor"])
    run_program(["score", "none.mp4"])

    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
