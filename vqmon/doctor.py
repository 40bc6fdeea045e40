"""Is everything there that vqmon needs on this machine? Each check tells what to do if not."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vqmon.errors import SourceError, VqmonError
from vqmon.settings import Settings

DEMUXERS = ("rtsp", "hls", "mpegts", "flv", "mov,mp4,m4a,3gp,3g2,mj2", "sdp")
PROTOCOLS = ("file", "http", "https", "rtmp", "rtmps", "rtp", "tcp", "udp")
DECODERS = ("h264", "hevc", "av1", "vp9", "mpeg2video", "aac", "ac3", "eac3", "opus", "mp2")

_OPEN_FILES = 1024
_SCORE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Check:
    """status: ok, warn (works, but know this) or fail. found: what is there. remedy: what to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """All checks in a fixed order, one after another as they are done. Never raises."""
    checks: tuple[Callable[[Settings], Check], ...] = (
        _python,
        _ffmpeg,
        _protocols,
        _decoders,
        _srt,
        _runtime,
        _model,
        _gpu,
        _data_folder,
        _free_disk,
        _database,
        _open_files,
    )
    for check in checks:
        yield _contained(check, settings)


def as_json(checks: list[Check]) -> list[dict[str, Any]]:
    """What `vqmon doctor --json` prints."""
    return [asdict(check) for check in checks]


def _contained(check: Callable[[Settings], Check], settings: Settings) -> Check:
    """A check that cannot be made is a failed check; the others are still made."""
    try:
        return check(settings)
    except Exception as error:
        name = check.__name__.strip("_").replace("_", " ")
        return Check(name, "fail", f"{type(error).__name__}: {error}", "Report this as a bug.")


def _python(_settings: Settings) -> Check:
    import platform

    return Check("python", "ok", f"{platform.python_version()} on {platform.machine()}")


def _ffmpeg(_settings: Settings) -> Check:
    import av

    return Check("ffmpeg", "ok", f"{av.ffmpeg_version_info} in PyAV {av.__version__}")


def _protocols(_settings: Settings) -> Check:
    import av

    missing = [name for name in PROTOCOLS if not _speaks(name)]
    missing += [name for name in DEMUXERS if name not in av.formats_available]
    if missing:
        return Check(
            "protocols",
            "fail",
            f"missing: {', '.join(missing)}",
            "This PyAV was built without them; install the wheel: pip install --force-reinstall av",
        )
    return Check("protocols", "ok", ", ".join((*PROTOCOLS, "rtsp", "hls")))


def _speaks(protocol: str) -> bool:
    """Whether FFmpeg knows a protocol. The whitelist keeps it from opening anything."""
    import av
    import av.logging

    try:
        with av.logging.Capture(local=True):
            av.open(f"{protocol}://127.0.0.1:9/", options={"protocol_whitelist": "none"}).close()
    except av.ProtocolNotFoundError:
        return False
    except (OSError, ValueError, av.FFmpegError):
        return True
    return True


def _decoders(_settings: Settings) -> Check:
    import av

    missing = [name for name in DECODERS if name not in av.codecs_available]
    if missing:
        return Check(
            "decoders",
            "fail",
            f"missing: {', '.join(missing)}",
            "Streams in these codecs stay dark; install the wheel: "
            "pip install --force-reinstall av",
        )
    return Check("decoders", "ok", ", ".join(DECODERS))


def _srt(settings: Settings) -> Check:
    """SRT needs a helper program where FFmpeg was built without it, as in PyAV's wheel."""
    from vqmon.sources import bridge, plan

    if _speaks("srt"):
        return Check("srt", "ok", "built in")
    try:
        helper = bridge.command(plan("srt://127.0.0.1:9", {}))[0]
    except SourceError as error:
        wanted = any(it.url.startswith("srt:") for it in settings.streams.values())
        status: Literal["warn", "fail"] = "fail" if wanted else "warn"
        return Check("srt", status, "no helper program", error.message)
    return Check("srt", "ok", f"through {helper}")


def _runtime(_settings: Settings) -> Check:
    from vqmon.scorers.onnx import runtimes

    found = [f"{name} {version}" for name, version in runtimes()]
    if not found:
        return Check("onnx runtime", "fail", "none", "pip install 'vqmon[cpu]' (or 'vqmon[gpu]')")
    if len(found) > 1:
        return Check(
            "onnx runtime",
            "fail",
            f"{' and '.join(found)} overwrite each other",
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'vqmon[cpu]' or "
            "'vqmon[gpu]'",
        )
    return Check("onnx runtime", "ok", found[0])


