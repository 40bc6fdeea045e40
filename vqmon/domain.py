"""What vqmon talks about: streams, frames, findings, assessments, segments. No I/O.

Two clocks. A *position* is media time: seconds since the first frame that vqmon saw of a
stream; it never goes back, whatever the source does. A ``datetime`` is wall-clock time and
always timezone-aware (UTC). Quality is 0 (worst) to 100 (best) everywhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

DEGRADATIONS = (
    "blur",
    "noise",
    "compression",
    "banding",
    "underexposed",
    "overexposed",
    "upscaled",
    "corrupted",
)
"""What can be wrong with a picture; the learned model's vocabulary. None of them is `clean`."""

FAULTS = (
    "black",
    "freeze",
    "stutter",
    "slate",
    "no_signal",
    "underfed",
    "bitrate_collapse",
    "timestamp_jump",
    "format_changed",
    "packet_loss",
    "audio_silence",
    "audio_loudness",
    "audio_clipping",
)
"""What can be wrong with a stream; measured, never learned."""

SELF_FAULTS = ("overload", "storage_low")
"""What can be wrong with vqmon itself: it had to look less closely, or its disk is nearly full."""

FINDING_NAMES = DEGRADATIONS + FAULTS + SELF_FAULTS

SEVERITY_WORDS = ("slight", "moderate", "obvious", "serious", "catastrophic")
"""Severity 1 to 5 in words: ``SEVERITY_WORDS[severity - 1]``."""

CELLS = (
    "top-left",
    "top",
    "top-right",
    "left",
    "centre",
    "right",
    "bottom-left",
    "bottom",
    "bottom-right",
)
"""The picture in thirds, row by row: where a finding is."""

DOWN_REASONS = (
    "refused",
    "dns",
    "auth",
    "not_found",
    "timeout_open",
    "timeout_read",
    "protocol_missing",
    "invalid_data",
    "eof",
    "decoder_missing",
    "bridge_missing",
)
"""Why a source gives nothing; a closed set, so that alerts and metrics can name it."""

NO_SCORE_REASONS = (
    *DOWN_REASONS,
    "no_video",
    "no_frames",
    "black",
    "unsupported_picture",
    "scorer_unavailable",
    "scorer_failed",
    "overload",
    "process_restarted",
    "visit_missed",
    "stopped",
)
"""Why a segment has no score; a closed set."""

EXPECTATIONS = ("still_pictures", "no_audio", "letterbox")
"""Content that an operator declares legitimate, so that it raises nothing."""


