"""Where a fault begins and how bad it is: one table for all of them.

`SCALES[name]` says from which value on there is a finding, and at which values its severity
becomes 2, 3, 4 and 5. Severity never falls while a fault gets longer or larger.

| fault | value | limit | 2 / 3 / 4 / 5 | why |
|---|---|---|---|---|
| black | seconds | 0.5 | 2 / 5 / 10 / 30 | cuts between programmes show up to 0.3 s of black |
| freeze | seconds | 2 | 2 / 5 / 10 / 30 | shorter holds are stutter |
| slate | seconds | 30 | 30 / 60 / 300 / 1800 | shorter stills are titles and idents |
| stutter | longest hold, s | 0.25 | 0.4 / 0.8 / 1.5 / 3 | a hold of 0.2 s is about the first that viewers name |
| underfed | % of real time | < 70 | 70 / 55 / 40 / 20 | over 45 s; a player's buffer is empty by then |
| bitrate_collapse | % of usual | < 35 | 35 / 25 / 15 / 7 | a ladder's neighbouring rungs differ by less |
| packet_loss | % of packets | > 0.05 | 0.5 / 2 / 8 / 25 | of whole pictures: 0.05 / 0.5 / 2 % of lost \
MPEG-TS packets damaged 2 / 18 / 50 % of them at 1.5 Mb/s |
| corrupted | % of pictures | > 0 | 2 / 10 / 30 / 60 | a decoder that reports damage is right |
| timestamp_jump | seconds | 1 | 1 / 10 / 600 / - | a player drops its buffer at such a step; back: any |
| format_changed | (see transport) | | | |
| audio_silence | seconds | 5 | 5 / 10 / 30 / 120 | below -60 dBFS; pauses in speech are shorter |
| audio_silence, when nothing was heard since the watch began | seconds | 30 | 300 / - / - / - | \
many cameras carry a mute track for ever |
| audio_loudness high | LUFS over 10 s | -9 | -7 / -5 / -3 / - | 5 LU over -14, the loudest delivery norm |
| audio_loudness low | LUFS over 30 s | < -40 | -44 / -50 / -55 / - | 17 LU under EBU R128's -23, 24 under -16 |
| audio_clipping | % of samples | 0.5 | 1 / 3 / 10 / 30 | limiters of loud masters stay below 0.1 % |
| overload | % of pictures | 5 | 10 / 25 / 50 / 75 | vqmon's own: pictures left undecoded |
"""

from __future__ import annotations

from dataclasses import dataclass

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Scale:
    """How a measured value becomes a severity.

    limit: a value beyond it is a finding; unit: of value and limit.
    steps: from which value on the severity is 2, 3, 4, 5.
    rising: True when larger is worse, False when smaller is.
    """

    limit: float
    unit: str
    steps: tuple[float, float, float, float]
    rising: bool = True

    def severity(self, value: float) -> int:
        """1 to 5; monotone in the value."""
        if self.rising:
            return 1 + sum(value >= step for step in self.steps)
        return 1 + sum(value <= step for step in self.steps)


SCALES: dict[str, Scale] = {
    "black": Scale(0.5, "s", (2, 5, 10, 30)),
    "freeze": Scale(2.0, "s", (2, 5, 10, 30)),
    "slate": Scale(30.0, "s", (30, 60, 300, 1800)),
    "stutter": Scale(0.25, "s", (0.4, 0.8, 1.5, 3)),
    "underfed": Scale(70.0, "% of real time", (70, 55, 40, 20), rising=False),
    "bitrate_collapse": Scale(35.0, "% of usual", (35, 25, 15, 7), rising=False),
    "packet_loss": Scale(0.05, "% of packets", (0.5, 2, 8, 25)),
    "corrupted": Scale(0.0, "% of pictures", (2, 10, 30, 60)),
    "timestamp_jump": Scale(1.0, "s", (1, 10, 600, NEVER)),
    "audio_silence": Scale(5.0, "s", (5, 10, 30, 120)),
    "audio_unheard": Scale(30.0, "s", (300, NEVER, NEVER, NEVER)),
    "audio_loud": Scale(-9.0, "LUFS", (-7, -5, -3, NEVER)),
    "audio_quiet": Scale(-40.0, "LUFS", (-44, -50, -55, -NEVER), rising=False),
    "audio_clipping": Scale(0.5, "% of samples", (1, 3, 10, 30)),
    "overload": Scale(5.0, "% of pictures", (10, 25, 50, 75)),
}
