"""vqmon watches live video the way a careful viewer would.

from vqmon import Stream, load_scorer, monitor, open_source

stream = Stream("news", "rtsp://10.0.0.7/news")
for segment in monitor(stream, open_source(stream), load_scorer()):
    print(segment.quality, segment.explanation)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqmon.domain import (
        Assessment,
        Comparison,
        Event,
        Finding,
        Frame,
        Rollup,
        Segment,
        Stream,
        Traffic,
    )
    from vqmon.errors import VqmonError
    from vqmon.pipeline import monitor
    from vqmon.ports import Evidence, Scorer, SegmentStore, Source
    from vqmon.scorers import load_scorer
    from vqmon.sources import open_source
    from vqmon.store import open_store

__version__ = "0.1.0"

__all__ = [
    "Assessment",
    "Comparison",
    "Event",
    "Evidence",
    "Finding",
    "Frame",
    "Rollup",
    "Scorer",
    "Segment",
    "SegmentStore",
    "Source",
    "Stream",
    "Traffic",
    "VqmonError",
    "load_scorer",
    "monitor",
    "open_source",
    "open_store",
]

_HOMES = {
    "VqmonError": "errors",
    "load_scorer": "scorers",
    "monitor": "pipeline",
    "open_source": "sources",
    "open_store": "store",
} | dict.fromkeys(("Evidence", "Scorer", "SegmentStore", "Source"), "ports")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import vqmon` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'vqmon' has no attribute {name!r}")
    return getattr(import_module(f"vqmon.{_HOMES.get(name, 'domain')}"), name)