def _model(settings: Settings) -> Check:
    """Load it as configured and score a generated picture."""
    from vqmon.scorers import load_scorer

    wanted = settings.scorer
    try:
        scorer = load_scorer(wanted.model, device=wanted.device, threads=wanted.threads)
        quality, seconds = _score_once(scorer)
    except VqmonError as error:
        return Check("model", "fail", str(error), "See the message; `scorer:` in the settings.")
    if quality is None:
        return Check("model", "fail", f"{scorer.model} gives no score", "Export the model again.")
    found = f"{scorer.model} on {wanted.device}, {seconds * 1000:.0f} ms a picture of 640x360"
    if seconds > _SCORE_SECONDS:
        return Check("model", "warn", found, "This machine is slow, or busy: watch fewer streams.")
    return Check("model", "ok", found)


def _score_once(scorer: Any) -> tuple[float | None, float]:
    """Quality of a generated picture and the seconds it took, preprocessing included."""
    import time

    from vqmon.domain import Frame, Stream
    from vqmon.preprocess import prepare
    from vqmon.sources import open_source

    source = open_source(Stream("doctor", "synthetic:?seconds=1"))
    with source.open() as media:
        frame = next(item for item in media if isinstance(item, Frame))
        scorer.assess([prepare(frame)])
        began = time.perf_counter()
        [assessment] = scorer.assess([prepare(frame)])
    return assessment.quality, time.perf_counter() - began


def _gpu(settings: Settings) -> Check:
    """ONNX Runtime lists CUDA without a driver too, so only a session on it proves it."""
    wanted = settings.scorer.device != "cpu"
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
    if not wanted and not _lists_cuda():
        hint = "pip install 'vqmon[gpu]' in place of 'vqmon[cpu]' to use it" if cards else ""
        return Check("gpu", "ok", f"not used; {len(cards) or 'no'} NVIDIA card(s) seen", hint)
    from vqmon.scorers import load_scorer

    device = settings.scorer.device if wanted else "cuda"
    try:
        load_scorer(settings.scorer.model, device=device)
    except VqmonError as error:
        status: Literal["warn", "fail"] = "fail" if wanted else "warn"
        return Check("gpu", status, str(error), "Or set scorer.device to cpu.")
    return Check("gpu", "ok", f"a session runs on {device}")


def _lists_cuda() -> bool:
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _data_folder(settings: Settings) -> Check:
    """Writable, or can be made. Nothing is left behind."""
    folder = _existing(settings.data_dir)
    try:
        if not settings.data_dir.is_dir() and settings.data_dir.exists():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(
            "data folder",
            "fail",
            f"{settings.data_dir}: {error.strerror or error}",
            f"Make {folder} writable for user {_user()}, or set data_dir to another folder.",
        )
    made = "writable" if folder == settings.data_dir else "will be made at the first run"
    return Check("data folder", "ok", f"{settings.data_dir} ({made})")


def _free_disk(settings: Settings) -> Check:
    usage = shutil.disk_usage(_existing(settings.data_dir))
    percent, least = 100 * usage.free / usage.total, settings.retention.min_free_percent
    found = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB ({percent:.0f} %)"
    if percent < least:
        return Check(
            "free disk",
            "fail",
            found,
            f"Below {least:g} % no pictures are kept: free space, or lower retention.segments.",
        )
    if percent < 2 * least:
        return Check("free disk", "warn", found, f"Pictures stop at {least:g} %: free space soon.")
    return Check("free disk", "ok", found)


def _database(settings: Settings) -> Check:
    """Reached, and of which schema; nothing is made or changed."""
    from vqmon.sources import redact
    from vqmon.store import schema_version

    shown = redact(settings.database)
    file = settings.database_file
    if file and not file.exists():
        return Check("database", "ok", f"{shown} will be made at the first run")
    try:
        version = schema_version(settings.database)
    except VqmonError as error:
        return Check("database", "fail", str(error), "See `database` in the settings.")
    if version is None:
        return Check("database", "ok", f"{shown} is empty; tables are made at the first run")
    return Check("database", "ok", f"{shown}, schema {version}")


def _open_files(settings: Settings) -> Check:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(_OPEN_FILES, 8 * len(settings.streams))
    if 0 <= limit < needed:
        return Check("open files", "warn", f"limit {limit}", f"Raise it: ulimit -n {needed}")
    return Check("open files", "ok", f"limit {limit if limit >= 0 else 'none'}")


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(it for it in (folder, *folder.parents) if it.is_dir())


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return str(os.getuid())
