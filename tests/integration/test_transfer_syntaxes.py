"""Every transfer syntax a scanner or PACS sends: negotiated, kept as sent, and readable afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from fixtures_net import ct_series
from fixtures_reception import Reception, running_reception
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.presentation import build_context

from node.dicom_net.sending import send_folder
from node.store.part10 import read_file

Encoder = Callable[[np.ndarray], bytes]
ENCODERS: dict[UID, Encoder] = {
    RLELossless: lambda _image: b"",  # pydicom's own
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k"),
    HTJ2KLossless: lambda image: imagecodecs.htj2k_encode(image, reversible=True),
    JPEGLosslessSV1: imagecodecs.ljpeg_encode,
    JPEGBaseline8Bit: lambda image: imagecodecs.jpeg8_encode(image.astype("u1"), level=90),
}
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reception]:
    with running_reception(tmp_path_factory.mktemp("reception")) as running:
        yield running


def encoded(syntax: UID) -> FileDataset:
    """A small CT slice in a transfer syntax."""
    (dataset,) = ct_series(1, rows=64)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax in ENCODERS:
        image = dataset.pixel_array
        if syntax == JPEGBaseline8Bit:
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit = 7
            image = image >> 4
        dataset.PixelData = encapsulate([ENCODERS[syntax](image)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


@pytest.mark.parametrize("syntax", [*PLAIN, *ENCODERS], ids=lambda syntax: syntax.keyword)
def test_kept_as_sent_and_readable(reception: Reception, tmp_path: Path, syntax: UID) -> None:
    dataset = encoded(syntax)
    path = tmp_path / "slice"
    little = syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(
        path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little, enforce_file_format=True
    )
    report = send_folder(path, "FALX", "127.0.0.1", reception.port, calling_ae="CT1")
    assert report.refused == []
    (row,) = [r for r in reception.rows() if r.sop_instance_uid == dataset.SOPInstanceUID]
    assert row.transfer_syntax_uid == syntax
    _meta, offset, _names = read_file(path)
    assert reception.content(row) == path.read_bytes()[offset:]
    kept, sent = pydicom.dcmread(reception.folder / row.path), pydicom.dcmread(path)
    assert (kept.pixel_array == sent.pixel_array).all()
    assert kept.pixel_array.std() > 0


def test_uncompressed_is_preferred_when_the_sender_leaves_the_choice(reception: Reception) -> None:
    offered = [JPEG2000Lossless, RLELossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    association = reception.associate([build_context("1.2.840.10008.5.1.4.1.1.2", offered)])
    assert association.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]
    association.release()


def test_a_transfer_syntax_nobody_knows_is_not_accepted(reception: Reception) -> None:
    association = reception.associate(
        [build_context("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"), build_context("1.2.840.10008.1.1")]
    )
    assert [c.abstract_syntax for c in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    association.release()
