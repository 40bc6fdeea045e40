"""A GStreamer encoder whose bitrate changes while it plays, through the control socket of
`gst_encoder.py`.
"""

from __future__ import annotations

import json
import socket
from datetime import datetime
from pathlib import Path

from vqmon_adaptive_encoding.targets.request import Request, TargetFailed

DEADLINE_SECONDS = 5.0
LONGEST_ANSWER = 4096


class GStreamer:
    """The cap becomes the encoder's bitrate; the quality is for encoders that know one."""

    live = True

    def __init__(self, control: Path) -> None:
        self._control = control

    def ask(self, request: Request) -> bool:
        wanted = request.level.cap_kbps
        answer = self._exchange({"id": request.id, "bitrate_kbps": wanted})
        if answer.get("error"):
            raise TargetFailed(f"{self._control}: {answer['error']}")
        if answer.get("bitrate_kbps") != wanted:
            raise TargetFailed(
                f"{self._control}: runs at {answer.get('bitrate_kbps')} kb/s, not at {wanted}"
            )
        return True

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime:  # noqa: ARG002
        return asked_at

    def _exchange(self, message: dict[str, object]) -> dict[str, object]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE_SECONDS)
                connection.connect(str(self._control))
                connection.sendall(json.dumps(message).encode() + b"\n")
                line = connection.makefile("rb").readline(LONGEST_ANSWER)
            answer = json.loads(line)
        except OSError as error:
            raise TargetFailed(f"{self._control}: {error.strerror or error}") from error
        except ValueError as error:
            raise TargetFailed(f"{self._control}: answers what is no JSON") from error
        if not isinstance(answer, dict):
            raise TargetFailed(f"{self._control}: answers what is no JSON object")
        return answer
