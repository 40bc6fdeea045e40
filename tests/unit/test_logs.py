"""Log lines: one event, one line, fields by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from vqmon.logs import to_stderr

log = logging.getLogger("vqmon.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("vqmon")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_text_lines_show_fields_that_can_be_searched_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`grep stream=lobby`; a text with spaces or line ends stays one word on one line."""
    to_stderr("info")

    log.warning("stream_lost", extra={"stream": "lobby", "error": "no\nroute = x", "empty": ""})

    [line] = capsys.readouterr().err.splitlines()
    assert line.split(" ", 1)[1] == (
        'warning stream_lost stream=lobby error="no\\nroute = x" empty=""'
    )


def test_json_lines_are_objects(capsys: pytest.CaptureFixture[str]) -> None:
    """For collectors; what JSON does not know becomes text."""
    to_stderr("info", "json")

    log.info("stream_up", extra={"stream": "é", "attempt": 3, "where": object})

    told = json.loads(capsys.readouterr().err)
    assert told["event"] == "stream_up"
    assert (told["level"], told["logger"]) == ("info", "vqmon.test")
    assert (told["stream"], told["attempt"]) == ("é", 3)
    assert told["time"].endswith("+00:00")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_kept(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`log.exception` is used where failures are contained."""
    to_stderr("info", form)

    try:
        float("odd")
    except ValueError:
        log.exception("check_failed")

    told = capsys.readouterr().err
    assert "could not convert string" in told
    assert form == "text" or "Traceback" in json.loads(told)["traceback"]


def test_levels_hold_for_vqmon_and_others_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    """A debugging operator does not want every library's chatter."""
    to_stderr("debug")

    log.debug("seen")
    logging.getLogger("httpx").info("unseen")
    to_stderr("error")
    log.warning("unseen")

    assert capsys.readouterr().err.count("seen") == 1
