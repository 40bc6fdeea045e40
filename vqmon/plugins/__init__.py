"""Plugins: found by entry point or in a folder, each in a process of its own.

    supervisor, writer ─▶ Plugins ─▶ Calls ─▶ Keeper thread ─▶ process: Plugin with its Context
                                                                 reads and writes the database

Nobody waits for a plugin: what is told to it waits in a bounded queue, and a process that fails,
hangs or grows is ended and started again, or parked when that does not help.
"""

from vqmon.plugins.calls import Call, Calls
from vqmon.plugins.finding import Found, find

__all__ = ["Call", "Calls", "Found", "find"]
