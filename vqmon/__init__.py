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
    from vqmon.config import load as load_config
    from vqmon.domain import (
        Alert,
        Assessment,
        Comparison,
        Decision,
        Event,
        Finding,
        Frame,
        Rollup,
        Segment,
        Stream,
        Traffic,
    )
    from vqmon.errors import ConfigError, VqmonError
    from vqmon.pipeline import monitor
    from vqmon.ports import Evidence, Plugin, PluginContext, Scorer, SegmentStore, Source
    from vqmon.quantities import parse_duration, parse_size
    from vqmon.scorers import load_scorer
    from vqmon.scorers.recording import Recording
    from vqmon.sources import open_source
    from vqmon.store import open_store

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "Assessment",
    "Comparison",
    "ConfigError",
    "Decision",
    "Event",
    "Evidence",
    "Finding",
    "Frame",
    "Plugin",
    "PluginContext",
    "Recording",
    "Rollup",
    "Scorer",
    "Segment",
    "SegmentStore",
    "Source",
    "Stream",
    "Traffic",
    "VqmonError",
    "load_config",
    "load_scorer",
    "monitor",
    "open_source",
    "open_store",
    "parse_duration",
    "parse_size",
]

_HOMES = {
    "ConfigError": "errors",
    "Recording": "scorers.recording",
    "VqmonError": "errors",
    "load_config": "config:load",
    "load_scorer": "scorers",
    "monitor": "pipeline",
    "open_source": "sources",
    "open_store": "store",
    "parse_duration": "quantities",
    "parse_size": "quantities",
} | dict.fromkeys(
    ("Evidence", "Plugin", "PluginContext", "Scorer", "SegmentStore", "Source"), "ports"
)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import vqmon` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'vqmon' has no attribute {name!r}")
    home, _, there = _HOMES.get(name, "domain").partition(":")
    return getattr(import_module(f"vqmon.{home}"), there or name)
