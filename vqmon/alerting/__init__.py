"""Rules turn stored segments into alerts: raised once, told once, cleared once. Pure.

    (stream, rules, state, segment) ─▶ judge ─▶ (new state, alerts opened or resolved, events)

rules      what a rule is, and those that are shipped
stretches  a segment as one rule sees it: bad, good, in between, unknown
judging    pending ─▶ firing ─▶ resolved, in seconds of watched media
states     what is remembered from one segment to the next; JSON
baseline   what quality is usual for a stream under one model
sentences  why an alert was raised and cleared
quiet      silences and maintenance windows: recorded, but told to nobody
own        alerts about vqmon itself
replaying  the same over stored history
tuning     limits proposed from history

No clock is read here: time is that of the segments, so that history gives the same alerts again.
"""

from vqmon.alerting.judging import Turn, judge, release
from vqmon.alerting.quiet import Quiet, Window, silenced
from vqmon.alerting.rules import CONDITIONS, RULES, Rule
from vqmon.alerting.states import StreamState

__all__ = [
    "CONDITIONS",
    "RULES",
    "Quiet",
    "Rule",
    "StreamState",
    "Turn",
    "Window",
    "judge",
    "release",
    "silenced",
]
