"""The daemon: watches all configured streams until it is told to stop.

    run ─▶ lock ─▶ database ─▶ Supervisor ─┬─▶ ingest processes, a few streams each   (ingest)
                                           ├─▶ scoring process, for all of them       (scoring)
                                           ├─▶ delivery process, a thread per target  (delivering)
                                           ├─▶ journal and writer of rows             (journal)
                                           └─▶ calendar: visits, housekeeping         (visits)

Every process dies with the supervisor; every process but the supervisor can die alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqmon.domain import AlertEvent, Segment
    from vqmon.settings import Settings

__all__ = ["run"]


def run(
    settings: Settings,
    *,
    standby: bool = False,
    config_path: Path | None = None,
    data_dir: Path | None = None,
    duration: float | None = None,
    on_segment: Callable[[Segment], None] | None = None,
    on_event: Callable[[AlertEvent], None] | None = None,
) -> int:
    """Watch the streams of `settings` until SIGTERM or SIGINT; return the exit code.

    standby: wait while another daemon is active on the database under this instance name.
    config_path: read again on SIGHUP and when its content changes; data_dir: what the command
    line gave, which then still wins. duration: stop after so many seconds. on_segment: told of
    every row, on_event of every alert that is told, once it is stored; both in the supervisor's
    thread, and must be quick.

    Raises AlreadyRunning, StoreError or ScorerError when it cannot begin; the text says what
    to do.
    """
    from vqmon.daemon.starting import start

    return start(
        settings,
        standby=standby,
        config_path=config_path,
        data_dir=data_dir,
        duration=duration,
        on_segment=on_segment,
        on_event=on_event,
    )
