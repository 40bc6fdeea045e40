"""Encoders that can be asked: a table from the `type` of a target to what speaks to it."""

from __future__ import annotations

from vqmon_adaptive_encoding.settings import (
    FFmpegSettings,
    GStreamerSettings,
    MediaMTXSettings,
    ProposalSettings,
    TargetSettings,
    WebhookSettings,
)
from vqmon_adaptive_encoding.targets.gstreamer import GStreamer
from vqmon_adaptive_encoding.targets.mediamtx import MediaMTX
from vqmon_adaptive_encoding.targets.proposal import Proposal, ffmpeg_advice, plain_advice
from vqmon_adaptive_encoding.targets.request import Messages, Target
from vqmon_adaptive_encoding.targets.webhook import Webhook


def open_target(settings: TargetSettings, messages: Messages) -> Target:
    """Connects to nothing yet."""
    match settings:
        case WebhookSettings():
            return Webhook(settings.notifier, messages)
        case GStreamerSettings():
            return GStreamer(settings.socket)
        case MediaMTXSettings():
            return MediaMTX(settings)
        case FFmpegSettings():
            return Proposal(settings.notifier, messages, ffmpeg_advice(settings.codec))
        case ProposalSettings():
            return Proposal(settings.notifier, messages, plain_advice)


def is_live(settings: TargetSettings) -> bool:
    """Whether an encoder of this type changes while it runs."""
    return not isinstance(settings, FFmpegSettings | ProposalSettings)
