"""One file per step; see `vqmon.store.migrations`."""
