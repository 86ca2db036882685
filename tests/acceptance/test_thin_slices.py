"""1,500 thin slices are read within bounds of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures_dicom import head, write_series

READ = """
import sys
from pathlib import Path
from inference.series_reader import read_volume
volume = read_volume(sorted(Path(sys.argv[1]).iterdir()))
# not ru_maxrss, which a process has from its parent: the tests before this one may have grown that to gigabytes
peak_kb = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(*volume.voxels.shape, *volume.notes, int(peak_kb) // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifteen_hundred_thin_slices(tmp_path: Path) -> None:
    voxels = np.broadcast_to(head((3, 256, 256))[1], (1500, 256, 256))
    write_series(tmp_path, shape=(1500, 256, 256), spacing_mm=(0.12, 0.9, 0.9), voxels=voxels)
    ran = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-1000:]
    *shape_and_notes, peak_mb = ran.stdout.split()
    assert shape_and_notes == ["300", "256", "256", "averaged_slices"]
    assert int(peak_mb) < 400  # as float32 the slices alone would take 393, beside 130 of the process
