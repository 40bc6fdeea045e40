"""What vqmon itself takes from a plugin's section."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from vqmon.settings.fields import HOUR, SECOND, Bytes, Seconds, Section


class PluginSettings(Section):
    """One plugin. Its own settings stand beside these; the plugin itself says which they are."""

    model_config = ConfigDict(extra="allow")

    enabled: bool = Field(
        default=True, description="Whether it runs; `false` keeps its settings for later."
    )
    memory: Annotated[int, Bytes(100 * 1000**2)] = Field(
        1000**3, description="A plugin whose process grows beyond this is started again."
    )
    timeout: Annotated[float, Seconds(SECOND, HOUR)] = Field(
        60.0, description="A plugin that takes longer for one call is started again."
    )

    @property
    def own(self) -> dict[str, Any]:
        """What belongs to the plugin itself, as texts of the file."""
        return self.model_extra or {}
