"""``python -m vqmon`` and the program ``vqmon``."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    from vqmon.cli import run_program

    _ready_outputs()
    sys.exit(run_program(sys.argv[1:]))


def _ready_outputs() -> None:
    """Closed ones (`>&-`) lead nowhere, before a file that is opened takes their place; names of
    files come out as they are on disk, whatever the bytes.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  open until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


if __name__ == "__main__":
    main()
