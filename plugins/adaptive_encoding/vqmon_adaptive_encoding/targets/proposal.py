"""An encoder that must stop to change: a person is told what to change, and nothing is done.

ffmpeg is one. Its interactive `c` and `C` commands, and its `zmq` and `sendcmd` filters, reach
filters only: no command of the ffmpeg program reaches an encoder that is open (tried with
ffmpeg 5.1 of Debian 12, see `tests/contract/test_adaptive_encoding_ffmpeg.py`). So a bitrate
changes with a restart, which viewers see, and which is not for a program to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from vqmon import VqmonError
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.targets.request import Messages, Request, TargetFailed

BUFFER_SECONDS = 2
"""Of the rate control's buffer; what most players hold."""

LEAST_CRF, CRF_PER_QUALITY = 33.0, 1.7
"""Quality 1 is CRF 31, 10 is CRF 16: from visibly coded to visually lossless for x264."""


class Proposal:
    """Tells the notifier, if there is one; the decision itself is recorded in any case."""

    live = False

    def __init__(
        self, notifier: str | None, messages: Messages, advice: Callable[[Level], str]
    ) -> None:
        self._notifier = notifier
        self._messages = messages
        self._advice = advice

    def ask(self, request: Request) -> bool:
        if self._notifier is None:
            return True
        payload = request.as_json() | {"advice": self._advice(request.level)}
        try:
            self._messages.notify(
                self._notifier, payload, event_id=request.id, stream=request.stream
            )
        except VqmonError as error:
            raise TargetFailed(f"notifier {self._notifier!r}: {error}") from error
        return True

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime:  # noqa: ARG002
        return asked_at

    def advice(self, level: Level) -> str:
        """What a person would have to do for this level."""
        return self._advice(level)


def ffmpeg_advice(codec: str) -> Callable[[Level], str]:
    """The options of an ffmpeg command line that stand for a level: quality by CRF, capped."""

    def advice(level: Level) -> str:
        crf = LEAST_CRF - CRF_PER_QUALITY * level.quality
        return (
            "restart ffmpeg, at a moment when viewers may see it, with "
            f"-c:v {codec} -crf {crf:.1f} -maxrate {level.cap_kbps}k "
            f"-bufsize {BUFFER_SECONDS * level.cap_kbps}k"
        )

    return advice


def plain_advice(level: Level) -> str:
    return f"set the encoder to {level}"
