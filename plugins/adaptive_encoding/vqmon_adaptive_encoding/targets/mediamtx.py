"""A Raspberry Pi camera behind MediaMTX, whose hardware encoder changes its bitrate while it runs.

Written to the published protocol: the Control API of https://github.com/bluenviron/mediamtx,
`api/openapi.yaml`, operations `configPathsGet` and `configPathsPatch`. Of a path's settings,
`rpiCameraBitrate` (bits per second) is among those that the server passes to the running camera
without closing the path and so without losing a reader (pull request 2764 there, "allow to change
bitrate and IDR period dynamically"; `pathConfCanBeUpdated` in `internal/core/path_manager.go`
lists them). Authentication is HTTP basic, for a user with the permission `api`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from vqmon_adaptive_encoding.settings import MediaMTXSettings
from vqmon_adaptive_encoding.targets.request import Request, TargetFailed

DEADLINE_SECONDS = 4.0


class MediaMTX:
    """The cap becomes the camera's bitrate."""

    live = True

    def __init__(self, settings: MediaMTXSettings) -> None:
        self._settings = settings
        self._path = quote(settings.path, safe="/")

    def ask(self, request: Request) -> bool:
        wanted = 1000 * request.level.cap_kbps
        source = self._call("GET", "get").get("source")
        if source != "rpiCamera":
            raise TargetFailed(
                f"path {self._settings.path!r} comes from {source!r}; only rpiCamera can change "
                "its bitrate while it runs"
            )
        self._call("PATCH", "patch", {"rpiCameraBitrate": wanted})
        runs_at = self._call("GET", "get").get("rpiCameraBitrate")
        if runs_at != wanted:
            raise TargetFailed(
                f"path {self._settings.path!r} stays at {runs_at} b/s, {wanted} were asked for"
            )
        return True

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime:  # noqa: ARG002
        return asked_at

    def _call(self, method: str, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object of the answer, {} when it has none."""
        import httpx

        url = f"{self._settings.url}/v3/config/paths/{verb}/{self._path}"
        try:
            answer = httpx.request(
                method, url, json=body, auth=self._auth(), timeout=DEADLINE_SECONDS
            )
        except httpx.HTTPError as error:
            raise TargetFailed(f"{url}: {error or type(error).__name__}") from error
        said = _object(answer)
        if answer.status_code != httpx.codes.OK:
            detail = said.get("error") or answer.reason_phrase
            raise TargetFailed(f"{url}: {answer.status_code} {detail}")
        return said

    def _auth(self) -> tuple[str, str] | None:
        if self._settings.user is None:
            return None
        password = self._settings.password
        return self._settings.user, password.get_secret_value() if password else ""


def _object(answer: Any) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