class Depth(IntEnum):
    """How much of a stream is decoded; demuxing always sees every packet."""

    KEYFRAMES = 0
    REFERENCE = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """Visit a stream for `seconds` out of every `every` seconds, instead of all the time."""

    every: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Stream:
    """One thing to watch, as the operator declares it.

    sampling: "keyframes" decodes keyframes only (and more while something is suspicious);
        "every" decodes all frames and scores one every `sample_every` seconds.
    sample_every: least distance of scored frames, seconds.
    options: per-scheme source options, already validated (see `vqmon.sources`).
    expect: a subset of EXPECTATIONS.
    """

    name: str
    url: str
    labels: Mapping[str, str] = field(default_factory=dict)
    sampling: Literal["keyframes", "every"] = "keyframes"
    sample_every: float = 2.0
    segment_seconds: float = 10.0
    schedule: Schedule | None = None
    expect: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)
    packet_ring_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Colour:
    """How Y'CbCr planes become R'G'B'.

    full_range: True when luma spans 0..255 (JPEG), False for 16..235 (video).
    matrix: the luma coefficients.
    transfer: "sdr" covers every gamma-like curve; PQ and HLG pictures cannot be scored.
    """

    full_range: bool = False
    matrix: Literal["bt601", "bt709", "bt2020"] = "bt709"
    transfer: Literal["sdr", "pq", "hlg"] = "sdr"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture.

    planes: uint8 Y (h, w), U and V (ch, cw), views of the decoder's memory where its format
        allows (8-bit planar), else converted; `ch` and `cw` tell the chroma subsampling.
    position: seconds, never going back.
    captured_at: wall clock when it was decoded.
    seconds: how long the picture stands, as far as the stream says (0 when unknown).
    key: True for a picture decoded without any other.
    skipped: frames lost, late or left out on purpose by vqmon since the last one given out.
    corrupt: the decoder said that parts are missing.
    qp: mean quantiser 0..51 (H.264), None where the decoder gives none.
    sample_aspect: width of a pixel over its height.
    rotation: degrees clockwise that a player turns it (0, 90, 180, 270); planes are as stored.
    interlaced: True when the stream says that it carries fields.
    native_bits: bits per sample before reduction to 8.
    """

    planes: tuple[Plane, Plane, Plane]
    position: float
    captured_at: datetime
    colour: Colour = Colour()
    seconds: float = 0.0
    key: bool = True
    skipped: int = 0
    corrupt: bool = False
    qp: float | None = None
    sample_aspect: float = 1.0
    rotation: int = 0
    interlaced: bool = False
    native_bits: int = 8

    @property
    def width(self) -> int:
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        return int(self.planes[0].shape[0])


@dataclass(frozen=True, slots=True)
class Packet:
    """One video packet as it arrived: decode-order position (s), duration (s), size (bytes)."""

    position: float
    seconds: float
    size: int
    key: bool
    corrupt: bool = False


@dataclass(frozen=True, slots=True)
class AudioLevel:
    """Sound of about one second, all channels together.

    rms_dbfs, peak_dbfs: at most 0; digital silence is -120.
    loudness_lufs: K-weighted (ITU-R BS.1770-5) without gating; -120 for silence.
    clipped: share of samples at full scale, 0..1.
    """

    position: float
    seconds: float
    rms_dbfs: float
    peak_dbfs: float
    loudness_lufs: float
    clipped: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrived during about one second of media or, when little arrives, of waiting.

    position: where the interval ends; `seconds` of media (video decode time) lie in it and
        `wall_seconds` passed meanwhile (equal to `seconds` for files).
    bytes: everything demuxed, sound and data included.
    packets: the video packets, in order of arrival.
    corrupt_packets: packets of any kind flagged corrupt; `decode_errors`: what the decoder
        complained about, log lines included.
    late_frames: pictures that vqmon itself left undecoded because it was behind a live source.
    cpu_seconds: processor time that the stream's thread spent meanwhile, all stages together.
    """

    position: float
    seconds: float
    wall_seconds: float
    captured_at: datetime
    bytes: int
    packets: tuple[Packet, ...] = ()
    corrupt_packets: int = 0
    decode_errors: int = 0
    late_frames: int = 0
    cpu_seconds: float = 0.0
    audio: AudioLevel | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """What the stream says it is. frame_rate is frames per second, 0 when unknown."""

    codec: str
    width: int
    height: int
    pixel_format: str
    frame_rate: float = 0.0
    audio_codec: str | None = None
    audio_rate: int = 0
    container: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the stream as a whole.

    kind: opened (format set) · format_changed (format set) · timestamp_jump (seconds: the
        step, negative when time went back) · lost (reason; the source will try again) ·
        reconnected (seconds: how long it was away; format set).
    detail: free text for people; never contains credentials.
    """

    kind: Literal["opened", "format_changed", "timestamp_jump", "lost", "reconnected"]
    position: float
    captured_at: datetime
    format: Format | None = None
    seconds: float = 0.0
    reason: str | None = None
    detail: str = ""


Media = Frame | Traffic | Event
"""What a source yields, in the order in which it happened."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, how badly, where, when, and on what evidence.

    name: one of FINDING_NAMES.
    severity: 1 (slight) to 5 (catastrophic).
    confidence: 0..1.
    value, limit, unit: what was measured and the limit that it broke.
    region: None for the whole picture, else some of CELLS.
    start: position (s); seconds: how long, inside its segment (a fault that goes on has one
        finding in each segment, so durations add up).
    cost: points of quality, 0 to 100, by which the pictures that show it would score better
        without it, as the scorer that found it says; None where nobody says (what is measured
        beside the score never costs any).
    """

    name: str
    severity: int
    confidence: float
    value: float | None
    limit: float | None
    unit: str = ""
    region: tuple[str, ...] | None = None
    start: float = 0.0
    seconds: float = 0.0
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FINDING_NAMES:
            raise ValueError(f"unknown finding {self.name!r}; known: {', '.join(FINDING_NAMES)}")
        if not 1 <= self.severity <= 5:
            raise ValueError(f"severity of {self.name} is {self.severity}, not 1 to 5")

    @property
    def severity_word(self) -> str:
        return SEVERITY_WORDS[self.severity - 1]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a scorer says of one frame.

    quality: 0..100, or None with `no_score_reason` (one of NO_SCORE_REASONS).
    uncertainty: one standard deviation, in points of quality.
    outputs: the model's raw outputs by name, enough to compare frames without their pixels.
    model: "name@version".
    explanation: in its own words, of a model that writes; else empty.
    """

    position: float
    quality: float | None
    uncertainty: float | None
    findings: tuple[Finding, ...] = ()
    outputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    model: str | None = None
    no_score_reason: str | None = None
    explanation: str = ""

    @property
    def names_degradations(self) -> bool:
        """Whether the model says of every degradation if it is there, so that silence means no."""
        return bool(self.findings) or "levels" in self.outputs


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which of two is better. margin: points of quality of a over b (negative: b is better);
    probability: that a is better, 0..1. spread: one standard deviation of the margin, points,
    None where the probability comes from elsewhere. shared: the share of the model's error that
    both have in common, 0..1, because they show the same content.
    """

    better: Literal["a", "b", "similar"]
    margin: float
    probability: float
    reason: str
    spread: float | None = None
    shared: float = 0.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one stream: the unit of storing, alerting and reporting.

    id: unique, made when the segment closes; storing it twice stores it once.
    started_at, seconds: wall clock of its first frame (UTC) and length.
    start: the same beginning as a position.
    quality: 0..100, the mean over its time with the worst fifth of it weighing more, or None with
        `no_score_reason`; quality_worst: the worst frame.
    uncertainty: one standard deviation of the quality, points.
    facts: measured facts for people and plugins, JSON values only (bitrate_kbps, ...).
    outputs: the model's raw outputs per scored frame, oldest first.
    thumbnail, evidence: JPEG paths relative to the evidence folder.
    """

    stream: str
    started_at: datetime
    start: float
    seconds: float
    frames_scored: int = 0
    quality: float | None = None
    quality_worst: float | None = None
    uncertainty: float | None = None
    findings: tuple[Finding, ...] = ()
    explanation: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[Mapping[str, tuple[float, ...]], ...] = ()
    model: str | None = None
    no_score_reason: str | None = None
    thumbnail: str | None = None
    evidence: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def scored(self) -> bool:
        return self.quality is not None


