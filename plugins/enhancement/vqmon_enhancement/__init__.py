"""Enhancement for vqmon: mend a bad clip with filters, and keep it only when the model prefers it.

START HERE: `enhancing.enhance` is the whole way of one file; `plugin.py` walks it for segments.
"""

__version__ = "0.1.0"
