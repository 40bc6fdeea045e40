"""The process of one plugin: makes it, calls it, tells the supervisor how that went."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from vqmon.daemon.messages import Said
from vqmon.daemon.processes import Forwarding, bind_to_supervisor, send_safely
from vqmon.plugins.calls import Call
from vqmon.plugins.context import Context, PluginPlan
from vqmon.plugins.finding import load
from vqmon.plugins.limits import limit_memory
from vqmon.plugins.validating import validated
from vqmon.ports import Plugin

log = logging.getLogger("vqmon.plugins")

NICE = 5
"""Watching streams goes before what plugins do."""

LINES_AT_ONCE = 100
LINES_PER_SECOND = 5.0
TELL_SECONDS = 10.0
"""How often it is said that lines were left out."""

LONGEST_TEXT = 4000


@dataclass(frozen=True, slots=True)
class Targets:
    """To the process: the names under `notifiers:` are these now."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """To the process: end in order."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the process: the plugin is made and waits for calls."""


@dataclass(frozen=True, slots=True)
class Done:
    """From the process: the call has returned."""


@dataclass(frozen=True, slots=True)
class Raised:
    """From the process: the plugin raised, so the process ends. text: for people."""

    text: str


def main(pipe: Connection, plan: PluginPlan, targets: Sequence[str]) -> None:
    """The main function of the process; never returns."""
    bind_to_supervisor(f"vqmon-plugin-{plan.name}")
    os.nice(NICE)
    limit_memory(plan.memory)
    send = send_safely(pipe, threading.Lock())
    lines = _Lines.install(send, plan)
    context = Context(plan, targets)
    try:
        _serve(pipe, send, plan, context, lines)
    except MemoryError:
        send(Raised("it needs more `memory` than it may have"))
    except (Exception, SystemExit) as error:
        log.exception("plugin_raised")
        send(Raised(_shortened(f"{type(error).__name__}: {error}")))
    lines.settle()
    context.close()
    # Threads of the plugin may be anywhere, where an orderly exit would wait for them.
    os._exit(0)


def _serve(
    pipe: Connection,
    send: Callable[[object], None],
    plan: PluginPlan,
    context: Context,
    lines: _Lines,
) -> None:
    """Until told to stop, or the supervisor is gone."""
    plugin = _made(plan, context)
    send(Ready())
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return
        match order:
            case Call():
                getattr(plugin, order.hook)(order.about)
                lines.settle()
                send(Done())
            case Targets():
                context.targets = order.names
            case Stop():
                plugin.stopping()
                return


def _made(plan: PluginPlan, context: Context) -> Plugin:
    kind = load(plan.found)
    logging.getLogger(kind.__module__.partition(".")[0]).setLevel(plan.log_level)
    return kind(context, validated(kind, plan.settings, plan.folder))


class _Lines(Forwarding):
    """The plugin's log lines, and what it prints, as the supervisor's: only so many, so long."""

    def __init__(self, send: Callable[[Said], object], plugin: str) -> None:
        super().__init__(lambda said: send(_named(said, plugin)))
        self._room = float(LINES_AT_ONCE)
        self._looked = time.monotonic()
        self._dropped = 0
        self._told = float("-inf")

    @classmethod
    def install(cls, send: Callable[[Said], object], plan: PluginPlan) -> _Lines:  # type: ignore[override]
        """For all loggers of this process; libraries are heard from warnings on."""
        lines = cls(send, plan.name)
        root = logging.getLogger()
        root.handlers = [lines]
        root.setLevel(logging.WARNING)
        logging.getLogger("vqmon.plugins").setLevel(plan.log_level)
        printed = logging.getLogger("vqmon.plugins.printed")
        sys.stdout = _Printed(printed)
        sys.stderr = _Printed(printed)
        return lines

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        self._room = min(LINES_AT_ONCE, self._room + LINES_PER_SECOND * (now - self._looked))
        self._looked = now
        if self._room < 1.0:
            self._dropped += 1
            return
        self._room -= 1.0
        super().emit(record)

    def settle(self) -> None:
        """Say how many lines were left out since it was last said."""
        now = time.monotonic()
        if self._dropped and now - self._told > TELL_SECONDS:
            dropped, self._dropped, self._told = self._dropped, 0, now
            self._room = max(self._room, 1.0)
            log.warning("plugin_lines_dropped", extra={"lines": dropped})


class _Printed(io.TextIOBase):
    """What a plugin prints, line by line; native code still writes to standard error itself."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text)[-100 * LONGEST_TEXT :].split("\n")
        for line in lines:
            if line.strip():
                self._logger.info("plugin_printed", extra={"text": line})
        return len(text)

    def writable(self) -> bool:
        return True


def _named(said: Said, plugin: str) -> Said:
    """The line under the plugin's name, no longer than a line should be."""
    record = said.record
    fields: dict[str, Any] = record.__dict__
    fields["name"] = "vqmon.plugins"
    fields["plugin"] = plugin
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _shortened(value)
    return said


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."
