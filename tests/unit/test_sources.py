"""What vqmon accepts as a source, and what it shows of one."""

from __future__ import annotations

import pytest

from vqmon.domain import DOWN_REASONS, Stream
from vqmon.errors import ConfigError
from vqmon.sources import OPTIONS, SCHEMES, check_options, open_source, plan, redact
from vqmon.sources.addresses import scrub
from vqmon.sources.failures import REMEDIES
from vqmon.sources.retry import STEPS, Backoff


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:p4ss@cam/1", "rtsp://***@cam/1"),
        ("rtsp://user:p@ss@cam/1", "rtsp://***@cam/1"),
        ("rtsp://user:p/ss@cam/1", "rtsp://***@cam/1"),
        ("https://cdn/@channel/live.m3u8", "https://cdn/@channel/live.m3u8"),
        ("https://cdn:8443/@channel/live", "https://cdn:8443/@channel/live"),
        ("https://cdn/live.m3u8?token=abc&x=1", "https://cdn/live.m3u8?token=***&x=***"),
        ("srt://host:9000?passphrase=0123456789&latency=200", "srt://host:9000?passphrase=***&latency=200"),
        ("/videos/a?b=c.mp4", "/videos/a?b=c.mp4"),
        ("udp://239.0.0.1:5000?localaddr=10.0.0.1", "udp://239.0.0.1:5000?localaddr=10.0.0.1"),
    ],
)  # fmt: skip
def test_a_shown_url_carries_no_credentials(url: str, shown: str) -> None:
    """URLs go to logs, labels, reports and alerts; passwords and tokens must not."""
    assert redact(url) == shown


def test_foreign_texts_are_scrubbed_of_the_urls_secrets_however_written() -> None:
    """FFmpeg repeats URLs in its messages, decoded or rebuilt."""
    url = "rtmp://me:s%40fe-word@host/app?key=tok3n"

    text = scrub("tcp://me:s@fe-word@host failed, key tok3n, s%40fe-word", url)

    assert "fe-word" not in text
    assert "tok3n" not in text
    assert "host" in text


def test_an_unknown_scheme_names_the_nearest() -> None:
    """A typing error should cost seconds."""
    with pytest.raises(ConfigError, match=r"unknown scheme 'rstp'.*did you mean .*'rtsp'"):
        check_options("rstp://cam/1", {})


def test_an_unknown_option_names_the_nearest_of_its_scheme() -> None:
    """FFmpeg ignores a wrong option silently, and then reads block for ever."""
    with pytest.raises(ConfigError, match=r"unknown option 'transprot' of rtsp.*'transport'"):
        check_options("rtsp://cam/1", {"transprot": "udp"})


@pytest.mark.parametrize(
    ("url", "option", "value", "remedy"),
    [
        ("rtsp://cam", "transport", "sctp", "tcp, udp"),
        ("rtsp://cam", "read_timeout", "soon", "number above 0"),
        ("rtsp://cam", "read_timeout", "-1", "number above 0"),
        ("rtsp://cam", "read_timeout", "nan", "number above 0"),
        ("https://cdn/a.m3u8", "ca_file", "/no/such.pem", "no such file"),
        ("https://cdn/a.m3u8", "tls_verify", "maybe", "yes, no"),
        ("https://cdn/a.m3u8", "headers", "Token abc", "Name: value"),
        ("srt://host:1", "passphrase", "short", "10 to 79"),
        ("udp://:5000", "local_address", " ", "not be empty"),
    ],
)
def test_a_wrong_value_says_what_would_be_right(
    url: str, option: str, value: str, remedy: str
) -> None:
    """The error appears when the configuration is read, not when the stream hangs."""
    with pytest.raises(ConfigError, match=remedy):
        check_options(url, {option: value})


def test_a_wrong_secret_is_not_repeated_in_the_error() -> None:
    """Configuration errors are pasted into tickets."""
    with pytest.raises(ConfigError) as caught:
        check_options("srt://host:1", {"passphrase": "hunter2"})

    assert "hunter2" not in str(caught.value)


def test_a_source_never_listens() -> None:
    """`tcp://…?listen` would open a server that anyone can feed."""
    with pytest.raises(ConfigError, match="does not listen"):
        open_source(Stream("x", "tcp://127.0.0.1:9?listen=1"))


def test_every_option_of_every_scheme_is_described() -> None:
    """The documentation is made from OPTIONS."""
    assert {name for scheme in SCHEMES.values() for name in scheme.options} <= set(OPTIONS)


def test_no_network_source_can_reach_local_files() -> None:
    """A playlist on a hostile server must not read /etc/passwd."""
    for name in SCHEMES.keys() - {"file", "synthetic", "srt"}:
        allowed = plan(f"{name}://host/x", {}).options["protocol_whitelist"].split(",")

        assert not {"file", "concat", "concatf", "subfile", "data", "pipe", "fd"} & set(allowed)


def test_every_scheme_has_limits_that_ffmpeg_understands() -> None:
    """`timeout` means something else for each protocol; for RTMP it starts a server."""
    assert plan("rtsp://h/x", {"read_timeout": "3"}).options["timeout"] == "3000000"
    assert plan("rtmp://h/x", {"read_timeout": "3"}).options["rw_timeout"] == "3000000"
    assert "timeout" not in plan("rtmp://h/x", {}).options
    assert plan("https://h/x.m3u8", {}).read_timeout >= 20
    assert plan("https://h/x.m3u8", {}).options["tls_verify"] == "1"


def test_reconnecting_backs_off_in_steps_with_jitter() -> None:
    """A thousand cameras behind a rebooted switch must not knock in the same second."""
    backoff = Backoff()

    delays = [backoff.failed(healthy_for=0, useless=False) for _ in range(9)]

    for delay, step in zip(delays, [*STEPS, 60.0, 60.0], strict=True):
        assert 0.8 * step <= delay <= 1.2 * step
    assert len({round(d / s, 6) for d, s in zip(delays, STEPS, strict=False)}) > 1


def test_backoff_begins_anew_after_a_healthy_minute_and_is_slow_where_useless() -> None:
    """A wrong password is not retried every second; a good stream is back at once."""
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(healthy_for=0, useless=False)

    assert backoff.failed(healthy_for=61, useless=False) <= 1.2
    assert backoff.failed(healthy_for=0, useless=True) >= 240


def test_every_reason_to_be_down_has_a_remedy() -> None:
    """The reason goes to a person who has to do something."""
    assert set(REMEDIES) == set(DOWN_REASONS)


def test_a_mistake_in_a_synthetic_address_is_found_before_anything_is_opened() -> None:
    """`config check` is where people look for misspelt faults."""
    check_options("synthetic:?faults=black@1-2", {})

    with pytest.raises(ConfigError, match="blakc"):
        check_options("synthetic:?faults=blakc@1-2", {})
