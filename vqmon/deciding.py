"""What a plugin asks for and hands in, where the real context and its fake must agree. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vqmon.domain import Assessment, Comparison, Decision, Segment
from vqmon.errors import ScorerError, VqmonError
from vqmon.ports import Scorer

LARGEST_PAYLOAD = 256 * 1024
"""Bytes of JSON in one message of a plugin; receivers refuse more than that themselves."""

_EVENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)

Judged = Segment | Sequence[Assessment]


def compared(scorer: Scorer, a: Judged, b: Judged, *, same_content: bool = False) -> Comparison:
    """Which is better, from what was said of both.

    Raises ScorerError when one has no score or both were scored by different models.
    """
    sides = [as_assessments(a), as_assessments(b)]
    models = [{it.model for it in side if it.quality is not None} for side in sides]
    if all(models) and len(models[0] | models[1]) > 1:
        said = " and ".join(", ".join(sorted(str(it) for it in side)) for side in models)
        raise ScorerError(f"scored by different models ({said}): their scales cannot be compared")
    return scorer.compare(*sides, same_content=same_content)


def as_assessments(judged: Judged) -> Sequence[Assessment]:
    """What was said of a whole segment, as a scorer would say it of one frame."""
    if not isinstance(judged, Segment):
        return judged
    whole = Assessment(
        position=judged.start,
        quality=judged.quality,
        uncertainty=judged.uncertainty,
        findings=judged.findings,
        model=judged.model,
        no_score_reason=judged.no_score_reason,
    )
    return [whole]


def owned(decision: Decision, plugin: str) -> Decision:
    """The decision under the name of the plugin that made it."""
    return decision if decision.plugin == plugin else replace(decision, plugin=plugin)


def checked_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with JSON values only. Raises VqmonError for what no receiver could read."""
    try:
        text = json.dumps(payload, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise VqmonError(f"a payload holds JSON values only: {error}") from error
    if len(text) > LARGEST_PAYLOAD:
        raise VqmonError(f"a payload of {len(text)} bytes; at most {LARGEST_PAYLOAD} are sent")
    copy: dict[str, Any] = json.loads(text)
    return copy


def checked_event_id(event_id: str) -> str:
    """Raises VqmonError for what cannot be a `webhook-id`."""
    if not _EVENT_ID.fullmatch(event_id):
        raise VqmonError(
            f"{event_id!r} is no event id: use 1 to 64 letters, digits, '.', '_', ':' or '-'"
        )
    return event_id


def no_such_target(target: str, known: Sequence[str]) -> VqmonError:
    """The error for a target that nobody configured."""
    names = ", ".join(sorted(known)) or "none"
    return VqmonError(f"no target {target!r} under `notifiers:`; known: {names}")
