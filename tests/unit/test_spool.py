"""The spool: paths, full disks, nothing overwritten."""

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
from node.store.spool import Spool, StorageFull, instance_path


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


def test_a_file_is_whole_private_and_in_its_place(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    wanted = instance_path("1.2", "1.2.3", "1.2.3.4")
    file = spool.write(wanted, b"meta", memoryview(b"data" * 100_000))
    assert file == wanted
    assert (spool.folder / file).read_bytes() == b"meta" + b"data" * 100_000
    assert (spool.folder / file).stat().st_mode & 0o077 == 0
    spool.sync_folders([file])
    assert list(spool.files()) == [file]


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "s")
    wanted = instance_path("1", "2", "3")
    first, second = (spool.write(wanted, b"m", memoryview(content)) for content in (b"first", b"second"))
    assert first == wanted
    assert second != first
    assert second.parent == first.parent
    assert [(spool.folder / f).read_bytes() for f in (first, second)] == [b"mfirst", b"msecond"]


def test_below_the_watermark_nothing_is_written(tmp_path: Path) -> None:
    free_mb = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize // 1_000_000
    spool = spool_in(tmp_path / "s", min_free_mb=free_mb + 10_000)
    with pytest.raises(StorageFull, match="min_free_mb"):
        spool.write(instance_path("1", "2", "3"), b"m", memoryview(b"d"))
    assert list(spool.files()) == []


def test_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    """A write cut short by the system (here RLIMIT_FSIZE) is StorageFull and leaves no partial file."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from node.config import StorageSettings\nfrom node.store.spool import Spool, StorageFull, instance_path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "spool = Spool(StorageSettings(folder=Path(sys.argv[1]), min_free_mb=0))\n"
        "try: spool.write(instance_path('1','2','3'), b'm', memoryview(bytes(3_000_000)))\n"
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
        spool.write(final, b"m", memoryview(b"d"))
        spool.sync_folders([final])
        assert list(spool.files()) == [final]
        spool.remove(final)
        spool.remove(final)  # a purge that is repeated
        assert list((tmp_path / "s" / "spool").iterdir()) == []


def test_quarantine_keeps_the_bytes(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    spool = spool_in(tmp_path / "s")
    file = spool.write(instance_path("1", "2", "3"), b"m", memoryview(b"data"))
    kept = spool.quarantine(file, datetime(2024, 1, 2, tzinfo=UTC))
    assert kept.parts[:2] == ("quarantine", "20240102")
    assert (tmp_path / "s" / kept).read_bytes() == b"mdata"
    assert isinstance(kept, PurePosixPath)
