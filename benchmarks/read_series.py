"""CPU milliseconds to read a 32-slice 512 x 512 CT into a volume, by transfer syntax.

    python benchmarks/read_series.py [--json FILE]

CPU time of this process, the best of five: what a busy machine does beside it does not count.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

SHAPE = (32, 512, 512)


def best_cpu_ms(files: list[Path], rounds: int = 5) -> float:
    """Return the least CPU time of several readings."""
    from inference.series_reader import read_volume

    times = []
    for _ in range(rounds):
        start = time.process_time()
        read_volume(files)
        times.append(time.process_time() - start)
    return round(min(times) * 1000, 1)


def main() -> None:
    """Measure every syntax and print or write the result."""
    sys.path[0] = str(Path(__file__).parents[1] / "tests")  # in place of this folder, whose names hide packages
    from fixtures_dicom import COMPRESSED, head, write_series
    from pydicom.uid import UID, ExplicitVRLittleEndian

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-")
    target = parser.parse_args().json
    voxels, result = head(SHAPE), {}
    for syntax in (str(ExplicitVRLittleEndian), *COMPRESSED):
        with tempfile.TemporaryDirectory() as folder:
            files = write_series(Path(folder), shape=SHAPE, voxels=voxels, transfer_syntax=syntax)
            result[UID(syntax).name] = best_cpu_ms(files)
    text = json.dumps({"slices": SHAPE[0], "cpu_ms": result}, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text)


if __name__ == "__main__":
    main()
