"""The spool: paths, durability order, full disks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import StorageSettings
from node.store.spool import PART, Spool, StorageFull, instance_path


def spool_in(folder: Path, **options: int) -> Spool:
    folder.mkdir(exist_ok=True)
    return Spool(StorageSettings(folder=folder, **{"min_free_mb": 0, **options}))


@given(st.text(), st.text(), st.text())
def test_path_stays_inside_whatever_the_uids_are(study: str, series: str, sop: str) -> None:
    path = instance_path(study, series, sop)
    assert path.parts[0] == "spool"
    assert len(path.parts) == 5
    assert path.suffix == ".dcm"
    assert all(set(part) <= set("0123456789abcdef") for part in path.parts[1:4])
    assert Path(os.path.normpath(Path("/s") / path)).is_relative_to("/s/spool")


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_different_uids_have_different_paths(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (instance_path(*one) == instance_path(*other)) == (one == other)


def test_part_is_whole_and_private(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    final = instance_path("1.2", "1.2.3", "1.2.3.4")
    part = spool.write_part(final, b"meta", memoryview(b"data" * 100_000))
    assert part.read_bytes() == b"meta" + b"data" * 100_000
    assert part.stat().st_mode & 0o077 == 0
    assert list(spool.files()) == []  # not taken in yet
    spool.take_in(part, final)
    spool.sync_folders([final])
    assert list(spool.files()) == [final]
    assert spool.drop_parts() == 0


def test_parts_are_dropped_and_whole_files_are_not(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    kept, lost = instance_path("1", "2", "3"), instance_path("1", "2", "4")
    spool.take_in(spool.write_part(kept, b"m", memoryview(b"d")), kept)
    spool.write_part(lost, b"m", memoryview(b"d"))
    assert spool.drop_parts() == 1
    assert list(spool.files()) == [kept]


def test_below_the_watermark_nothing_is_written(tmp_path: Path) -> None:
    free_mb = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize // 1_000_000
    spool = spool_in(tmp_path / "s", min_free_mb=free_mb + 10_000)
    with pytest.raises(StorageFull, match="min_free_mb"):
        spool.write_part(instance_path("1", "2", "3"), b"m", memoryview(b"d"))
    assert not list((tmp_path / "s" / "spool").rglob(f"*{PART}"))


def test_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    """A write cut short by the system (here RLIMIT_FSIZE) is StorageFull and leaves no partial file."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from node.config import StorageSettings\nfrom node.store.spool import Spool, StorageFull, instance_path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "spool = Spool(StorageSettings(folder=Path(sys.argv[1]), min_free_mb=0))\n"
        "try: spool.write_part(instance_path('1','2','3'), b'm', memoryview(bytes(3_000_000)))\n"
        "except StorageFull: sys.exit(7)\n"
    )
    folder = tmp_path / "s"
    folder.mkdir()
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 7
    assert [p for p in (folder / "spool").rglob("*") if p.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_remove_takes_empty_folders_along_and_a_later_file_lasts(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    final = instance_path("1.2", "1.2.3", "1.2.3.4")
    for _again in range(2):
        spool.take_in(spool.write_part(final, b"m", memoryview(b"d")), final)
        spool.sync_folders([final])
        assert list(spool.files()) == [final]
        spool.remove(final)
        spool.remove(final)  # a purge that is repeated
        assert list((tmp_path / "s" / "spool").iterdir()) == []


def test_quarantine_keeps_the_bytes(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    spool = spool_in(tmp_path / "s")
    part = spool.write_part(instance_path("1", "2", "3"), b"m", memoryview(b"data"))
    kept = spool.quarantine(part, datetime(2024, 1, 2, tzinfo=UTC))
    assert kept.parts[:2] == ("quarantine", "20240102")
    assert (tmp_path / "s" / kept).read_bytes() == b"mdata"
    assert isinstance(kept, PurePosixPath)
