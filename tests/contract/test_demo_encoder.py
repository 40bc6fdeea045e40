"""The reference encoder as a process: what viewers get while it obeys a signed webhook."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from standardwebhooks.webhooks import Webhook

from vqmon.demo.broadcast import serve
from vqmon.demo.commands import Command, Commands, answering
from vqmon.demo.encoder import Order
from vqmon.demo.loop import encoder
from vqmon.demo.studio import GOP, HEIGHT, RATE, WIDTH, Aim, Studio
from vqmon.sources.scene import make_scene

SECRET = "whsec_" + base64.b64encode(b"encoder and vqmon share this key").decode()


def asked(url: str, quality: float, cap_kbps: int, id_: str = "msg_1") -> dict[str, Any]:
    """Signed by the official library, not by ours; the answer."""
    body = json.dumps(
        {
            "type": "vqmon.adaptive_encoding",
            "version": 1,
            "decision": id_,
            "stream": "demo",
            "action": "raise",
            "quality": quality,
            "cap_kbps": cap_kbps,
        }
    )
    now = datetime.now(UTC)
    headers = {
        "webhook-id": id_,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(id_, now, body),
    }
    request = urllib.request.Request(url, body.encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def state(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


@dataclass
class Seen:
    """What a viewer got: (seconds, bytes, key) of each video packet, decoded pictures, complaints."""

    packets: list[tuple[float, int, bool]] = field(default_factory=list)
    pictures: int = 0
    damaged: int = 0

    def kbps(self, begin: float, end: float) -> float:
        """From one keyframe on to another."""
        return sum(size for at, size, _ in self.packets if begin <= at < end) / 125 / (end - begin)

    @property
    def gaps(self) -> set[float]:
        return {round(b[0] - a[0], 4) for a, b in pairwise(self.packets)}


def viewed(source: Any, until: Callable[[Seen], bool]) -> Seen:
    """Demuxed and decoded as strictly as FFmpeg can."""
    seen = Seen()
    strict = {"err_detect": "explode+crccheck+bitstream+buffer"}
    with av.open(source, options=strict, timeout=30) as container:
        video = container.streams.video[0]
        video.codec_context.options = strict
        for packet in container.demux(video):
            if packet.pts is None or packet.time_base is None:
                continue
            seen.packets.append(
                (float(packet.pts * packet.time_base), packet.size, packet.is_keyframe)
            )
            for frame in packet.decode():
                seen.pictures += 1
                seen.damaged += frame.is_corrupt
            if until(seen):
                break
    return seen


def test_the_bitrate_changes_at_a_keyframe_and_nothing_else_does() -> None:
    """Timestamps go on evenly, every picture decodes, keyframes come when they were due."""
    sink = BytesIO()
    studio, scene = Studio(sink, Aim(24.5, 220)), make_scene(WIDTH, HEIGHT)
    for number in range(4 * GOP):
        if number == 2 * GOP - 20:
            studio.aim = Aim(19.4, 1500)
        studio.show(number, scene.render(number / RATE * 4))
    sink.seek(0)

    seen = viewed(sink, lambda _: False)

    first = seen.packets[0][0]
    assert seen.gaps == {1 / RATE}
    assert seen.damaged == 0
    assert seen.pictures >= 4 * GOP - 2  # the last ones may lie in the multiplexer still
    keys = [round((at - first) * RATE) for at, _, key in seen.packets if key]
    assert keys == list(range(0, 4 * GOP, GOP))
    border = first + 2 * GOP / RATE
    before, after = seen.kbps(first, border), seen.kbps(border, border + 2 * GOP / RATE)
    assert before < 300
    assert after > 2.5 * before


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., dict[str, str]]]:
    """Starts an encoder whose content is hard from the beginning; its addresses."""
    with ExitStack() as stack:

        def start(**changed: Any) -> dict[str, str]:
            order = replace(Order("demo", SECRET, 5.0, 220, harder_at=0.0), **changed)
            return stack.enter_context(encoder(order, tmp_path / "log"))

        yield start


def test_a_viewer_sees_no_gap_while_the_encoder_obeys(
    running: Callable[..., dict[str, str]],
) -> None:
    """The whole way as in production: process, socket, signature, encoder, multiplexer, viewer."""
    urls = running()
    told: list[dict[str, Any]] = []
    ask = threading.Thread(
        target=lambda: told.append(asked(urls["commands"], 8, 1500)), daemon=True
    )
    changed: list[int] = []

    def a_group_later(seen: Seen) -> bool:
        """A whole group of pictures begun after the answer has been seen."""
        count = len(seen.packets)
        if count == GOP + 1:
            ask.start()
        if told and not changed:
            changed.append((count // GOP + 2) * GOP)  # what is under way is behind by less
        return bool(changed) and count >= changed[0] + GOP

    seen = viewed(urls["live"], a_group_later)

    assert told == [{"done": "raise to be done"}]
    assert seen.gaps == {1 / RATE}
    assert seen.damaged == 0
    assert seen.pictures >= len(seen.packets) - 2
    first = seen.packets[0][0]
    before = seen.kbps(first, first + GOP / RATE)
    border = first + changed[0] / RATE
    assert seen.kbps(border, border + GOP / RATE) > 2.5 * before


def test_a_message_that_comes_twice_is_done_once(running: Callable[..., dict[str, str]]) -> None:
    """A sender that did not hear the answer sends again, under the same id."""
    url = running()["commands"]

    asked(url, 8, 1500)
    again = asked(url, 8, 1500)

    assert again == {"done": "done already"}
    assert [it["cap_kbps"] for it in state(url)["heard"]] == [1500]
    assert (state(url)["crf"], state(url)["cap_kbps"]) == (19.4, 1500)


def test_an_encoder_told_to_ignore_says_yes_and_stays(
    running: Callable[..., dict[str, str]],
) -> None:
    """What the roll-back is shown with."""
    url = running(obeys=False)["commands"]

    assert asked(url, 8, 1500) == {"done": "raise to be done"}

    assert state(url)["cap_kbps"] == 220
    assert len(state(url)["heard"]) == 1


@pytest.mark.parametrize(
    ("length", "status"), [("0", 401), (None, 411), ("-1", 411), ("x", 411), ("999999", 413)]
)
def test_a_stranger_is_answered_and_not_obeyed(length: str | None, status: int) -> None:
    """Before a byte of the body is read: anybody who reaches the port can send headers."""
    done: list[Command] = []
    port = serve(answering(Commands(SECRET, "demo", done.append), dict))
    connection = HTTPConnection("127.0.0.1", port, timeout=10)

    connection.putrequest("POST", "/")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    answer = connection.getresponse()

    assert answer.status == status
    assert json.load(answer).keys() == {"error"}
    assert done == []
