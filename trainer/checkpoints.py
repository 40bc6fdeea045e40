"""Save and load what training must not lose, and say where it came from.

A checkpoint is either there and whole, or not there: it is written beside its name and moved
into place. It holds tensors and plain values only, so that loading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


class CheckpointUnreadable(ValueError):
    """The file is missing, damaged or of another format; the text names file and remedy."""


def save(path: Path, held: Mapping[str, Any]) -> None:
    """Write `held`; a file of that name is replaced in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            torch.save({"format": FORMAT, **held}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """What `save` was given, tensors on the CPU. Raises CheckpointUnreadable."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointUnreadable(f"{path} does not exist: name a checkpoint") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise CheckpointUnreadable(
            f"{path} is damaged or no checkpoint ({str(error).splitlines()[0]}): "
            "delete it to start anew, or restore it"
        ) from error
    if not isinstance(held, dict) or held.pop("format", None) != FORMAT:
        raise CheckpointUnreadable(
            f"{path} is no checkpoint of format {FORMAT}: make it again with this checkout"
        )
    return held


def write_card(path: Path, *, seed: int, data: Mapping[str, Path], **facts: Any) -> None:
    """JSON beside a checkpoint: when, on what code, data and seed, with which figures.

    data: name -> file it was read from; kept with size and SHA-256. facts: JSON values; a figure
    that could not be told, NaN, becomes null.
    """
    card = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": seed,
        "data": {name: _identity(file) for name, file in data.items()},
        **facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_told(card), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_told(held) for held in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def commit() -> str | None:
    """The checkout's commit, "+changes" where it has been edited; None outside a checkout."""
    here = Path(__file__).parent
    try:
        name = _git(here, "rev-parse", "HEAD")
        edited = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}+changes" if edited else name


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _identity(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": digest}
