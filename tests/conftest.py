"""What all tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: every server that tests need is installed there."""
    report = yield
    if os.environ.get("VQMON_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Generator[None]:
    """Commands run inside a test set up logging; what later tests listen for must still come."""
    root, ours = logging.getLogger(), logging.getLogger("vqmon")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers = [h for h in root.handlers if h in handlers] + [
        h for h in handlers if h not in root.handlers
    ]
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Generator[None]:
    """SVT-AV1 makes its caller a real-time process where it may (as root), and the servers and
    daemons of later tests would inherit that.
    """
    _become_ordinary()
    yield
    _become_ordinary()


def _become_ordinary() -> None:
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
