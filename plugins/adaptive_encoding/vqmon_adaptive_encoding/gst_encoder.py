"""A live GStreamer encoder whose bitrate can be changed without a gap.

Run by the Python that has GStreamer's bindings (Debian: python3-gi and gir1.2-gstreamer-1.0),
which is rarely that of a virtual environment; so this file imports the standard library alone:

    vqmon adaptive-encoding encoder --socket /run/news.sock --bitrate 1500 --launch '
        videotestsrc is-live=true ! x264enc name=encoder tune=zerolatency key-int-max=50
        ! h264parse ! mpegtsmux ! udpsink host=127.0.0.1 port=5000'

The pipeline is any that `gst-launch-1.0` takes, with one element named `encoder`. Each line
sent to the socket is a JSON object: `{"bitrate_kbps": 2500}` sets the bitrate, `{}` asks for it.
The answer is `{"bitrate_kbps": 2500}` or `{"error": "..."}`. Only the user that runs this
program, and root, may open the socket.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

LEAST_KBPS, MOST_KBPS = 10, 1_000_000
LONGEST_LINE = 4096


def main() -> int:
    """Play until told to stop (SIGTERM, SIGINT) or until the pipeline ends."""
    given = _arguments()
    glib, gst = _bindings()
    gst.init(None)
    try:
        pipeline = gst.parse_launch(given.launch)
    except glib.Error as error:
        return _failed(f"the pipeline cannot be built: {error.message}")
    encoder = pipeline.get_by_name("encoder")
    if encoder is None or encoder.find_property(given.property) is None:
        return _failed(f"the pipeline needs name=encoder on an element with {given.property!r}")
    control = Control(encoder, given.property, given.bits_per_unit)
    control.set_kbps(given.bitrate)
    with _listening(given.socket, control):
        return _play(glib, gst, pipeline)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A live encoder with a control socket.")
    parser.add_argument("--socket", required=True, help="path of the control socket")
    parser.add_argument("--launch", required=True, help="pipeline as for gst-launch-1.0")
    parser.add_argument("--bitrate", required=True, type=int, help="at the start, kb/s")
    parser.add_argument("--property", default="bitrate", help="of the element named encoder")
    parser.add_argument(
        "--bits-per-unit",
        type=int,
        default=1000,
        help="what 1 in that property means: 1000 for x264enc and x265enc, 1 for openh264enc",
    )
    return parser.parse_args()


def _bindings() -> tuple[Any, Any]:
    try:
        gi = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        glib = importlib.import_module("gi.repository.GLib")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError) as error:
        sys.exit(_failed(f"GStreamer's Python bindings are missing: {error}"))
    return glib, gst


def _failed(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 1


class Control:
    """Reads and sets the bitrate of the playing encoder."""

    def __init__(self, encoder: Any, name: str, bits_per_unit: int) -> None:
        self._encoder = encoder
        self._name = name
        self._bits_per_unit = bits_per_unit

    def kbps(self) -> int:
        return int(self._encoder.get_property(self._name) * self._bits_per_unit / 1000)

    def set_kbps(self, kbps: int) -> None:
        self._encoder.set_property(self._name, kbps * 1000 // self._bits_per_unit)

    def answer(self, line: bytes) -> dict[str, Any]:
        """To one line; never raises, since whoever sends nonsense must not stop the stream."""
        try:
            wanted = json.loads(line)["bitrate_kbps"] if line.strip() not in (b"{}", b"") else None
        except (ValueError, KeyError, TypeError):
            return {"error": 'send {"bitrate_kbps": N} or {}'}
        if wanted is None:
            return {"bitrate_kbps": self.kbps()}
        if type(wanted) is not int or not LEAST_KBPS <= wanted <= MOST_KBPS:
            return {"error": f"bitrate_kbps is a whole number from {LEAST_KBPS} to {MOST_KBPS}"}
        self.set_kbps(wanted)
        return {"bitrate_kbps": self.kbps()}


@contextlib.contextmanager
def _listening(path: str, control: Control) -> Any:
    class Session(socketserver.StreamRequestHandler):
        timeout = 5

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while line := self.rfile.readline(LONGEST_LINE):
                    self.wfile.write(json.dumps(control.answer(line)).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    Path(path).unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = Server(path, Session)
    finally:
        os.umask(before)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        Path(path).unlink(missing_ok=True)


def _play(glib: Any, gst: Any, pipeline: Any) -> int:
    loop = glib.MainLoop()
    outcome = [0]

    def on_message(_bus: Any, message: Any) -> None:
        if message.type == gst.MessageType.ERROR:
            outcome[0] = _failed(message.parse_error()[0].message)
            loop.quit()
        elif message.type == gst.MessageType.EOS:
            loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", on_message)
    for name in (signal.SIGTERM, signal.SIGINT):
        glib.unix_signal_add(glib.PRIORITY_HIGH, name, loop.quit)
    pipeline.set_state(gst.State.PLAYING)
    print("playing", file=sys.stderr, flush=True)  # standard output may carry the media
    loop.run()
    pipeline.set_state(gst.State.NULL)
    return outcome[0]


if __name__ == "__main__":
    sys.exit(main())