@dataclass(frozen=True, slots=True)
class Rollup:
    """A minute or an hour of one stream, summed up when its segments are written.

    starts_at: UTC, on the minute or the hour; period: 60 or 3600 seconds.
    watched_seconds: covered by segments; up_seconds: those in which media arrived.
    scored_seconds, quality_sum: mean quality is quality_sum / scored_seconds.
    quality_worst: lowest frame of the period; histogram: scored seconds in the ten bins
        0-10, 10-20, ..., 90-100.
    fault_seconds: seconds by finding name.
    """

    stream: str
    starts_at: datetime
    period: int
    watched_seconds: float
    up_seconds: float
    scored_seconds: float
    quality_sum: float
    quality_worst: float | None
    histogram: tuple[float, ...]
    fault_seconds: Mapping[str, float]
    segments: int = 0

    @property
    def quality(self) -> float | None:
        return self.quality_sum / self.scored_seconds if self.scored_seconds else None


ALERT_SEVERITIES = ("info", "warning", "critical")
"""How urgent an alert is, least first. Not the severity 1..5 of a finding."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One episode of one rule on one stream, from raising to clearing.

    opened_at: when it began to fire; closed_at: when it was resolved, None while it fires (UTC).
    reason: a sentence with the measured value and the limit.
    finding: the finding behind it, None for rules on quality; value, limit, unit: as measured.
    segment: id of the segment that raised it; evidence: that segment's pictures.
    incident: shared by alerts of a stream that overlap in time.
    cleared: why it was resolved, a sentence; empty while it fires.
    acknowledged_by, acknowledged_at, note: who has taken it on, when, and what they said.
    """

    stream: str
    rule: str
    severity: str
    opened_at: datetime
    reason: str
    finding: str | None = None
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    segment: str | None = None
    incident: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    closed_at: datetime | None = None
    cleared: str = ""
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    note: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def firing(self) -> bool:
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """Something to tell about an alert. id: of the event, the same on every retry.

    kind: "firing" once, "repeat" while it lasts, "resolved" once.
    segment: the segment behind it, as stored.
    """

    kind: Literal["firing", "repeat", "resolved"]
    alert: Alert
    at: datetime
    segment: Segment | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that match it are recorded but told to nobody, until it ends (UTC).

    stream, rule: names, or patterns such as ``studio-*``; severity: one of ALERT_SEVERITIES.
        Empty matches everything.
    """

    author: str
    reason: str
    created_at: datetime
    expires_at: datetime
    stream: str = ""
    rule: str = ""
    severity: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one target, waiting in the outbox until it is delivered or given up.

    id: of the event it tells (the webhook-id); (id, target) is unique.
    kind: "firing", "repeat" or "resolved" of an alert, "plugin" for a plugin's payload, "test".
    body: JSON values only, complete when the delivery is made.
    topic: what it is about (an alert's id); deliveries of one topic reach a target in order.
    replaces: it takes the place of what still waits under its topic.
    expires_at: given up when it could not be delivered before; None waits as long as it takes.
    """

    id: str
    target: str
    kind: str
    body: Mapping[str, Any]
    created_at: datetime
    stream: str | None = None
    topic: str = ""
    replaces: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Acting:
    """What follows from segments, stored in one transaction with them.

    alerts: opened or resolved. states: what the rules remember, by stream; JSON values only,
    kept for `instance`, None forgets a stream. deliveries: for the outbox. questions: for the
    writer.
    """

    instance: str = ""
    alerts: tuple[Alert, ...] = ()
    states: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = ()
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, slots=True)
class Queued:
    """A delivery in the outbox, and how far it has come. Times are UTC.

    state: waiting · delivered · replaced (by a newer one of its topic) · dead (given up).
    due_at: when it is tried next; attempts: begun since it was last delivered or made to wait,
        without those that the end of their sender cut off.
    error: what the last attempt met, None when nothing went wrong.
    """

    delivery: Delivery
    state: Literal["waiting", "delivered", "replaced", "dead"]
    due_at: datetime
    attempts: int = 0
    error: str | None = None
    tried_at: datetime | None = None
    delivered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a target answered to a message that arrived.

    status: of the HTTP answer, None where there is none. text: the beginning of the answer.
    seconds: from the first look-up of its name to its answer.
    """

    status: int | None = None
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Disabled:
    """A target that said it is gone for good (UTC); fingerprint: of its configuration then."""

    target: str
    fingerprint: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What a plugin decided, and why; the plugin's memory across restarts.

    kind: the plugin's own word ("propose", "raise", "keep", "roll_back", ...).
    data: JSON values only. segment, alert: ids of what it is about.
    """

    plugin: str
    stream: str
    kind: str
    reason: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    segment: str | None = None
    alert: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


