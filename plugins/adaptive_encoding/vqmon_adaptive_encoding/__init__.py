"""Adaptive encoding for vqmon: ask an encoder for more, look, keep it or take it back.

The plugin is `vqmon_adaptive_encoding.plugin`; the thinking is in `deciding.py`, which is pure.
"""

__version__ = "0.1.0"
