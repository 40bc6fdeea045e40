"""Every error that vqmon raises on purpose.

    VqmonError
    ├── ConfigError            the configuration is wrong: fix the file          (exit code 2)
    ├── SourceError            a stream or file gives no video
    │   ├── SourceRejected     trying again soon is useless (auth, codec, scheme)
    │   └── SourceUnavailable  may work later: back off and try again
    ├── ScorerError            the model cannot be loaded or run
    │   └── ScorerUnavailable  the scoring process is away: say so, go on without scores
    ├── DeliveryFailed         a message did not reach its target: try again later
    │   └── TargetGone         the receiver wants nothing any more: stop sending
    ├── PluginUnusable         a plugin cannot be imported, or is none: leave it out
    ├── StoreError             the database cannot be used
    │   └── AlreadyRunning     another daemon holds this database and instance
    └── PictureUnsupported     this picture cannot be scored (PQ, HLG, too small, too large)

A class exists where a caller acts differently. Messages name the thing and the remedy.
"""

from __future__ import annotations


class VqmonError(Exception):
    """Base of all; its text is ready to be shown to a person."""


class ConfigError(VqmonError):
    """The configuration cannot be used; the text names file, line, key, value and remedy."""


class SourceError(VqmonError):
    """A source gives nothing. reason: one of `vqmon.domain.DOWN_REASONS`."""

    def __init__(self, url: str, reason: str, message: str) -> None:
        """`url` must already be free of credentials (see `vqmon.sources.redact`)."""
        super().__init__(f"{url}: {message}")
        self.url = url
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.url, self.reason, self.message)


class SourceRejected(SourceError):
    """Trying again within minutes is useless: credentials, codec, scheme, options."""


class SourceUnavailable(SourceError):
    """May work later."""


class ScorerError(VqmonError):
    """The model folder is damaged, or the runtime it needs is missing."""


class ScorerUnavailable(ScorerError):
    """The scoring process does not answer; it is being replaced."""


class DeliveryFailed(VqmonError):
    """A message did not reach its target.

    status: of the HTTP answer, None without one. retry_after: seconds for which the receiver
    wants to be left alone. unreachable: it would have failed with any other message too.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.unreachable = unreachable


class TargetGone(DeliveryFailed):
    """The receiver says that it is gone for good (HTTP 410)."""


class PluginUnusable(VqmonError):
    """A plugin's code cannot be imported or is no plugin; the others go on."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f"plugin {plugin}: {message}")
        self.plugin = plugin
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.plugin, self.message)


class StoreError(VqmonError):
    """The database cannot be opened, migrated or written."""


class AlreadyRunning(StoreError):
    """Another daemon is active on this database under the same instance name."""


class PictureUnsupported(VqmonError):
    """This picture cannot be scored; the text says why."""
