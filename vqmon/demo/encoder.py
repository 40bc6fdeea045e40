"""A reference encoder: a live channel on loopback that obeys signed webhooks without a gap.

    camera ─▶ x264 at the level asked for + AAC ─▶ MPEG-TS ─▶ HTTP
                 ▲
    webhook ─▶ commands: signature, age, done before?

`vqmon demo --loop` starts it as a program. The first line of its standard input is an Order as
JSON, which holds the secret, so that no process list shows it; it prints its two addresses as
JSON, waits for the first viewer, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vqmon.demo.broadcast import Channel, Wire, serve, viewing
from vqmon.demo.commands import Command, Commands, answering
from vqmon.demo.studio import HEIGHT, RATE, WIDTH, Aim, Studio
from vqmon.sources.impairments import Planes
from vqmon.sources.scene import Scene, make_scene

CALM, WILD = 0.1, 8.0
"""How fast the camera turns, in multiples of the scene's own speed."""

FROM_SECONDS = 10.0
"""Where in the scene the programme begins."""

LEAST_CRF, CRF_PER_QUALITY = 33.0, 1.7
"""Quality 1 is CRF 31, 10 is CRF 16: from visibly coded to visually lossless."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an encoder is told when it starts.

    quality, cap_kbps: the level it begins with. harder_at: seconds of the programme after which
    the camera turns fast. obeys: False answers commands as if they were done, and does nothing.
    commands_port: 0 for any that is free; None has no ear for commands at all.
    """

    stream: str
    secret: str
    quality: float
    cap_kbps: int
    harder_at: float
    obeys: bool = True
    commands_port: int | None = 0

    @property
    def aim(self) -> Aim:
        return aim_of(self.quality, self.cap_kbps)


class Encoder:
    """One live channel and what it has been asked for."""

    def __init__(self, order: Order, channel: Channel) -> None:
        self._order = order
        self._channel = channel
        self._aim = order.aim
        self._heard: list[Mapping[str, Any]] = []
        self._number = 0

    def obey(self, command: Command) -> None:
        """From the next group of pictures on; called by whoever takes commands."""
        heard = {"at": datetime.now(UTC).isoformat(), "seconds": self._number / RATE}
        self._heard.append(asdict(command) | heard)
        if self._order.obeys:
            self._aim = aim_of(command.quality, command.cap_kbps)

    def state(self) -> dict[str, Any]:
        """How it runs: crf and cap_kbps as encoded, seconds on air, and what was heard when."""
        return {
            "crf": self._aim.crf,
            "cap_kbps": self._aim.cap_kbps,
            "heard": list(self._heard),
            "seconds": round(self._number / RATE, 2),
        }

    def run(self) -> None:
        """The programme in real time, from the moment the first viewer joins; never returns."""
        camera = Camera(make_scene(WIDTH, HEIGHT), self._order.harder_at)
        self._channel.first_viewer.wait()
        studio = Studio(Wire(self._channel), self._aim)
        began = time.monotonic()
        while True:
            position = self._number / RATE
            time.sleep(max(0.0, began + position - time.monotonic()))
            studio.aim = self._aim
            studio.show(self._number, camera.picture(position))
            self._number += 1


class Camera:
    """Turns slowly, and from a moment on fast, which takes far more bits at the same quality."""

    def __init__(self, scene: Scene, harder_at: float) -> None:
        self._scene = scene
        self._harder_at = harder_at

    def picture(self, position: float) -> Planes:
        calm = min(position, self._harder_at)
        return self._scene.render(FROM_SECONDS + CALM * calm + WILD * (position - calm))


def aim_of(quality: float, cap_kbps: int) -> Aim:
    """A level in the words of x264. quality: 1 to 10."""
    return Aim(round(LEAST_CRF - CRF_PER_QUALITY * quality, 1), cap_kbps)


def main() -> None:
    """Encode until standard input ends."""
    order = Order(**json.loads(sys.stdin.readline()))
    channel = Channel()
    encoder = Encoder(order, channel)
    addresses = {"live": f"http://127.0.0.1:{serve(viewing(channel))}/live.ts"}
    if order.commands_port is not None:
        commands = Commands(order.secret, order.stream, encoder.obey)
        port = serve(answering(commands, encoder.state), order.commands_port)
        addresses["commands"] = f"http://127.0.0.1:{port}/"
    threading.Thread(target=_run, args=(encoder,), daemon=True).start()
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()
    os._exit(0)


def _run(encoder: Encoder) -> None:
    try:
        encoder.run()
    except BaseException as error:
        # A thread's end would leave viewers hanging: end the program, and say why.
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
