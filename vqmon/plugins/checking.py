"""Plugins and their settings, checked before the daemon relies on them.

Each is imported and asked in a short-lived process, so that nothing of it remains here, and one
that dies, hangs or eats memory when it is imported harms nobody:

    python -m vqmon.plugins.checking  < {"found": ..., "settings": ...}  > {"mistakes": ..., ...}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqmon.configfile import KeyPath, nearest
from vqmon.errors import PluginUnusable
from vqmon.plugins.finding import Found, find, load
from vqmon.plugins.limits import limit_memory
from vqmon.plugins.validating import Mistake, SettingsRefused, validated
from vqmon.settings import Settings

PATIENCE = 30.0
"""Seconds to import a plugin; a loaded machine imports slowly."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plugin to check. settings: None asks only whether it can be imported."""

    found: Found
    settings: Mapping[str, Any] | None
    memory: int


@dataclass(frozen=True, slots=True)
class Checked:
    """unusable: why its code cannot be used, empty when it can. title: what it says it does."""

    mistakes: tuple[Mistake, ...] = ()
    unusable: str = ""
    title: str = ""


def check(
    wanted: Mapping[str, Wanted], folder: Path, *, patience: float = PATIENCE
) -> dict[str, Checked]:
    """Check all at the same time, each within `patience` seconds. folder: of the configuration."""
    if not wanted:
        return {}
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = pool.map(lambda it: _asked(it, folder, patience), wanted.values())
        return dict(zip(wanted, found, strict=True))


def check_configured(settings: Settings) -> dict[str, Checked]:
    """All plugins that the configuration enables; one that is not there is a mistake."""
    known = find(settings.plugins_dir)
    enabled = {name: it for name, it in settings.plugins.items() if it.enabled}
    wanted = {
        name: Wanted(known[name], it.own, it.memory)
        for name, it in enabled.items()
        if name in known
    }
    checked = check(wanted, settings.folder)
    return {
        name: checked[name] if name in checked else Checked((missing(name, known),))
        for name in enabled
    }


def missing(name: str, known: Iterable[str]) -> Mistake:
    """What to say of a plugin that is configured and not there."""
    names = list(known)
    meant = nearest(name, names)
    hint = f"did you mean {meant!r}?" if meant else f"there are: {', '.join(names) or 'none'}"
    return Mistake(
        (),
        f"is no plugin that is installed or in `plugins_dir`; {hint} (`vqmon plugins` lists them)",
        at_key=True,
    )


def _asked(wanted: Wanted, folder: Path, patience: float) -> Checked:
    question = {
        "found": asdict(wanted.found),
        "settings": None if wanted.settings is None else dict(wanted.settings),
        "folder": str(folder),
        "memory": wanted.memory,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vqmon.plugins.checking"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(json.dumps(question).encode(), patience)
    except subprocess.TimeoutExpired:
        return Checked(unusable="importing it takes too long; does it wait for something?")
    finally:
        _end(process)
    try:
        answer = json.loads(said)
        mistakes = tuple(Mistake(_path(it[0]), it[1], it[2]) for it in answer["mistakes"])
        return Checked(mistakes, answer["unusable"], answer["title"])
    except (ValueError, KeyError, TypeError):
        code = process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Checked(unusable=f"its process ended when it was imported ({how})")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With whatever the plugin has started, which would hold the pipe open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _path(parts: list[Any]) -> KeyPath:
    return tuple(it if isinstance(it, int) else str(it) for it in parts)


def main() -> None:
    """The checking process: one question on standard input, one answer on standard output."""
    question = json.load(sys.stdin)
    # What the plugin prints while it is imported is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limit_memory(question["memory"])
    checked = _examined(Found(**question["found"]), question["settings"], Path(question["folder"]))
    json.dump(
        {
            "mistakes": [[it.path, it.message, it.at_key] for it in checked.mistakes],
            "unusable": checked.unusable,
            "title": checked.title,
        },
        answers,
    )
    answers.flush()
    os._exit(0)  # threads that the plugin has begun are nobody's business


def _examined(found: Found, settings: Mapping[str, Any] | None, folder: Path) -> Checked:
    try:
        plugin = load(found)
    except (PluginUnusable, MemoryError) as error:
        message = error.message if isinstance(error, PluginUnusable) else "it needs more `memory`"
        return Checked(unusable=message)
    title = (plugin.__doc__ or "").strip().partition("\n")[0]
    try:
        if settings is not None:
            validated(plugin, settings, folder)
    except SettingsRefused as refused:
        return Checked(tuple(refused.mistakes), title=title)
    except Exception as error:
        return Checked(unusable=f"its settings model fails: {error!r}", title=title)
    return Checked(title=title)


if __name__ == "__main__":
    main()