AskCause = Literal["demand", "alert", "low_confidence"]
ASK_CAUSES: tuple[AskCause, ...] = ("demand", "alert", "low_confidence")
"""Why the writer is asked about a segment, the most urgent first."""


@dataclass(frozen=True, slots=True)
class Question:
    """A segment that the writer shall look at, too. There is one question for each segment.

    instance: whose daemon holds the segment's pictures, and asks. cause: one of ASK_CAUSES.
    asked_at, expires_at: UTC; it is given up when it could not be asked before.
    alert: id of the alert that is the cause.
    """

    segment: str
    stream: str
    instance: str
    cause: AskCause
    asked_at: datetime
    expires_at: datetime
    alert: str | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the writer says of a segment.

    model: "name@version". quality: 0..100, None when it gave no number; uncertainty: one standard
    deviation, points. explanation: its own words. pictures: those it looked at, as in
    `Segment.evidence`. seconds: that it took. details: what else it said, JSON values only.
    """

    model: str
    at: datetime
    quality: float | None = None
    uncertainty: float | None = None
    findings: tuple[Finding, ...] = ()
    explanation: str = ""
    pictures: tuple[str, ...] = ()
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far the writer and the scorer of a segment are apart.

    differs: whether a person should look. quality: the writer's minus the scorer's, points, None
    where one of them gave none. only_scorer, only_writer: degradations that one alone names.
    sentence: the same for people.
    """

    differs: bool
    quality: float | None
    only_scorer: tuple[str, ...]
    only_writer: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what has become of it. Times are UTC.

    state: waiting · answered (opinion and disagreement are set) · unanswered (given up; `reason`
        says why there is no answer).
    reason: while it waits, why there is no answer yet, if something went wrong.
    attempts: begun, without those that the end of the daemon cut off. due_at: of the next one.
    """

    question: Question
    state: Literal["waiting", "answered", "unanswered"]
    due_at: datetime
    attempts: int = 0
    reason: str | None = None
    tried_at: datetime | None = None
    opinion: Opinion | None = None
    disagreement: Disagreement | None = None
