"""Files of one series into a volume: geometry, values, defects, transfer syntaxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures_dicom import COMPRESSED, UNCOMPRESSED, head, uid, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from inference import series_reader
from inference.series_reader import Unreadable, read_volume
from inference.volume import Volume

SHAPE = (12, 48, 40)


def assert_positions(volume: Volume, files: list[Path]) -> None:
    """The affine maps each slice's first voxel to its file's Image Position (Patient)."""
    at = {str(ds.SOPInstanceUID): ds.ImagePositionPatient for ds in map(dcmread, files)}
    for z, source in enumerate(volume.geometry.slices):
        found = volume.geometry.affine_lps_mm @ [z, 0, 0, 1]
        assert found[:3] == pytest.approx([float(v) for v in at[source.sop_instance_uid]], abs=1e-2)


def test_a_ct_is_read_in_hu_feet_to_head(tmp_path: Path) -> None:
    files = write_series(tmp_path, shape=SHAPE)
    volume = read_volume(files[::-1])
    assert volume.modality == "CT"
    assert volume.voxels.dtype == np.float32
    assert np.abs(volume.voxels - head(SHAPE)).max() <= 0.5
    assert volume.geometry.spacing_zyx_mm == pytest.approx((5.0, 3.4, 3.4))
    assert [s.sop_instance_uid for s in volume.geometry.slices] == [str(dcmread(f).SOPInstanceUID) for f in files]
    assert volume.notes == ()
    assert_positions(volume, files)


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED + COMPRESSED)
@pytest.mark.parametrize("signed", [False, True])
def test_every_transfer_syntax(tmp_path: Path, transfer_syntax: str, signed: bool) -> None:
    files = write_series(tmp_path, shape=SHAPE, transfer_syntax=transfer_syntax, signed=signed)
    assert np.abs(read_volume(files).voxels - head(SHAPE)).max() <= 0.5


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("slope", [1.0, 0.5, 2.0])
def test_rescale_and_depth(tmp_path: Path, bits: int, slope: float) -> None:
    files = write_series(tmp_path, shape=SHAPE, bits=bits, slope=slope)
    assert np.abs(read_volume(files).voxels - head(SHAPE)).max() <= slope


def test_a_slope_of_its_own_for_every_slice(tmp_path: Path) -> None:
    def scale(ds: Dataset, z: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = z + 1, 0
        ds.PixelData = (np.full((48, 40), 7, "u2")).tobytes()

    volume = read_volume(write_series(tmp_path, modality="MR", shape=SHAPE, change=scale))
    assert [float(s.mean()) for s in volume.voxels] == [7.0 * (z + 1) for z in range(12)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tilt=st.integers(-30, 30),
    step=st.sampled_from([0.7, 2.5, 5.0]),
    plane=st.sampled_from(["axial", "sagittal", "coronal"]),
    order=st.permutations(range(6)),
)
def test_geometry_follows_the_headers(tmp_path: Path, tilt: int, step: float, plane: str, order: list[int]) -> None:
    files = write_series(
        tmp_path, modality="MR", shape=(6, 8, 10), spacing_mm=(step, 1.0, 0.5), tilt_degrees=tilt, plane=plane
    )
    volume = read_volume([files[i] for i in order])
    assert_positions(volume, files)
    assert volume.geometry.spacing_zyx_mm == pytest.approx((step, 1.0, 0.5), rel=1e-3)
    along = np.diff(volume.geometry.positions_mm)
    assert along == pytest.approx(np.full(5, step), abs=1e-2)
    column_axis = int(np.argmax(np.abs(volume.geometry.affine_lps_mm[:3, 0])))
    assert volume.geometry.affine_lps_mm[column_axis, 0] > 0


def test_gantry_tilt_stands_in_the_affine(tmp_path: Path) -> None:
    files = write_series(tmp_path, shape=SHAPE, gantry_tilt_degrees=18)
    volume = read_volume(files)
    assert "gantry_tilt" in volume.notes
    assert_positions(volume, files)
    z_axis, y_axis = volume.geometry.affine_lps_mm[:3, 0], volume.geometry.affine_lps_mm[:3, 1]
    assert z_axis == pytest.approx([0, 0, 5.0], abs=1e-3)
    assert abs(float(z_axis @ y_axis)) > 1  # sheared: not at right angles


def test_irregular_and_missing_positions_are_noted(tmp_path: Path) -> None:
    two_steps = [2.5 * z for z in range(6)] + [12.5 + 5.0 * z for z in range(1, 7)]
    volume = read_volume(write_series(tmp_path / "a", shape=SHAPE, positions_mm=two_steps))
    assert volume.notes == ("irregular_spacing",)
    assert np.diff(volume.geometry.positions_mm) == pytest.approx(np.diff(two_steps))
    files = write_series(tmp_path / "b", shape=SHAPE)
    assert read_volume(files[:5] + files[6:]).notes == ("missing_slices",)


def test_an_enhanced_object(tmp_path: Path) -> None:
    volume = read_volume([write_enhanced(tmp_path / "e.dcm", modality="CT", shape=SHAPE)])
    assert np.abs(volume.voxels - head(SHAPE)).max() <= 0.5
    assert [s.frame_number for s in volume.geometry.slices] == list(range(1, 13))
    assert len({s.sop_instance_uid for s in volume.geometry.slices}) == 1


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_of_an_enhanced_dual_echo_the_late_one_is_read(tmp_path: Path, transfer_syntax: str) -> None:
    path = write_enhanced(tmp_path / "e.dcm", shape=SHAPE, echo_times_ms=(20, 100), transfer_syntax=transfer_syntax)
    volume = read_volume([path])
    assert volume.attributes["echo_time_ms"] == 100
    assert [s.frame_number for s in volume.geometry.slices] == list(range(2, 25, 2))
    assert np.abs(volume.voxels - head(SHAPE, "MR") / 2).max() <= 1
    assert volume.notes == ("several_stacks",)


def test_a_localizer_in_the_series_is_left_out(tmp_path: Path) -> None:
    series = uid("one series")
    axial = write_series(tmp_path / "a", shape=SHAPE, series=series)
    scout = write_series(tmp_path / "b", shape=(2, 48, 40), series=series, plane="sagittal",
                         change=lambda ds, z: setattr(ds, "SOPInstanceUID", uid("scout", z)))  # fmt: skip
    volume = read_volume([*scout, *axial])
    assert volume.voxels.shape == SHAPE
    assert volume.notes == ("several_stacks",)


def test_a_slice_sent_twice_is_used_once(tmp_path: Path) -> None:
    def second(ds: Dataset, z: int) -> None:
        if z == 5:
            ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], -60 + 4 * 5.0]

    volume = read_volume(write_series(tmp_path, shape=SHAPE, change=second))
    assert volume.voxels.shape[0] == 11
    assert "duplicate_positions" in volume.notes


def test_padding_is_air(tmp_path: Path) -> None:
    def pad(ds: Dataset, z: int) -> None:
        pixels = np.frombuffer(ds.PixelData, "i2").reshape(48, 40).copy()
        pixels[:6] = -2000
        ds.PixelData, ds.PixelPaddingValue = pixels.tobytes(), -2000

    volume = read_volume(write_series(tmp_path, shape=SHAPE, signed=True, change=pad))
    assert float(volume.voxels[:, :6].max()) == -1000
    assert np.abs(volume.voxels[:, 6:] - head(SHAPE)[:, 6:]).max() <= 0.5


def test_a_padding_value_that_is_tissue_is_not_believed(tmp_path: Path) -> None:
    files = write_series(tmp_path, shape=SHAPE, signed=True, change=lambda ds, z: setattr(ds, "PixelPaddingValue", 35))
    assert np.abs(read_volume(files).voxels - head(SHAPE)).max() <= 0.5


def test_values_outside_the_field_of_view_are_no_lower_than_air(tmp_path: Path) -> None:
    voxels = np.where(head(SHAPE) < -990, -3024.0, head(SHAPE))
    assert float(read_volume(write_series(tmp_path, shape=SHAPE, voxels=voxels, signed=True)).voxels.min()) == -1024


def test_wrapped_12_bit_values_are_unwrapped(tmp_path: Path) -> None:
    def wrap(ds: Dataset, z: int) -> None:
        hu = np.round(head(SHAPE)[z]).astype(int)
        ds.PixelData = (hu % 4096).astype("u2").tobytes()
        ds.RescaleIntercept = 0

    volume = read_volume(write_series(tmp_path, shape=SHAPE, bits=12, change=wrap))
    assert np.abs(volume.voxels - head(SHAPE)).max() <= 0.5
    assert volume.notes == ("unwrapped_12_bit",)


def test_bright_bone_alone_is_not_taken_for_wrapped(tmp_path: Path) -> None:
    voxels = np.clip(head(SHAPE), 0, None)
    voxels[5, 20:24, 10:30] = 3050  # metal
    volume = read_volume(write_series(tmp_path, shape=SHAPE, voxels=voxels, bits=12, intercept=0.0))
    assert "unwrapped_12_bit" not in volume.notes
    assert float(volume.voxels.max()) == 3050


def test_hu_clipped_by_an_exporter_are_noted(tmp_path: Path) -> None:
    clipped = np.clip(head(SHAPE), -20, 100)
    assert "hu_clipped" in read_volume(write_series(tmp_path, shape=SHAPE, voxels=clipped)).notes


def test_monochrome1_inverts_only_on_evidence(tmp_path: Path) -> None:
    def declare(ds: Dataset, z: int) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1"

    def invert(ds: Dataset, z: int) -> None:
        declare(ds, z)
        ds.PixelData = (4095 - np.frombuffer(ds.PixelData, "u2")).astype("u2").tobytes()

    plain = read_volume(write_series(tmp_path / "a", shape=SHAPE, bits=12, change=declare))
    inverted = read_volume(write_series(tmp_path / "b", shape=SHAPE, bits=12, change=invert))
    for volume in (plain, inverted):
        assert np.abs(volume.voxels - head(SHAPE)).max() <= 0.5
    assert (plain.notes, inverted.notes) == ((), ("monochrome1_inverted",))


def test_a_missing_rescale_is_guessed_from_air(tmp_path: Path) -> None:
    def strip(ds: Dataset, z: int) -> None:
        del ds.RescaleIntercept, ds.RescaleSlope

    volume = read_volume(write_series(tmp_path, shape=SHAPE, change=strip))
    assert np.abs(volume.voxels - head(SHAPE)).max() <= 0.5
    assert volume.notes == ("rescale_missing",)


def test_many_thin_slices_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_reader, "MAX_SLICES", 5)
    files = write_series(tmp_path, shape=SHAPE)
    volume = read_volume(files)
    assert volume.voxels.shape == (4, 48, 40)  # twelve slices in threes
    assert np.abs(volume.voxels - head(SHAPE).reshape(4, 3, 48, 40).mean(axis=1)).max() <= 0.5
    assert volume.notes == ("averaged_slices",)
    assert volume.geometry.spacing_zyx_mm[0] == pytest.approx(15.0)
    assert_positions(volume, files)
    assert [s.sop_instance_uid for s in volume.geometry.slices] == [
        str(dcmread(files[i]).SOPInstanceUID) for i in (1, 4, 7, 10)
    ]


def delete(*keywords: str, only: int | None = None) -> object:
    def change(ds: Dataset, z: int) -> None:
        if only is None or only == z:
            for keyword in keywords:
                delattr(ds, keyword)

    return change


def set_to(**values: object) -> object:
    def change(ds: Dataset, z: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def cut_pixels(ds: Dataset, z: int) -> None:
    if z == 5:
        ds.PixelData = ds.PixelData[:1000]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (delete("ImagePositionPatient"), "missing_position"),
        (delete("ImageOrientationPatient"), "missing_position"),
        (delete("PixelSpacing"), "missing_pixel_spacing"),
        (delete("PixelData", only=5), "no_pixels"),
        (delete("Rows"), "no_pixels"),
        (cut_pixels, "truncated"),
        (set_to(Modality="US"), "wrong_modality"),
        (set_to(SamplesPerPixel=3), "colour"),
        (set_to(PhotometricInterpretation="PALETTE COLOR"), "colour"),
        (set_to(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "mosaic"),
        (set_to(BitsAllocated=1), "undecodable"),
        (set_to(ImagePositionPatient=[0, 0, 0]), "one_slice"),
        (set_to(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "missing_position"),
    ],
)
def test_unreadable_series_say_why(tmp_path: Path, change: object, code: str) -> None:
    files = write_series(tmp_path, shape=SHAPE, change=change)  # type: ignore[arg-type]
    with pytest.raises(Unreadable) as caught:
        read_volume(files)
    assert caught.value.code == code
    if code in ("no_pixels", "truncated", "undecodable"):
        assert "1.2.826." in caught.value.text


def test_pixels_that_cannot_be_decoded_name_the_instance(tmp_path: Path) -> None:
    for transfer_syntax in COMPRESSED:
        files = write_series(tmp_path / transfer_syntax, shape=SHAPE, transfer_syntax=transfer_syntax)
        whole = files[3].read_bytes()
        at = whole.index(b"\xfe\xff\x00\xe0", whole.index(b"\xe0\x7f\x10\x00") + 20) + 8
        files[3].write_bytes(whole[:at] + b"\x07" * 64 + whole[at + 64 :])
        with pytest.raises(Unreadable, match=str(dcmread(files[3], stop_before_pixels=True).SOPInstanceUID)) as caught:
            read_volume(files)
        assert caught.value.code in ("undecodable", "truncated")


def test_a_file_cut_off_on_disk(tmp_path: Path) -> None:
    files = write_series(tmp_path, shape=SHAPE)
    files[4].write_bytes(files[4].read_bytes()[:-1500])
    with pytest.raises(Unreadable, match=r"1\.2\.826\."):
        read_volume(files)


def test_what_is_no_series(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no image")
    two = write_series(tmp_path / "a", shape=SHAPE) + write_series(tmp_path / "b", shape=SHAPE)
    for files, code in (
        ([], "no_files"),
        ([tmp_path / "x"], "not_dicom"),
        (two, "mixed_series"),
        (two[:1], "one_slice"),
    ):
        with pytest.raises(Unreadable) as caught:
            read_volume(files)
        assert caught.value.code == code


def test_missing_slice_thickness_and_one_missing_position_do_no_harm(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", shape=SHAPE, change=delete("SliceThickness"))  # type: ignore[arg-type]
    assert read_volume(files).voxels.shape == SHAPE
    files = write_series(tmp_path / "b", shape=SHAPE, change=delete("ImagePositionPatient", only=11))  # type: ignore[arg-type]
    volume = read_volume(files)
    assert volume.voxels.shape[0] == 11
    assert volume.notes == ("left_out_without_position",)


def test_spacing_from_the_reconstruction_diameter(tmp_path: Path) -> None:
    def change(ds: Dataset, z: int) -> None:
        del ds.PixelSpacing
        ds.ReconstructionDiameter = 220

    volume = read_volume(write_series(tmp_path, shape=(4, 44, 44), change=change))
    assert volume.geometry.spacing_zyx_mm[1:] == pytest.approx((5.0, 5.0))
    assert "pixel_spacing_from_diameter" in volume.notes
