"""Who is told, as an operator writes it; every mistake with its place and remedy."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from tests.receivers import SECRET
from vqmon.alerting.own import OWN_RULES
from vqmon.config import Settings, load, shown
from vqmon.errors import ConfigError
from vqmon.notifying import Target


def written(folder: Path, notifiers: str, environ: dict[str, str] | None = None) -> Settings:
    """Read from a file with one stream and these notifiers."""
    path = folder / "vqmon.yaml"
    body = indent(dedent(notifiers), "  ")
    path.write_text(f"streams:\n  news: {{url: a.mp4}}\nnotifiers:\n{body}\n")
    return load(path, environ or {})


def told(folder: Path, notifiers: str, environ: dict[str, str] | None = None) -> str:
    """What is said of a mistake."""
    with pytest.raises(ConfigError) as caught:
        written(folder, notifiers, environ)
    return str(caught.value)


def test_the_smallest_notifiers(tmp_path: Path) -> None:
    """A type, and where to send to."""
    settings = written(
        tmp_path,
        """
        encoder: {type: webhook, url: "http://10.0.0.5/hook"}
        am: {type: alertmanager, url: "http://alertmanager:9093"}
        console: {type: log}
        """,
    )

    assert settings.targets() == [
        Target("encoder", "webhook", url="http://10.0.0.5/hook"),
        Target("am", "alertmanager", url="http://alertmanager:9093"),
        Target("console", "log"),
    ]


def test_everything_that_a_webhook_may_have(tmp_path: Path) -> None:
    """And what becomes of it."""
    (tmp_path / "ca.pem").touch()
    settings = written(
        tmp_path,
        f"""
        encoder:
          type: webhook
          url: https://encoder.example.net/hook
          secret: ["${{NEW_KEY}}", "{SECRET}"]
          headers: {{X-Token: "${{TOKEN}}"}}
          private: no
          allow: [93.184.0.0/16, encoder.example.net]
          redirects: 2
          timeout: 3s
          ca_file: ca.pem
          alerts: no
          streams: [n*]
          rules: [black, "quality*"]
          severities: [critical]
          send_resolved: no
          repeat: no
        """,
        {"NEW_KEY": SECRET, "TOKEN": "s3cret"},
    )

    assert settings.target("encoder") == Target(
        "encoder",
        "webhook",
        url="https://encoder.example.net/hook",
        secrets=(SECRET, SECRET),
        headers={"X-Token": "s3cret"},
        private=False,
        allow=("93.184.0.0/16", "encoder.example.net"),
        redirects=2,
        timeout=3.0,
        ca_file=tmp_path / "ca.pem",
        alerts=False,
        streams=("n*",),
        rules=("black", "quality*"),
        severities=("critical",),
        send_resolved=False,
        repeat=False,
    )


@pytest.mark.parametrize("rule", OWN_RULES)
def test_a_target_can_be_told_of_vqmon_alone(tmp_path: Path, rule: str) -> None:
    """Who runs vqmon is often somebody else than who watches the streams."""
    settings = written(tmp_path, f"ops: {{type: log, rules: [{rule}], streams: ['(vqmon)']}}")

    assert settings.target("ops").rules == (rule,)


def test_one_key_needs_no_list(tmp_path: Path) -> None:
    """And it may come from a file, as Kubernetes mounts secrets."""
    (tmp_path / "key").write_text(SECRET + "\n")

    settings = written(
        tmp_path, 'encoder: {type: webhook, url: "http://a/x", secret: "${file:key}"}'
    )

    assert settings.target("encoder").secrets == (SECRET,)


def test_a_new_key_in_its_file_is_a_new_configuration(tmp_path: Path) -> None:
    """Rotation needs no restart: the daemon notices, and the target changes."""
    text = 'encoder: {type: webhook, url: "http://a/x", secret: "${file:key}"}'
    (tmp_path / "key").write_text(SECRET)
    before = written(tmp_path, text)
    (tmp_path / "key").write_text("whsec_" + "A" * 44)

    after = written(tmp_path, text)

    assert after.fingerprint != before.fingerprint
    assert after.targets() != before.targets()


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    """`vqmon config show` goes into tickets."""
    settings = written(
        tmp_path,
        f"""
        a: {{type: webhook, url: "http://joe:hush@a/x?token=hush", secret: {SECRET}}}
        b: {{type: webhook, url: "http://a/", headers: {{Authorization: Bearer hush}}}}
        c: {{type: apprise, url: "json://joe:hush@localhost/hush"}}
        """,
    )

    text = shown(settings)

    assert "hush" not in text
    assert SECRET not in text
    assert "url: json://***" in text


MISTAKES: list[tuple[str, str, Any]] = [
    ("{url: 'http://a/'}", "encoder.type", "is required"),
    ("{type: webhok, url: 'http://a/'}", "encoder.type", "did you mean 'webhook'?"),
    ("{type: webhook}", "encoder", "is required: where to send to"),
    ("{type: webhook, url: 'ftp://a/'}", "encoder.url", "write http://HOST"),
    ("{type: webhook, url: 'http://'}", "encoder.url", "write http://HOST"),
    ("{type: webhook, url: 'http://127.0.0.1/', private: no}", "encoder.url", "is inside"),
    ("{type: webhook, url: 'http://localhost/', private: no}", "encoder.url", "is inside"),
    ("{type: webhook, url: 'http://10.0.0.1/', allow: [10.1.0.0/16]}", "encoder.url", "`allow`"),
    ("{type: webhook, url: 'http://a/', allow: ['http://a']}", "encoder.allow", "write a network"),
    ("{type: webhook, url: 'http://a/', secret: short}", "encoder.secret", "openssl rand"),
    ("{type: webhook, url: 'http://a/', timeout: 10}", "encoder.timeout", "a unit"),
    ("{type: webhook, url: 'http://a/', timeout: 10m}", "encoder.timeout", "between 500ms and 2m"),
    ("{type: webhook, url: 'http://a/', redirects: 9}", "encoder.redirects", "between 0 and 5"),
    ("{type: webhook, url: 'http://a/', streams: [sport]}", "streams[0]", "known: (vqmon), news"),
    ("{type: webhook, url: 'http://a/', streams: [nws]}", "streams[0]", "did you mean 'news'?"),
    ("{type: webhook, url: 'http://a/', rules: [blak]}", "rules[0]", "did you mean 'black'?"),
    ("{type: webhook, url: 'http://a/', severities: [urgent]}", "severities[0]", "critical"),
    ("{type: webhook, url: 'http://a/', sceret: x}", "encoder.sceret", "did you mean 'secret'?"),
    ("{type: webhook, url: 'http://a/', headers: {'a b': c}}", "headers.a b", "letters, digits"),
    ("{type: webhook, url: 'http://a/', headers: {Host: c}}", "headers.Host", "set by vqmon"),
    ("{type: webhook, url: 'http://a/', headers: {webhook-id: c}}", "webhook-id", "set by vqmon"),
    ('{type: webhook, url: "http://a/", headers: {X: "a\\nb"}}', "headers.X", "in one line"),
    (f"{{type: alertmanager, url: 'http://a/', secret: {SECRET}}}", "secret", "does not apply"),
    ("{type: alertmanager}", "encoder", "where to send to"),
    ("{type: log, url: 'http://a/'}", "encoder.url", "does not apply"),
    ("{type: log, private: no}", "encoder.private", "does not apply"),
    ("{type: apprise, url: nonsense}", "encoder.url", "Apprise does not know"),
    ("{type: apprise, url: 'json://a', redirects: 1}", "encoder.redirects", "does not apply"),
]


@pytest.mark.parametrize(("notifier", "where", "remedy"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_told_with_place_and_remedy(
    tmp_path: Path, notifier: str, where: str, remedy: str
) -> None:
    """When the configuration is read, not when the first alert is raised."""
    said = told(tmp_path, f"encoder: {notifier}")

    assert "vqmon.yaml:4" in said
    assert f"notifiers.encoder{where.removeprefix('encoder')}" in said or where in said
    assert remedy in said
    assert len(said.splitlines()) == 1


def test_an_address_inside_is_refused_wherever_it_may_not_be(tmp_path: Path) -> None:
    """The order in which the keys are written does not matter."""
    for text in (
        "encoder: {private: no, type: webhook, url: 'http://169.254.169.254/'}",
        "encoder: {url: 'http://169.254.169.254/', type: webhook, private: no}",
    ):
        assert "is inside, which `private: no` forbids" in told(tmp_path, text)


def test_apprise_that_is_not_installed_is_a_mistake_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by `vqmon config check`."""
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)

    assert "pip install 'vqmon[notify]'" in told(tmp_path, "ops: {type: apprise, url: 'json://a'}")


def test_a_name_is_one_that_can_be_a_label(tmp_path: Path) -> None:
    """Metrics and commands name targets."""
    assert "1 to 64 letters" in told(tmp_path, "'a b': {type: log}")
