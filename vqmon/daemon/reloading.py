"""The configuration file while the daemon runs: noticed when it changes, taken when it is good."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vqmon.config import fingerprint, load
from vqmon.errors import ConfigError
from vqmon.settings import Settings

log = logging.getLogger("vqmon.daemon")

POLL_SECONDS = 5.0


class ConfigurationFile:
    """A file by its content: Kubernetes swaps a link, editors replace or rewrite."""

    def __init__(self, path: Path | None, settings: Settings, data_dir: Path | None) -> None:
        """data_dir: what the command line gave, which wins over the file."""
        self._path = path
        self._data_dir = data_dir
        self._seen = settings.fingerprint
        self._next = 0.0
        self.refused = ""
        """What is wrong with the file as it was read last; empty when it was taken."""

    def changed(self, clock: float) -> bool:
        """Whether the content is another than when it was last looked at; asked any often."""
        if self._path is None or clock < self._next:
            return False
        self._next = clock + POLL_SECONDS
        return fingerprint(self._path) != self._seen

    def read(self) -> Settings | None:
        """The new settings; None when they cannot be used, which is logged line by line.

        Takes seconds where plugins check theirs.
        """
        if self._path is None:
            log.warning("reload_without_file")
            return None
        self._seen = fingerprint(self._path)
        self.refused = ""
        try:
            return load(self._path, os.environ, data_dir=self._data_dir, plugins=True)
        except ConfigError as error:
            self.refused = str(error)
            _refused(self._path, error)
            return None


def _refused(path: Path, error: ConfigError) -> None:
    for line in str(error).splitlines():
        log.error("configuration_refused", extra={"error": line})
    log.error("reload_failed", extra={"file": str(path), "effect": "old settings stay"})
