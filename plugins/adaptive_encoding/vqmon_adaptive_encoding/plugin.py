"""The plugin: hears of segments and passes each to the watch over its stream."""

from __future__ import annotations

from typing import ClassVar

from vqmon.domain import Segment
from vqmon.ports import Plugin, PluginContext
from vqmon_adaptive_encoding.case import Case
from vqmon_adaptive_encoding.settings import AdaptiveEncodingSettings
from vqmon_adaptive_encoding.targets import is_live, open_target
from vqmon_adaptive_encoding.watch import Clock, Watch, utc_now
from vqmon_adaptive_encoding.watching import end


class AdaptiveEncoding(Plugin):
    """Asks the encoders of the configured streams for more quality, and takes it back."""

    Settings: ClassVar[type[AdaptiveEncodingSettings]] = AdaptiveEncodingSettings

    def __init__(
        self,
        context: PluginContext,
        settings: AdaptiveEncodingSettings,
        clock: Clock = utc_now,
    ) -> None:
        super().__init__(context, settings)
        self._watches = {
            name: Watch(
                case_of(settings, name),
                context,
                open_target(stream.target, context),
                clock,
            )
            for name, stream in settings.streams.items()
        }

    def segment_closed(self, segment: Segment) -> None:
        """Decide about its stream; and about others that are silent while a change is open."""
        watch = self._watches.get(segment.stream)
        if watch is not None:
            watch.see(segment)
        for other in self._watches.values():
            if other is not watch:
                other.wake(end(segment))


def case_of(settings: AdaptiveEncodingSettings, name: str) -> Case:
    """What `deciding` needs to know of a configured stream."""
    stream = settings.streams[name]
    return Case(
        stream=name,
        ladder=stream.levels,
        base=stream.base_level,
        cap_kbps=stream.cap_kbps,
        rules=settings.rules,
        mode=settings.mode_of(name),
        live=is_live(stream.target),
        target=stream.target.type,
    )
