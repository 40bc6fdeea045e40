"""MediaMTX's Control API, emulated from its published OpenAPI description (operations
`configPathsGet` and `configPathsPatch`, schemas `PathConf`, `OK` and `Error`).
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from pydantic import SecretStr

from vqmon.testing import EPOCH
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.settings import MediaMTXSettings
from vqmon_adaptive_encoding.targets.mediamtx import MediaMTX
from vqmon_adaptive_encoding.targets.request import Request, TargetFailed

ROOT = "/v3/config/paths"
ASKED = Request("d1", "gate", "raise", Level(7, 4000), Level(5, 1500), "because", EPOCH)


@dataclass
class Server:
    """The settings of its paths, who may change them, and what was patched."""

    url: str = ""
    paths: dict[str, dict[str, Any]] = field(default_factory=dict)
    user: str | None = None
    patched: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    obeys: bool = True
    garbage: bool = False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        verb, _, name = path.removeprefix(f"{ROOT}/").partition("/")
        name = unquote(name)
        if (method, verb) not in {("GET", "get"), ("PATCH", "patch")}:
            return 404, {"status": "error", "error": "404 page not found"}
        if name not in self.paths:
            return 404, {"status": "error", "error": "path configuration not found"}
        if verb == "get":
            return 200, {"name": name, **self.paths[name]}
        wanted = json.loads(body)
        unknown = set(wanted) - set(self.paths[name])
        if unknown:
            return 400, {"status": "error", "error": f'json: unknown field "{unknown.pop()}"'}
        self.patched.append((name, wanted))
        if self.obeys:
            self.paths[name] |= wanted
        return 200, {"status": "ok"}


@pytest.fixture
def server() -> Iterator[Server]:
    emulated = Server(
        paths={
            "gate": {"source": "rpiCamera", "rpiCameraBitrate": 1_500_000},
            "yard/north": {"source": "rpiCamera", "rpiCameraBitrate": 1_500_000},
            "relay": {"source": "rtsp://10.0.0.7/main", "rpiCameraBitrate": 5_000_000},
        }
    )
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(emulated))
    http.daemon_threads = True
    emulated.url = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    yield emulated
    http.shutdown()
    http.server_close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if server.user and self.headers.get("Authorization") != _basic(server.user):
                return self._send(401, {"status": "error", "error": "authentication error"})
            return self._send(*server.answer(self.command, self.path, body))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            data = b"<html>" if server.garbage else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(user.encode()).decode()


def target(server: Server, path: str = "gate", **more: Any) -> MediaMTX:
    return MediaMTX(MediaMTXSettings(type="mediamtx", url=server.url, path=path, **more))


def test_the_camera_gets_the_cap_as_its_bitrate(server: Server) -> None:
    """In bits per second, and nothing else is touched: anything else would close the path."""
    target(server).ask(ASKED)

    assert server.patched == [("gate", {"rpiCameraBitrate": 4_000_000})]
    assert server.paths["gate"]["rpiCameraBitrate"] == 4_000_000


def test_a_path_name_with_a_slash_is_found(server: Server) -> None:
    target(server, "yard/north").ask(ASKED)

    assert server.paths["yard/north"]["rpiCameraBitrate"] == 4_000_000


def test_only_a_camera_of_its_own_can_change_while_it_runs(server: Server) -> None:
    """A relayed stream has no encoder here; patching it would do nothing and look like success."""
    with pytest.raises(TargetFailed, match="only rpiCamera"):
        target(server, "relay").ask(ASKED)

    assert server.patched == []


def test_the_user_of_the_api_is_let_in(server: Server) -> None:
    server.user = "vqmon:open sesame"

    target(server, user="vqmon", password=SecretStr("open sesame")).ask(ASKED)
    with pytest.raises(TargetFailed, match="401 authentication error"):
        target(server).ask(ASKED)


def test_failures_never_show_the_password(server: Server) -> None:
    server.user = "vqmon:other"

    with pytest.raises(TargetFailed) as caught:
        target(server, user="vqmon", password=SecretStr("open sesame")).ask(ASKED)

    assert "sesame" not in str(caught.value)


def test_what_the_server_says_is_passed_on(server: Server) -> None:
    with pytest.raises(TargetFailed, match="404 path configuration not found"):
        target(server, "nowhere").ask(ASKED)


def test_a_server_that_does_not_do_it_is_noticed(server: Server) -> None:
    server.obeys = False

    with pytest.raises(TargetFailed, match="stays at 1500000 b/s, 4000000 were asked for"):
        target(server).ask(ASKED)


def test_garbage_is_a_failure_not_a_crash(server: Server) -> None:
    server.garbage = True

    with pytest.raises(TargetFailed):
        target(server).ask(ASKED)


def test_a_server_that_is_gone_is_a_failure() -> None:
    gone = MediaMTXSettings(type="mediamtx", url="http://127.0.0.1:9", path="gate")

    with pytest.raises(TargetFailed, match=r"127\.0\.0\.1:9"):
        MediaMTX(gone).ask(ASKED)
