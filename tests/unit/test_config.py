"""The configuration: what is accepted, what it becomes, and how each mistake is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
import yaml

from vqmon import config
from vqmon.alerting import RULES
from vqmon.config import Settings, changed_streams, load, restart_needed, watching
from vqmon.domain import EXPECTATIONS, Schedule
from vqmon.errors import ConfigError
from vqmon.settings import Expectation

Write = Callable[[str | bytes], Path]

SMALLEST = """
streams:
  lobby:
    url: rtsp://camera.example/live
"""


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write a configuration and return its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "vqmon.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(path: Path, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


# What is accepted


def test_the_smallest_file_is_one_stream_with_a_url(written: Write) -> None:
    """Everything else has a default that works."""
    settings = load(written(SMALLEST), {})

    [stream] = settings.domain_streams()

    assert (stream.name, stream.url) == ("lobby", "rtsp://camera.example/live")
    assert (stream.sampling, stream.sample_every, stream.segment_seconds) == ("keyframes", 2, 10)
    assert stream.schedule is None
    assert settings.retention.segments == 7 * 86_400
    assert settings.retention.rollups == 400 * 86_400


def test_every_stream_setting_reaches_the_pipeline(written: Write) -> None:
    """A key that is accepted and then forgotten is worse than one refused."""
    path = written("""
streams:
  lobby:
    url: rtsp://camera.example/live
    labels: {site: berlin, floor: 007}
    sampling: {mode: every, every: 500ms}
    segment: 30s
    schedule: {every: 5m, for: 30s}
    expect: [still_pictures, no_audio]
    options: {transport: udp}
    packet_ring: 60s
""")

    stream = load(path, {}).stream("lobby")

    assert stream.labels == {"site": "berlin", "floor": "007"}
    assert (stream.sampling, stream.sample_every) == ("every", 0.5)
    assert stream.segment_seconds == 30
    assert stream.schedule == Schedule(300, 30)
    assert stream.expect == {"still_pictures", "no_audio"}
    assert stream.options == {"transport": "udp"}
    assert stream.packet_ring_seconds == 60


def test_a_stream_inherits_what_it_does_not_say(written: Write) -> None:
    """Labels, sampling and evidence key by key; a schedule as a whole, or switched off."""
    path = written("""
defaults:
  labels: {site: berlin}
  sampling: {every: 4s}
  schedule: {every: 5m, for: 30s}
evidence: {frames: 2}
streams:
  a:
    url: a.mp4
    labels: {floor: "1"}
    sampling: {mode: every}
    evidence: {hourly: false}
    schedule: null
  b: {url: b.mp4}
""")

    settings = load(path, {})
    a, b = settings.domain_streams()

    assert a.labels == {"site": "berlin", "floor": "1"}
    assert (a.sampling, a.sample_every, a.schedule) == ("every", 4, None)
    assert (b.sampling, b.sample_every, b.schedule) == ("keyframes", 4, Schedule(300, 30))
    assert settings.streams["a"].evidence.frames == 2
    assert not settings.streams["a"].evidence.hourly
    assert settings.streams["b"].evidence.hourly


def test_words_that_yaml_takes_for_something_else_stay_words(written: Write) -> None:
    """Norway's channel may be called `no`, and a label `off` is not False."""
    path = written("streams: {no: {url: a.mp4, labels: {light: off, day: 2024-01-01}}}")

    stream = load(path, {}).stream("no")

    assert stream.labels == {"light": "off", "day": "2024-01-01"}


def test_a_section_whose_lines_are_all_comments_does_no_harm(written: Write) -> None:
    """Uncommenting a heading first and its lines later is how people edit."""
    settings = load(written("ingest:\n  # burst_cpu: 1\ndefaults:\n" + SMALLEST), {})

    assert settings.ingest.burst_cpu == 0.15


