"""Damaged pixel data gives values or Unreadable: no other exception, no crash, no hang, no gigabytes."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_dicom import COMPRESSED, write_series
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from inference.codestream import size_of
from inference.errors import Unreadable
from inference.pixels import stored_frame

JPEG_FAMILY = [syntax for syntax in COMPRESSED if syntax != "1.2.840.10008.1.2.5"]


def one_slice(folder: Path, transfer_syntax: str) -> Dataset:
    return dcmread(write_series(folder, shape=(1, 48, 40), transfer_syntax=transfer_syntax)[0])


def frame_of(ds: Dataset) -> bytes:
    return bytes(get_frame(ds.PixelData, 0, number_of_frames=1))


def damage(whole: bytes, rng: random.Random) -> bytes:
    """Cut the frame off, or overwrite bytes: often in its head, where sizes and offsets stand."""
    kind = rng.random()
    if kind < 0.2:
        return whole[: rng.randrange(len(whole))]
    spoilt = bytearray(whole)
    reach = len(whole) if kind < 0.6 else min(len(whole), 200)
    for _ in range(rng.choice((1, 3, 10, 100))):
        spoilt[rng.randrange(reach)] = rng.randrange(256)
    return bytes(spoilt)


def decode_damaged(file: str, rounds: int) -> None:
    """Run in a process of its own, with little memory: a crash of a decoder must not take the tests along."""
    limit = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    ds, rng = dcmread(file), random.Random(20)
    whole = frame_of(ds)
    for _ in range(rounds):
        ds.PixelData = encapsulate([damage(whole, rng) or b"\0\0"])
        try:
            values = stored_frame(ds, 0)
        except Unreadable as error:
            if str(ds.SOPInstanceUID) not in error.text:
                raise AssertionError(error.text) from error
        else:
            if values.shape != (48, 40):
                raise AssertionError(values.shape)


@pytest.mark.parametrize("transfer_syntax", COMPRESSED)
def test_damaged_frames(tmp_path: Path, transfer_syntax: str) -> None:
    one_slice(tmp_path, transfer_syntax)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path / "0000.dcm"), "200"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize("transfer_syntax", JPEG_FAMILY)
def test_a_codestream_of_another_size_is_not_decoded(tmp_path: Path, transfer_syntax: str) -> None:
    ds = one_slice(tmp_path, transfer_syntax)
    assert size_of(frame_of(ds)) == (48, 40)
    ds.Rows = 47
    with pytest.raises(Unreadable, match="48 x 40, its header 47 x 40"):
        stored_frame(ds, 0)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\xff\x4f\xff\x51\0", b"\0" * 64])
def test_no_size_in_no_codestream(content: bytes) -> None:
    assert size_of(content) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("BitsAllocated", 12), ("BitsStored", 17), ("PixelRepresentation", 2), ("Rows", 0), ("Columns", 60000)],
)
def test_a_senseless_layout_is_named(tmp_path: Path, keyword: str, value: int) -> None:
    ds = one_slice(tmp_path, "1.2.840.10008.1.2.1")
    setattr(ds, keyword, value)
    with pytest.raises(Unreadable, match=f"{keyword} is {value}"):
        stored_frame(ds, 0)


if __name__ == "__main__":
    decode_damaged(sys.argv[1], int(sys.argv[2]))
