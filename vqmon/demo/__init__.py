"""The demonstration: a live channel with faults on purpose, watched by the real daemon.

broadcast (own process) ─▶ HTTP on loopback ─▶ vqmon.daemon ─▶ SQLite ─▶ report.html
stage: what is on air when ─────────────────────────────────▶ what was found of it

`loop` is the other one: a channel that asks to be made better, and is.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vqmon.demo.screen import Screen, screen
from vqmon.demo.stage import Act, Verdict, overloaded, programme, unstaged, verdicts
from vqmon.domain import Segment
from vqmon.errors import AlreadyRunning, VqmonError
from vqmon.report import words

STREAM = "demo"
LEAST_SECONDS, LENGTH = 15.0, 60.0
START_SECONDS = 30.0
"""How long the broadcaster may take to start on a busy machine."""

OPENING_SECONDS = 25.0
"""How much longer than the programme we wait for its last segment: a cold start is slow."""


def run(seconds: float = LENGTH, folder: Path | None = None, *, open_browser: bool = False) -> int:
    """Broadcast, watch, report. Returns 0, or 1 when nothing could be scored.

    Ctrl-C ends the watching early; what was seen until then is reported all the same.
    seconds: of the programme, at least LEAST_SECONDS; each fault is staged that is over by then.
    folder: where database, pictures and report go (default ./vqmon-demo); made when missing.
    Raises VqmonError when the channel cannot be started or the folder cannot be written.
    """
    seconds = max(seconds, LEAST_SECONDS)
    folder = prepared(folder or Path("vqmon-demo"))
    acts = programme(seconds)
    print(_announcement(acts, seconds), flush=True)
    since = _now()
    with on_air(seconds, folder / "broadcast.log") as url, screen(acts) as shown:
        viewer = _Viewer(shown, seconds)
        code = watch(url, folder, seconds + OPENING_SECONDS, viewer.seen)
    return _finish(folder, since, acts, viewer.segments, code, open_browser=open_browser)


class _Viewer:
    """Sees segments until the programme is over, and then tells the daemon to stop."""

    def __init__(self, shown: Screen, seconds: float) -> None:
        self.segments: list[Segment] = []
        self._shown = shown
        self._seconds = seconds
        self._over = False

    def seen(self, segment: Segment) -> None:
        if self._over:
            return
        self.segments.append(segment)
        self._shown.show(segment)
        if segment.start + segment.seconds >= self._seconds:
            self._over = True
            signal.raise_signal(signal.SIGTERM)  # as a service manager would say it


def watch(url: str, folder: Path, seconds: float, seen: Callable[[Segment], None]) -> int:
    """Run the daemon on one stream; `seen` is called with each of its segments."""
    from vqmon import daemon
    from vqmon.settings import Settings

    settings = Settings.model_validate(
        {
            "instance": "demo",
            "http": "off",
            "data_dir": str(folder),
            "streams": {
                STREAM: {
                    "url": url,
                    "segment": "5s",
                    "sampling": {"mode": "every", "every": "1s"},
                    "options": {"live": "yes"},
                }
            },
        }
    )
    logging.getLogger("vqmon").setLevel(logging.ERROR)
    keep_off_proxies()
    try:
        return daemon.run(settings, duration=seconds, on_segment=seen)
    except AlreadyRunning as error:
        raise VqmonError(
            f"another demonstration is running in {folder}: wait for it, or give --folder"
        ) from error


def keep_off_proxies() -> None:
    """FFmpeg would ask the proxy of an office for this machine's own address."""
    direct = [it for it in (os.environ.get("no_proxy"), "127.0.0.1") if it]
    os.environ["no_proxy"] = ",".join(direct)


@contextmanager
def on_air(seconds: float, log_file: Path) -> Iterator[str]:
    """The channel's URL while its process lives; the process ends with the block, or with us."""
    with program("vqmon.demo.broadcast", str(seconds), log_file=log_file) as process:
        yield f"http://127.0.0.1:{first_line(process, log_file)}/live.ts"


