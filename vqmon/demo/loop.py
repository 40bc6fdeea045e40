"""The closed loop: a channel gets harder to encode, is seen to suffer, and is made better.

    encoder (own process) ─▶ HTTP ─▶ vqmon.daemon ─▶ alert
       ▲                                 └─▶ plugin adaptive_encoding ─▶ decision ─▶ outbox ─┐
       └────────────────────────── signed webhook ◀──────────────────────────────────────────┘

The daemon, its rules, outbox and plugin are the real ones. Only times are shorter than anybody
would have them in earnest; SHORTENED says which.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import signal
import textwrap
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqmon.demo import first_line, keep_off_proxies, prepared, program, write_report
from vqmon.demo.story import Chapter, Story, line, verdict
from vqmon.domain import Segment
from vqmon.errors import StoreError, VqmonError
from vqmon.report import words

if TYPE_CHECKING:
    from vqmon.demo.encoder import Order
    from vqmon.settings import Settings

STREAM, PLUGIN = "demo", "adaptive_encoding"
LADDER = ((5.0, 220), (6.5, 700), (8.0, 1500))
"""Quality and cap in kb/s; the encoder begins on the lowest."""

LINK_KBPS = 2500
HARDER_AT = 40.0
CODA_SECONDS = 15.0
"""How much longer than the story we watch, so that the report shows how it went on."""

LONGEST_SECONDS = 240.0
LOOK_SECONDS = 1.0
STATE_SECONDS = 2.0

SHORTENED = {
    "the grace in which a stream raises nothing": ("5 s", "60 s"),
    "a fault until the plugin acts (sustained)": ("15 s", "30 s"),
    "from a request to the first segment that counts (settle)": ("5 s", "20 s"),
    "segments compared after a change (verify_segments)": ("2", "3"),
    "the end of judging (verify_within)": ("60 s", "10 min"),
    "between changes (cooldown)": ("60 s", "10 min"),
}
"""What the demonstration has shortened, to what, and what it is otherwise."""

NEEDS_PLUGIN = (
    "this demonstration needs the plugin adaptive_encoding, which is not installed: "
    "pip install vqmon-adaptive-encoding (from a checkout: pip install -e "
    "plugins/adaptive_encoding, or make demo-loop, which installs it)"
)


def run(folder: Path | None = None, *, open_browser: bool = False) -> int:
    """Encode, watch, act, report. Returns 0 when the loop was closed, else 1.

    Ctrl-C ends it early; what happened until then is told all the same.
    folder: each run gets a folder of its own in it (default ./vqmon-demo).
    Raises VqmonError when the plugin is missing or the channel cannot be started.
    """
    _check_plugin()
    since = datetime.now(UTC)
    folder = prepared((folder or Path("vqmon-demo")) / f"loop-{since:%Y%m%d-%H%M%S}")
    print(announcement(), flush=True)
    order = first_order(HARDER_AT)
    with encoder(order, folder / "encoder.log") as urls:
        teller = _Teller(folder, urls["commands"])
        settings = configured(folder, configuration(urls["live"], urls["commands"], order.secret))
        code = _watch(settings, teller)
    return _finish(folder, since, teller, code, open_browser=open_browser)


def first_order(harder_at: float, **changed: Any) -> Order:
    """An encoder on the lowest rung, with a secret made for this one run."""
    from vqmon.demo.encoder import Order

    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    quality, cap_kbps = LADDER[0]
    return replace(Order(STREAM, secret, quality, cap_kbps, harder_at), **changed)


def configuration(live: str, commands: str, secret: str) -> dict[str, Any]:
    """Streams, rules, notifiers and plugins, as an operator would write them in YAML."""
    ladder = [{"quality": quality, "cap_kbps": cap} for quality, cap in LADDER]
    return {
        "alerts": {"grace": "5s"},
        "rules": {"compression": {"on": "compression", "limit": 2, "for": "10s", "clear": "10s"}},
        "streams": {
            STREAM: {
                "url": live,
                "segment": "5s",
                "sampling": {"mode": "every", "every": "1s"},
                "options": {"live": "yes"},
            }
        },
        "notifiers": {
            "encoder": {"type": "webhook", "url": commands, "secret": secret, "alerts": False}
        },
        "plugins": {
            PLUGIN: {
                "mode": "act",
                "rules": {
                    "sustained": "15s",
                    "settle": "5s",
                    "verify_segments": 2,
                    "verify_within": "60s",
                    "cooldown": "60s",
                },
                "streams": {
                    STREAM: {
                        "target": {"type": "webhook", "notifier": "encoder"},
                        "ladder": ladder,
                        "cap_kbps": LINK_KBPS,
                    }
                },
            }
        },
    }


def configured(folder: Path, given: Mapping[str, Any]) -> Settings:
    """The same, checked, with its data in `folder`."""
    from vqmon.settings import Settings

    return Settings.model_validate(
        {"instance": "demo", "http": "off", "data_dir": str(folder), **given}
    )


@contextmanager
def encoder(order: Order, log_file: Path) -> Iterator[dict[str, str]]:
    """The addresses of an encoder (`live`, and `commands` when it has an ear for them) while its
    process lives. Raises VqmonError when it cannot be started.
    """
    with program("vqmon.demo.encoder", log_file=log_file) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # then it has ended, and first_line says why
            process.stdin.write(json.dumps(asdict(order)) + "\n")
            process.stdin.flush()
        yield json.loads(first_line(process, log_file))


def state_of(commands: str) -> dict[str, Any]:
    """How an encoder runs and what it has heard, as it says itself. Raises OSError."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(commands, timeout=STATE_SECONDS) as answer:
        return dict(json.load(answer))