def test_paths_count_from_the_file_whatever_the_working_folder(
    written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vqmon report -c /etc/vqmon/vqmon.yaml` finds the daemon's database from anywhere."""
    path = written("database: sqlite:///db/v.db\nscorer: {model: ./m}\nstreams: {a: {url: a.mp4}}")
    monkeypatch.chdir("/")

    settings = load(path, {})

    assert settings.database == f"sqlite:///{path.parent}/db/v.db"
    assert settings.database_file == path.parent / "db/v.db"
    assert settings.data_dir == path.parent / "vqmon-data"
    assert settings.scorer.model == str(path.parent / "m")
    assert settings.stream("a").url == str(path.parent / "a.mp4")


def test_without_a_database_there_is_sqlite_in_the_data_folder(written: Write) -> None:
    """Nothing to install for a start."""
    settings = load(written("data_dir: /var/lib/vqmon\n" + SMALLEST), {})

    assert settings.database == "sqlite:////var/lib/vqmon/vqmon.db"


def test_anchors_and_merges_work(written: Write) -> None:
    """Large files are written with them."""
    path = written("""
streams:
  a: &base {url: a.mp4, segment: 20s}
  b: {<<: *base, url: b.mp4}
""")

    settings = load(path, {})

    assert settings.stream("b").segment_seconds == 20
    assert settings.stream("b").url.endswith("b.mp4")


def test_a_byte_order_mark_is_no_mistake(written: Write) -> None:
    """Some editors write one."""
    assert load(written(b"\xef\xbb\xbf" + SMALLEST.encode()), {}).streams


def test_the_vocabulary_of_expectations_is_the_domain_s() -> None:
    """Two lists of the same words drift apart."""
    assert get_args(Expectation) == EXPECTATIONS


# Health and metrics


@pytest.mark.parametrize(
    ("written_as", "address"),
    [
        ("http:", ("127.0.0.1", 8477)),
        ("http: off", None),
        ("http: false", None),
        ("http: 0.0.0.0:9000", ("0.0.0.0", 9000)),
        ("http: {listen: off}", None),
        ("http: {listen: '[::1]:0'}", ("::1", 0)),
        ("http: {listen: monitor.example.net:80}", ("monitor.example.net", 80)),
    ],
)
def test_where_health_and_metrics_are_served(
    written: Write, written_as: str, address: tuple[str, int] | None
) -> None:
    """A heading alone does no harm; `off` is a word and nothing that YAML makes of it."""
    settings = load(written(f"{written_as}\n{SMALLEST}"), {})

    assert settings.http.address == address
    again = load(written(config.shown(settings)), {})
    assert again.http == settings.http, "what is shown can be read"


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("8477", "has no port; write HOST:PORT, as in 127.0.0.1:8477"),
        (":8477", "for every address of this machine write 0.0.0.0:8477"),
        ("::1:8477", "an IPv6 address stands in brackets"),
        ("[::x]:80", "an IPv6 address stands in brackets"),
        ("127.0.0.1:65536", "a port is 0 (any that is free) to 65535"),
        ("http://127.0.0.1:80", "write HOST:PORT"),
        ("a b:80", "has no host name or address"),
    ],
)
def test_a_wrong_listen_address_is_told_with_the_remedy(
    written: Write, listen: str, told: str
) -> None:
    assert told in refused(written(f"http: {{listen: {listen!r}}}\n{SMALLEST}"))


def test_a_wrong_listen_address_in_a_variable_is_told_as_well(written: Write) -> None:
    told = refused(written(SMALLEST), {"VQMON_HTTP": "8477"})

    assert told.startswith("environment VQMON_HTTP: http")
    assert "has no port" in told


def test_another_listen_address_needs_a_restart(written: Write) -> None:
    old, new = (load(written(f"{it}\n{SMALLEST}"), {}) for it in ("http: off", "http:"))

    assert restart_needed(old, new) == ("http",)


# Environment and secrets


def test_the_environment_overrides_every_section_but_streams(written: Write) -> None:
    """Containers are configured this way."""
    environ = {
        "VQMON_DATABASE": "postgresql://vqmon@db/vqmon",
        "VQMON_SCORER__THREADS": "4",
        "VQMON_DEFAULTS__SAMPLING__EVERY": "5s",
        "VQMON_DEFAULTS__EXPECT": "[no_audio]",
        "VQMON_EVIDENCE__HOURLY": "false",
        "VQMON_LOGGING__LEVEL": "",
    }

    settings = load(written("scorer: {threads: 2}" + SMALLEST), environ)

    assert settings.database == "postgresql://vqmon@db/vqmon"
    assert settings.scorer.threads == 4
    assert settings.stream("lobby").sample_every == 5
    assert settings.stream("lobby").expect == {"no_audio"}
    assert not settings.streams["lobby"].evidence.hourly
    assert settings.logging.level == "info"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("VQMON_DATABSE", "x", "databse: is not a setting; did you mean 'database'?"),
        ("VQMON_SCORER__DEVIC", "cpu", "scorer.devic: is not a setting; did you mean 'device'?"),
        ("VQMON_SCORER__THREADS", "many", "scorer.threads: 'many': must be a whole number"),
        ("VQMON_STREAMS__A__URL", "x", "streams are named in the file"),
        ("VQMON_SCORER____THREADS", "1", "two underscores"),
        ("VQMON_DEFAULTS__EXPECT", "[no_audio", "not a list or map"),
        ("VQMON_SCORER", "cpu", "scorer: 'cpu': must be a map"),
        ("VQMON_INSTANCE", "${NOT_SET}", "the environment variable NOT_SET is not set"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    written: Write, variable: str, value: str, told: str
) -> None:
    """There is no line to point to."""
    message = refused(written(SMALLEST), {variable: value})

    assert message.startswith(f"environment {variable}: ")
    assert told in message


def test_what_kubernetes_sets_for_a_service_is_no_setting(
    written: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """A Service called vqmon puts such variables into every pod; they must not stop the daemon."""
    environ = {
        "VQMON_PORT": "tcp://10.0.0.1:8477",
        "VQMON_PORT_8477_TCP": "tcp://10.0.0.1:8477",
        "VQMON_PORT_8477_TCP_ADDR": "10.0.0.1",
        "VQMON_SERVICE_HOST": "10.0.0.1",
        "VQMON_SERVICE_PORT_HTTP": "8477",
        "VQMON_DEBUG": "1",
        "VQMON_HOME": "/opt/vqmon",
    }

    load(written(SMALLEST), environ)

    ignored = [record.__dict__["variable"] for record in caplog.records]
    assert ignored == ["VQMON_HOME"]


def test_secrets_come_from_variables_and_files(written: Write, tmp_path: Path) -> None:
    """A password never needs to stand in the file."""
    (tmp_path / "pw").write_text("hunter2\n")
    path = written("streams: {a: {url: 'rtsp://${WHO}:${file:pw}@c/x', labels: {l: '$${x}'}}}")

    stream = load(path, {"WHO": "admin"}).stream("a")

    assert stream.url == "rtsp://admin:hunter2@c/x"
    assert stream.labels["l"] == "${x}"


@pytest.mark.parametrize(
    ("placeholder", "told"),
    [
        ("${NOT_SET}", "the environment variable NOT_SET is not set; set it"),
        ("${file:none}", "there is no file"),
        ("${file:.}", "there is no file"),
        ("${file:latin}", "is not UTF-8 text"),
        ("${file:large}", "is larger than 64 KiB"),
        ("${not a name}", "write ${NAME}"),
        ("${open", "write ${NAME}"),
    ],
)
def test_a_secret_that_cannot_be_had_says_why(
    written: Write, tmp_path: Path, placeholder: str, told: str
) -> None:
    """An empty password in its place would be found out much later, by the server."""
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "large").write_bytes(b"x" * 70_000)

    message = refused(written(f"streams: {{a: {{url: 'rtsp://u:{placeholder}@c/x'}}}}"))

    assert message.startswith("vqmon.yaml:1:20: streams.a.url: ")
    assert told in message


def test_settings_are_shown_without_secrets(written: Write) -> None:
    """`config show` is pasted into tickets."""
    path = written("""
database: postgresql://vqmon:${PW}@db/vqmon
defaults: {labels: {token: abcdef, note: "pin ${PIN}"}}
streams:
  a: {url: "rtsp://admin:secret@c/x?token=abc"}
  b: {url: "srt://c:9000", options: {passphrase: verysecret1}}
  c: {url: "https://c/x.m3u8", options: {headers: "Authorization: Bearer abc"}}
""")

    text = config.shown(load(path, {"PW": "hunter2", "PIN": "4711"}))

    for secret in ("hunter2", "4711", "secret", "abc", "verysecret1"):
        assert secret not in text
    assert yaml.safe_load(text)["defaults"]["labels"]["note"] == "pin ${PIN}"


def test_mistakes_are_told_without_secrets(written: Write) -> None:
    """Error messages go to logs."""
    path = written("streams: {a: {url: 'rtps://admin:hunter2@c/x?token=abc', segment: 1}}")

    message = refused(path)

    assert "unknown scheme 'rtps'" in message
    assert "hunter2" not in message
    assert "abc" not in message


# Mistakes


MISTAKES = {
    "an unknown key with its neighbour": (
        "databse: x",
        "vqmon.yaml:1:1: databse: is not a setting; did you mean 'database'?",
    ),
    "an unknown key far from any": (
        "zebra: x",
        "1:1: zebra: is not a setting; possible here: instance, data_dir, database,",
    ),
    "a key in the wrong place": (
        "segment: 10s",
        "1:1: segment: is not a setting here; it belongs at defaults.segment or streams.NAME.segm",
    ),
    "an unknown key of a stream": (
        "streams: {a: {url: a.mp4, ulr: x}}",
        "1:27: streams.a.ulr: is not a setting; did you mean 'url'?",
    ),
    "a stream without url": (
        "streams:\n  a: {segment: 5s}",
        "2:3: streams.a.url: is required: Where the stream is",
    ),
    "an empty stream": ("streams:\n  a:", "2:5: streams.a: needs a value"),
    "an empty url": ("streams: {a: {url: ''}}", "streams.a.url: '': must not be empty"),
    "a url without value": (
        "streams: {a: {url: }}",
        "streams.a.url: is required: Where the stream is",
    ),
    "no streams": ("instance: x", "streams: needs at least one stream"),
    "streams as a list": ("streams: [a, b]", "1:10: streams: must be a map"),
    "a stream as a text": ("streams: {a: rtsp://u:pw@h/x}", "streams.a: 'rtsp://***@h/x': must be"),
    "a bad stream name": (
        "streams: {../etc: {url: a}}",
        "1:11: streams.../etc: names become folder",
    ),
    "a long stream name": (f"streams: {{{'x' * 65}: {{url: a}}}}", "use 1 to 64 letters"),
    "a bad instance": ("instance: a b", "1:11: instance: 'a b': names become"),
    "a bad label name": ("defaults: {labels: {1x: y}}", "defaults.labels.1x: label names are"),
    "a duration without unit": (
        "defaults: {segment: 10}",
        "1:21: defaults.segment: '10': not a duration; write a number and a unit, as in 10s",
    ),
    "a segment too short": ("defaults: {segment: 10ms}", "'10ms': must be between 1s and 1h"),
    "a segment too long": ("defaults: {segment: 2h}", "'2h': must be between 1s and 1h"),
    "scoring too often": ("defaults: {sampling: {every: 1ms}}", "must be between 100ms and 1h"),
    "a segment without a scored frame": (
        "streams: {a: {url: a.mp4, segment: 1s}}",
        "streams.a.segment: '1s': must be at least `sampling.every` (2s)",
    ),
    "visits that overlap": (
        "defaults: {schedule: {every: 1m, for: 60s}}",
        "defaults.schedule.for: '60s': must be shorter than `every` (1m)",
    ),
    "half a schedule": (
        "defaults: {schedule: {every: 5m}}",
        "1:12: defaults.schedule.for: is required: Length of a visit",
    ),
    "a word of no list": (
        "defaults: {sampling: {mode: keyframe}}",
        "'keyframe': must be one of keyframes, every; did you mean 'keyframes'?",
    ),
    "an unknown expectation": (
        "defaults: {expect: [no_sound]}",
        "1:21: defaults.expect[0]: 'no_sound': must be one of still_pictures, no_audio",
    ),
    "a text for a list": (
        "defaults: {expect: no_audio}",
        "'no_audio': must be a list, as in [a, b]",
    ),
    "a number too large": (
        "scorer: {threads: 65}",
        "scorer.threads: '65': must be between 1 and 64",
    ),
    "no number": ("ingest: {burst_cpu: much}", "ingest.burst_cpu: 'much': must be a number"),
    "not finite": ("ingest: {burst_cpu: .nan}", "ingest.burst_cpu: '.nan': must be a number"),
    "nan": ("ingest: {burst_cpu: nan}", "ingest.burst_cpu: 'nan': must be a number"),
    "half a process": ("scorer: {threads: 1.5}", "scorer.threads: '1.5': must be a whole number"),
    "no truth": ("evidence: {hourly: maybe}", "evidence.hourly: 'maybe': must be true or false"),
    "a device of no kind": ("scorer: {device: gpu}", "scorer.device: 'gpu': must be cpu, cuda, or"),
    "a size without unit": ("retention: {max_size: 10}", "retention.max_size: '10': not a size"),
    "a size too small": ("retention: {max_size: 1KB}", "must be at least 10MB"),
    "a database of no kind": ("database: mysql://h/x", "database: 'mysql://h/x': write sqlite:///"),
    "a database in memory": ("database: 'sqlite://'", "memory would forget everything"),
    "an unknown scheme": ("streams: {a: {url: 'rtps://h/x'}}", "did you mean 'rtsp"),
    "an unknown option": (
        "streams: {a: {url: 'rtsp://h/x', options: {transprt: tcp, read_timeout: '-1'}}}",
        "1:44: streams.a.options.transprt: unknown option 'transprt'",
    ),
    "a wrong option": (
        "streams: {a: {url: 'rtsp://h/x', options: {read_timeout: '-1'}}}",
        "streams.a.options.read_timeout: option 'read_timeout' is '-1'; it must be a number",
    ),
    "a key given twice": (
        "streams:\n  a: {url: a.mp4}\n  a: {url: b.mp4}",
        "3:3: streams.a: is given twice; the first is in line 2",
    ),
    "a key that is no text": ("? [a, b]\n: c", "1:3: a key must be a text"),
    "a tag": ("streams: !!python/object:os.system {}", "1:10: streams: the tag"),
    "a list to merge": ("streams: {a: {<<: b, url: x}}", "streams.a.<<: only maps can be merged"),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_place_key_value_and_remedy(
    written: Write, text: str, told: str
) -> None:
    """An operator at night sees the line to change and what to write there."""
    message = refused(written(text))

    assert told in message
    assert "pydantic" not in message


UNREADABLE = {
    "nothing": (b"", "the file is empty; `vqmon config init URL` prints a start"),
    "comments": (b"# nothing\n", "the file is empty"),
    "a list": (b"- a\n- b\n", ":1:1: must be a map at the top"),
    "a text": (b"hello", "must be a map at the top (lines of `key: value`"),
    "a tab": (b"streams:\n  a:\n\turl: x\n", ":3:1: a tab in the indentation; YAML wants spaces"),
    "latin-1": (b"instance: caf\xe9\n", ":1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
    "utf-16": ("instance: x\n".encode("utf-16"), "is not UTF-8"),
    "a control character": (b'a: "\x01"\n', ":1: contains the character U+0001"),
    "an open bracket": (b"streams: [\n", ":2:1: not valid YAML"),
    "an open quote": (b'streams: "a\n', "not valid YAML"),
    "an indentation": (b"streams:\n  a: {url: x}\n b: c\n", ":3:2: not valid YAML"),
    "two documents": (b"a: b\n---\nc: d\n", "another document"),
    "a snake": (b"a: &a [*a]\n", "an anchor refers to itself"),
    "a merged snake": (b"a: &a {<<: *a}\n", "an anchor refers to itself"),
    "a tower": (b"[" * 100_000, "nested more than 100 deep"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8"),
}


@pytest.mark.parametrize(("content", "told"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_configuration_at_all_is_refused(
    written: Write, content: bytes, told: str
) -> None:
    """Each once crashed some parser, or was taken for an empty configuration."""
    assert told in refused(written(content))


def test_anchors_within_anchors_do_not_fill_the_memory(written: Write) -> None:
    """A billion laughs in 500 bytes."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]

    assert "more than 500000 values" in refused(written("\n".join(rows)))


def test_places_without_a_readable_file_are_told(tmp_path: Path) -> None:
    """Missing, a folder, a device: none hangs, none gives a traceback."""
    assert "no such file; `vqmon config init URL > no.yaml`" in refused(tmp_path / "no.yaml")
    assert "is a folder" in refused(tmp_path)
    assert "is not a regular file" in refused(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refused(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_told(
    written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's user is not the one who wrote it."""
    path = written(SMALLEST)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)

    assert "cannot be read: Permission denied" in refused(path)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(written: Write) -> None:
    """Ten mistakes are one round, not ten."""
    path = written("""
databse: x
scorer: {threads: 0, device: gpu}
defaults: {segment: 5}
streams:
  a: {url: a.mp4, segment: 6}
  b: {url: 'rtps://x', urls: y, evidence: {frames: 99}}
  c: {url: a.mp4, url: b.mp4}
""")

    lines = refused(path).splitlines()

    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == [2, 3, 3, 4, 6, 7, 7, 7, 8]


def test_a_mistake_in_the_defaults_is_told_once_however_many_streams(written: Write) -> None:
    """Not five hundred times."""
    streams = "\n".join(f"  s{i}: {{url: a.mp4}}" for i in range(5))

    message = refused(
        written(f"defaults: {{segment: 5}}\nevidence: {{frames: x}}\nstreams:\n{streams}")
    )

    assert len(message.splitlines()) == 2


def test_a_bad_combination_of_default_and_stream_is_told_at_the_stream(written: Write) -> None:
    """Both are right alone."""
    path = written("defaults: {segment: 3s}\nstreams: {a: {url: x, sampling: {every: 5s}}}")

    assert "streams.a.segment: must be at least `sampling.every` (5s)" in refused(path)


# Reloading


def test_the_fingerprint_follows_the_content_not_the_time(written: Write, tmp_path: Path) -> None:
    """Kubernetes swaps symlinks; secrets are files of their own."""
    (tmp_path / "pw").write_text("one")
    path = written("streams: {a: {url: 'rtsp://u:${file:pw}@c/x'}}")
    before = load(path, {}).fingerprint

    os.utime(path, (1, 1))
    assert config.fingerprint(path) == before

    (tmp_path / "pw").write_text("two")
    assert config.fingerprint(path) != before

    path.unlink()
    assert config.fingerprint(path).startswith("unreadable")


def test_a_reload_names_the_streams_it_changes(written: Write) -> None:
    """All others must go on undisturbed."""
    old = load(written("streams: {a: {url: a}, b: {url: b}, c: {url: c}}"), {})
    new = load(written("streams: {d: {url: d}, c: {url: c}, b: {url: b, segment: 5s}}"), {})

    changes = changed_streams(old, new)

    assert (changes.added, changes.removed, changes.changed) == (("d",), ("a",), ("b",))
    assert not changed_streams(old, old)


def test_a_changed_default_changes_only_streams_that_use_it(written: Write) -> None:
    """An own value shields a stream."""
    text = "defaults: {{segment: {}}}\nstreams: {{a: {{url: a}}, b: {{url: b, segment: 20s}}}}"
    old, new = (load(written(text.format(it)), {}) for it in ("10s", "30s"))

    assert changed_streams(old, new).changed == ("a",)


def test_a_reload_says_what_needs_a_restart(written: Write) -> None:
    """Sections that only take effect at the start are not silently ignored."""
    old = load(written(SMALLEST), {})
    new = load(written("scorer: {threads: 2}\nretention: {segments: 1d}" + SMALLEST), {})

    assert restart_needed(old, new) == ("scorer",)


# URLs without a file


def test_urls_alone_are_watched_under_readable_names() -> None:
    """`vqmon run URL URL` needs no file."""
    files = ["a b.mp4", "a b.mp4", "synthetic:?seed=1"]
    urls = ["rtsp://u:p@cam.local:554/live/main", "udp://239.0.0.1:5000", *files]

    settings = watching(urls, {}, data_dir=Path("/data"))

    names = ["cam.local-live-main", "239.0.0.1-5000", "a-b", "a-b-2", "synthetic"]
    assert list(settings.streams) == names
    assert settings.data_dir == Path("/data")


def test_a_wrong_url_on_the_command_line_is_told_as_such() -> None:
    """There is no file to point to."""
    with pytest.raises(
        ConfigError, match=r"^command line: streams\.h-x\.url: 'rtps://h/x': unknown"
    ):
        watching(["rtps://h/x"], {})


@pytest.mark.parametrize(
    "url", ["synthetic:", "rtsp://[::1]:554/x", "///", "é.mp4", "x" * 300, "-"]
)
def test_every_url_gets_a_usable_name(url: str) -> None:
    """Whatever it looks like."""
    [name] = config.named([url])

    Settings.model_validate({"streams": {name: {"url": "a.mp4"}}})


# What `config init` writes


def test_the_example_watches_the_urls_and_is_accepted_as_it_stands(
    written: Write, tmp_path: Path
) -> None:
    """What `config init` prints works at once."""
    urls = ["rtsp://u:p@h/x", "udp://@239.0.0.1:5000", "on", "a: b #c.mp4"]

    settings = load(written(config.commented_example(urls)), {})

    watched = [it.url.removeprefix(f"{tmp_path}/") for it in settings.streams.values()]
    assert watched == urls


def test_the_example_with_all_comments_taken_away_says_the_defaults(written: Write) -> None:
    """Uncommenting a line changes nothing until its value is changed."""
    text = config.commented_example(["rtsp://h/x"])
    uncommented = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in text.splitlines()
    )

    plain, full = load(written(text), {}), load(written(uncommented), {})

    assert plain.model_dump() == full.model_dump()
    shown = set(yaml.safe_load(uncommented))
    assert shown == set(Settings.model_fields)
    assert all(
        it.split(".")[-1] in uncommented for it in config.setting_paths() if "NAME" not in it
    )


def test_the_json_schema_describes_every_setting() -> None:
    """Editors complete and explain keys with it."""
    schema = config.json_schema()

    assert schema["$schema"].endswith("2020-12/schema")
    for given in (schema, *schema["$defs"].values()):
        section = given.get("anyOf", [given])[0]
        assert section["additionalProperties"] is (section["title"] == "PluginSettings")
        for name, it in section["properties"].items():
            known = schema["$defs"].get(it.get("$ref", "").removeprefix("#/$defs/"), {})
            assert it.get("description") or known.get("description"), name
    assert set(schema["$defs"]["ScheduleSettings"]["properties"]) == {"every", "for"}


# Alert rules


def ruled(rules: str, stream: str = "") -> str:
    return f"rules:\n{rules}\n{SMALLEST.strip()}\n{stream}"


def test_rules_are_shipped_and_changed_by_name(written: Write) -> None:
    """An operator writes what is different, nothing else."""
    path = written(
        ruled(
            "  black: {for: 10s}\n  stutter: off\n  soft: {on: quality, limit: 60, severity: info}",
            "    rules: {black: {severity: info, limit: 3}, stutter: {enabled: true}, freeze: off}",
        )
    )
    settings = load(path, {})

    everywhere, lobby = settings.rules_of("elsewhere"), settings.rules_of("lobby")

    assert settings.rules_of("x")["no_signal"] == RULES["no_signal"]
    assert everywhere["black"] == replace(RULES["black"], raise_seconds=10.0)
    assert "stutter" not in everywhere
    assert (everywhere["soft"].limit, everywhere["soft"].clear_limit) == (60, 65)
    assert lobby["black"] == replace(
        RULES["black"], raise_seconds=10.0, severity="info", limit=3, clear_limit=3
    )
    assert lobby["stutter"] == RULES["stutter"]
    assert "freeze" not in lobby


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            "  x: {on: blak}",
            "rules.x.on: 'blak': is nothing that a rule can be on; did you mean 'black'?",
        ),
        (
            "  blak: {for: 3s}",
            "vqmon.yaml:2:3: rules.blak: is no rule that is shipped, so it needs",
        ),
        (
            "  black: {limit: 6}",
            "rules.black.limit: '6': is the severity of black, between 1 and 5",
        ),
        ("  quality: {limit: 101}", "is points of quality, between 0 and 100"),
        ("  quality: {limit: 40, clear_limit: 30}", "must be at least `limit` (40), or it clears"),
        ("  black: {limit: 2, clear_limit: 3}", "must be at most `limit` (2), or it clears"),
        ("  black: {for: 10}", "rules.black.for: '10': not a duration"),
        ("  black: {severity: high}", "must be one of info, warning, critical"),
        ("  black: {fro: 10s}", "rules.black.fro: is not a setting; did you mean 'for'?"),
        ("  black: never", "rules.black: 'never': must be a map"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(written: Write, rules: str, expected: str) -> None:
    """A rule that never fires is noticed when it should have."""
    assert expected in refused(written(ruled(rules)))


def test_rules_of_streams_are_checked_at_their_place(written: Write) -> None:
    """The line of the stream, not of the shipped rule."""
    told = refused(written(ruled("  a: {on: blur}", "    rules: {b: off, stutter: {limit: 9}}")))

    assert "streams.lobby.rules.b: 'off': is no rule that is shipped, so it needs `on`" in told
    assert "streams.lobby.rules.stutter.limit: '9': is the severity of stutter" in told


def test_rules_of_a_stream_do_not_restart_it(written: Write) -> None:
    """Watching goes on while limits are tried."""
    old = load(written(SMALLEST), {})
    new = load(written(ruled("  black: off", "    rules: {freeze: off}")), {})

    assert not changed_streams(old, new)
    assert restart_needed(old, new) == ()


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("{cron: 0 3 * *, for: 1h}", "maintenance.w.cron: '0 3 * *': write five fields"),
        ("{cron: 0 99 * * *, for: 1h}", "maximum value (23)"),
        ("{cron: 0 3 * * *}", "maintenance.w: needs `cron` and `for`, or `from` and `until`"),
        ("{from: 2026-12-01T08:00}", "needs `cron` and `for`, or `from` and `until`"),
        ("{from: 2026-12-01T08:00, until: 2026-12-01T07:00}", "`until` must be later"),
        ("{cron: 0 3 * * *, for: 1h, timezone: Mars}", "write UTC or one like Europe/Berlin"),
    ],
)
def test_a_maintenance_window_that_never_comes_is_refused(
    written: Write, window: str, expected: str
) -> None:
    """Found out at noon, not at three in the morning."""
    assert expected in refused(written(f"maintenance:\n  w: {window}\n{SMALLEST}"))


def test_times_of_maintenance_are_in_their_zone(written: Write) -> None:
    """Three in the morning in Berlin, in winter and in summer."""
    text = "  w: {cron: 0 3 * * *, for: 1h, timezone: Europe/Berlin}"
    [window] = load(written(f"maintenance:\n{text}\n{SMALLEST}"), {}).windows()

    assert window.open(datetime(2026, 1, 5, 2, 30, tzinfo=UTC))
    assert not window.open(datetime(2026, 1, 5, 1, 30, tzinfo=UTC))
    assert window.open(datetime(2026, 7, 5, 1, 30, tzinfo=UTC))


def test_rules_come_alone_from_a_file_of_their_own(written: Write) -> None:
    """For a replay; its mistakes are told like those of a configuration."""
    text = "rules:\n  black: {for: 1s}\nstreams:\n  lobby: {rules: {freeze: off}}"

    found = config.rules_from(written(text), {}, ["lobby", "roof"])

    assert found.rules_of("roof")["black"].raise_seconds == 1.0
    assert "freeze" not in found.rules_of("lobby")
    with pytest.raises(ConfigError, match="did you mean 'rules'"):
        config.rules_from(written("rulse: {}"), {}, [])


def test_the_schema_knows_rules_that_are_off(written: Write) -> None:
    """An editor must not underline what the program accepts."""
    assert {"const": "off"} in config.json_schema()["$defs"]["RuleSettings"]["anyOf"]