@contextmanager
def program(module: str, *arguments: str, log_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A module run as a process of its own, which ends with its standard input: with the block,
    or with us. What it complains about goes to `log_file`.
    """
    with log_file.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def first_line(process: subprocess.Popen[str], log_file: Path) -> str:
    """What a channel prints when it is ready. Raises VqmonError when it does not begin."""
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    watchdog.cancel()
    if not line:
        process.wait()
        told = log_file.read_text().strip().splitlines()
        reason = told[-1] if told else f"it did not start within {START_SECONDS:.0f} s"
        raise VqmonError(
            f"the demonstration channel could not be started: {reason}. It needs an H.264 encoder: "
            "install PyAV's own wheel (pip install --force-reinstall --only-binary av av)"
        )
    return line


def _end(process: subprocess.Popen[str]) -> None:
    """Closing its standard input tells it; it is killed when it does not listen."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def prepared(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "broadcast.log").touch()
    except OSError as error:
        raise VqmonError(f"{folder} cannot be written ({error.strerror}); give --folder") from error
    return folder.absolute()


def _announcement(acts: Sequence[Act], seconds: float) -> str:
    faults = "with faults on purpose:" if acts else "too short for a fault."
    lines = [f"A live channel on this machine, {seconds:.0f} s, {faults}"]
    lines += [f"  {act.start:4.0f} to {act.end:4.1f} s  {act.words}" for act in acts]
    return "\n".join(lines) + "\n"


def _finish(
    folder: Path,
    since: datetime,
    acts: Sequence[Act],
    segments: Sequence[Segment],
    code: int,
    *,
    open_browser: bool,
) -> int:
    path = write_report(folder, since, _end_of(segments))
    scored = any(segment.scored for segment in segments)
    print("\n" + summary(acts, segments))
    print(f"Report: {path}", flush=True)
    if open_browser:
        webbrowser.open(path.as_uri())
    return code or (0 if scored else 1)


def _end_of(segments: Sequence[Segment]) -> datetime:
    return max((s.started_at + timedelta(seconds=s.seconds) for s in segments), default=_now())


def _now() -> datetime:
    return datetime.now(UTC)


def write_report(folder: Path, since: datetime, until: datetime) -> Path:
    """Where the page about [since, until) is."""
    from vqmon import report
    from vqmon.store import open_store

    path = folder / "report.html"
    with open_store(f"sqlite:///{folder / 'vqmon.db'}") as store:
        built = report.build(store, since, until, STREAM, folder / "evidence")
    path.write_text(report.to_html(built), encoding="utf-8")
    return path


def summary(acts: Sequence[Act], segments: Sequence[Segment]) -> str:
    """What was staged against what was found, honestly, in a line or two."""
    if not any(segment.scored for segment in segments):
        reasons = sorted({s.no_score_reason for s in segments if s.no_score_reason})
        told = ", ".join(words.reason(r) for r in reasons) or "no segment arrived"
        return f"The channel could not be watched: {told}."
    judged = verdicts(acts, segments)
    lines = [_found_of(judged)]
    unwatched = [words.named(v.act.name) for v in judged if not v.watched]
    if unwatched:
        lines.append(f"Not on air while watching: {', '.join(unwatched)}.")
    others = [f"{words.named(n)} ({words.lasting(s)})" for n, s in unstaged(acts, segments)]
    if others:
        lines.append(f"Also found, though not staged: {', '.join(others)}.")
    if busy := overloaded(segments):
        lines.append(
            f"This machine was too busy to look closely for {words.lasting(busy)}: "
            "what was missed may be found when it is idle."
        )
    return "\n".join(lines)


def _found_of(judged: Sequence[Verdict]) -> str:
    watched = [v for v in judged if v.watched]
    if not watched:
        return "No fault was staged in the time watched."
    found = [words.named(v.act.name) for v in watched if v.found]
    missed = [words.named(v.act.name) for v in watched if v.missed]
    told = f"Found {len(found)} of {len(watched)} staged faults"
    told += f": {', '.join(found)}" if found else ""
    return told + (f"; missed: {', '.join(missed)}." if missed else ".")