def announcement() -> str:
    """What is going to happen, and what is not as in earnest."""
    quality, cap_kbps = LADDER[0]
    plan = (
        f"A live channel on this machine, encoded at quality {quality:g} under {cap_kbps} kb/s. "
        f"After {HARDER_AT:.0f} s its camera turns fast, which that rate cannot carry. vqmon "
        "watches, raises an alert and asks the encoder for more by a signed webhook; then it "
        "compares before and after. This takes about two minutes."
    )
    times = "; ".join(f"{what} {short} ({usual})" for what, (short, usual) in SHORTENED.items())
    shorter = f"Shortened for the demonstration, with what is usual in parentheses: {times}."
    return "\n\n".join(textwrap.fill(it, 78) for it in (plan, shorter)) + "\n"


def _check_plugin() -> None:
    from vqmon.plugins import find

    if PLUGIN not in find(None):
        raise VqmonError(NEEDS_PLUGIN)


def _watch(settings: Settings, teller: _Teller) -> int:
    from vqmon import daemon

    logging.getLogger("vqmon").setLevel(logging.ERROR)
    keep_off_proxies()
    teller.start()
    try:
        return daemon.run(settings, duration=LONGEST_SECONDS, on_segment=teller.seen)
    finally:
        teller.stop()


class _Teller(threading.Thread):
    """Tells the story while it happens, and ends the watching when it is over."""

    def __init__(self, folder: Path, commands: str) -> None:
        super().__init__(name="tells the story", daemon=True)
        self.story = Story()
        self.segments: list[Segment] = []
        self._database = f"sqlite:///{folder / 'vqmon.db'}"
        self._commands = commands
        self._told: set[str] = set()
        self._printing = threading.Lock()
        self._stopping = threading.Event()
        self._over_at: datetime | None = None

    def seen(self, segment: Segment) -> None:
        """From the daemon, one after the other."""
        self.segments.append(segment)
        self._say(_segment_line(segment))

    def run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self._look()
            if self._over_at and datetime.now(UTC) - self._over_at > timedelta(
                seconds=CODA_SECONDS
            ):
                os.kill(os.getpid(), signal.SIGTERM)  # as a service manager would say it
                return

    def stop(self) -> None:
        """After a last look."""
        self._stopping.set()
        self.join()
        self._look()

    def _look(self) -> None:
        self.story = self._now()
        for chapter in self.story.chapters():
            self._tell(chapter)
        if self.story.closed and self._over_at is None:
            self._over_at = datetime.now(UTC)

    def _now(self) -> Story:
        """What is known; what cannot be asked now is as it was."""
        known = replace(self.story, harder_at=self._harder_at())
        with suppress(OSError, ValueError):
            known = replace(known, heard=state_of(self._commands)["heard"])
        with suppress(StoreError):
            from vqmon.store import open_store

            with open_store(self._database, migrate=False) as store:
                alerts, decisions = store.alerts(STREAM), store.decisions(stream=STREAM)
            known = replace(known, alerts=alerts, decisions=decisions)
        return known

    def _harder_at(self) -> datetime | None:
        if not self.segments:
            return None
        first = self.segments[0]
        at = first.started_at + timedelta(seconds=HARDER_AT - first.start)
        return at if at <= datetime.now(UTC) else None

    def _tell(self, chapter: Chapter) -> None:
        if chapter.key not in self._told:
            self._told.add(chapter.key)
            self._say(line(chapter))

    def _say(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)


def _segment_line(segment: Segment) -> str:
    quality = "no score" if segment.quality is None else f"quality {segment.quality:.0f}"
    rate = segment.facts.get("bitrate_kbps")
    sent = f"{rate:.0f} kb/s" if isinstance(rate, int | float) else ""
    found = ", ".join(
        f"{words.named(it.name)} ({words.severity(it.severity)})" for it in segment.findings
    )
    until = segment.started_at + timedelta(seconds=segment.seconds)
    return f"{until:%H:%M:%S}  {quality:10} {sent:>9}  {found or 'nothing found'}"


def _finish(
    folder: Path, since: datetime, teller: _Teller, code: int, *, open_browser: bool
) -> int:
    first = next(iter(teller.segments), None)
    path = write_report(folder, first.started_at if first else since, datetime.now(UTC))
    print("\n" + summary(teller.story, teller.segments))
    print(f"Report: {path}", flush=True)
    if open_browser:
        webbrowser.open(path.as_uri())
    return code or (0 if teller.story.closed else 1)


def summary(story: Story, segments: list[Segment]) -> str:
    """The story in a few lines, and whether this machine was fit to tell it."""
    from vqmon.demo.stage import overloaded

    lines = ["What happened (UTC):"]
    for chapter in story.chapters():
        lines += textwrap.wrap(line(chapter), 78, initial_indent="  ", subsequent_indent=" " * 22)
    lines += ["", verdict(story)]
    if busy := overloaded(segments):
        lines.append(f"This machine was too busy to look closely for {words.lasting(busy)}.")
    return "\n".join(lines)
