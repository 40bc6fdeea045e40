"""Who is told, and how: one small file for each type of target.

    open_notifier(target) ─▶ webhook       signed HTTP POST
                         ├▶ alertmanager  Prometheus' Alertmanager, told again while an alert fires
                         ├▶ apprise       mail, chat and whatever else Apprise reaches
                         └▶ log           a log line

What they need is imported when a target of their type is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqmon.notifiers.addresses import Reach, check_entry, check_url

if TYPE_CHECKING:
    from vqmon.notifying import Target
    from vqmon.ports import Notifier

__all__ = ["Reach", "check_entry", "check_url", "open_notifier"]


def open_notifier(target: Target) -> Notifier:
    """The way to this target; nothing is sent yet. Raises ConfigError for what cannot work."""
    if target.type == "webhook":
        from vqmon.notifiers.webhook import Webhook

        return Webhook(target)
    if target.type == "alertmanager":
        from vqmon.notifiers.alertmanager import Alertmanager

        return Alertmanager(target)
    if target.type == "apprise":
        from vqmon.notifiers.apprise import ByApprise

        return ByApprise(target)
    from vqmon.notifiers.log import Log

    return Log()
