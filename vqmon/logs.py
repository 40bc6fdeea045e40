"""Log lines on standard error: for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def to_stderr(level: str = "info", form: str = "text") -> None:
    """Send the events of this process to standard error; a second call replaces the first.

    level: debug, info, warning or error. form: text or json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("vqmon").setLevel(level.upper())


class _Text(logging.Formatter):
    """``12:30:05 warning stream_lost stream=lobby reason=timeout_read``"""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        words = [f"{moment:%H:%M:%S}", record.levelname.lower(), record.getMessage()]
        words += [f"{name}={_word(value)}" for name, value in _fields(record).items()]
        return _with_traceback(self, record, " ".join(words))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line |= _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}


def _word(value: object) -> str:
    """One word, or a quoted text: a log line stays one line."""
    text = str(value)
    plain = text and not any(it in text for it in " \"'=\n\r\t")
    return text if plain else json.dumps(text, ensure_ascii=False)


def _with_traceback(formatter: logging.Formatter, record: logging.LogRecord, line: str) -> str:
    return f"{line}\n{formatter.formatException(record.exc_info)}" if record.exc_info else line
