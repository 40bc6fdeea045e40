"""Run every benchmark and print one table: figure, measured, target.

python -m benchmarks            all
python -m benchmarks startup    those named
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from dataclasses import astuple

from benchmarks.figure import Figure

NAMES = ("startup", "score_frame", "file_speed", "stream_memory", "live_streams")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Figures of this machine.")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(NAMES)}; without any, all")
    names = parser.parse_args(arguments).names
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    print(f"machine: {machine()}\n")
    figures: list[Figure] = []
    for name in names or NAMES:
        print(f"... {name}", file=sys.stderr)
        figures += importlib.import_module(f"benchmarks.{name}").figures()
    width = max(len(f.name) for f in figures)
    print(f"{'figure':{width}}  measured        target")
    for figure in figures:
        name, measured, target, met = astuple(figure)
        print(f"{name:{width}}  {measured:14}  {target}{'' if met else '   MISSED'}")
    return 0 if all(f.met for f in figures) else 1


def machine() -> str:
    """Processor, cores, system and the versions that matter."""
    import os

    import av

    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, av {av.__version__}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
