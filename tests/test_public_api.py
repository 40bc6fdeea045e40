"""What other people may build on: names that stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vqmon


def test_the_public_names_are_these() -> None:
    """Adding one is a decision, removing one breaks somebody: either shows up in a review."""
    assert vqmon.__all__ == [
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


@pytest.mark.parametrize("name", vqmon.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    """A name without a docstring cannot be built on."""
    thing = getattr(vqmon, name)

    assert (thing.__doc__ or "").strip(), f"{name} has no docstring"


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="bananas"):
        _ = vqmon.bananas


def test_importing_vqmon_imports_nothing_heavy() -> None:
    """Plugins and scripts import vqmon at their start."""
    code = "import sys, vqmon; print(sorted({'av','numpy','sqlalchemy','onnxruntime'} & set(sys.modules)))"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
