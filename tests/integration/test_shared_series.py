"""Real series of ../shared/data: each is chosen and read, or refused with a coded reason; never a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.series_reader import Unreadable, read_volume
from node.catalog import Catalog, scan
from node.config import SeriesRules
from node.rules.series_choice import Candidate, choose_series, facts_of
from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def catalog(shared_data: Path) -> Catalog:
    return scan(shared_data)


@pytest.fixture(scope="module")
def candidates(catalog: Catalog, shared_data: Path) -> dict[tuple[str, str], Candidate]:
    """(folder, purpose) -> how the series in it was judged."""
    return {
        (str(series.files[0].parent.relative_to(shared_data)), purpose): choose_series(
            [facts_of(series.headers)], purpose, SeriesRules()
        ).candidates[0]
        for series in catalog.series
        for purpose in (CT_HAEMORRHAGE, MR_ABNORMALITY)
    }


def test_exactly_the_heads_are_chosen(candidates: dict[tuple[str, str], Candidate]) -> None:
    chosen = {key for key, candidate in candidates.items() if candidate.eligible}
    ct = {(f"ct/ctich-{n}", CT_HAEMORRHAGE) for n in ("049", "054", "069", "078", "087", "096", "109", "121")}
    mr = {(f"mr/{name}", MR_ABNORMALITY) for name in ("volunteer", "ms-01-1", "tcga-fg6692")}
    assert chosen == ct | mr


@pytest.mark.parametrize(
    ("folder", "purpose", "code"),
    [
        ("vendors/ge_signa_pd_fse/dicom", MR_ABNORMALITY, "proton_density"),
        ("vendors/cornerstone_ct_16ts", CT_HAEMORRHAGE, "not_a_head"),
        ("vendors/philips_ingenuity_phantom_S21570/S1000", CT_HAEMORRHAGE, "localizer"),
        ("vendors/siemens_skyra_epi/mr_0003", MR_ABNORMALITY, "mosaic"),
        ("vendors/uih_umr770_dti/dti_tra_dir16_PA_rot_SaveBySlc__134057", MR_ABNORMALITY, "mosaic"),
        ("vendors/hydrocephalus_paediatric/P1/P1B1/CT", CT_HAEMORRHAGE, "child"),
        ("vendors/siemens_frag_j2k/6001_anat-T1w_acq-tfl", MR_ABNORMALITY, "gradient_echo"),
        ("vendors/philips_achieva_enhanced_b0", MR_ABNORMALITY, "gradient_echo"),
    ],
)
def test_why_others_are_not(candidates: dict[tuple[str, str], Candidate], folder: str, purpose: str, code: str) -> None:
    assert code in {r.code for r in candidates[folder, purpose].reasons}


def test_every_series_is_read_or_refused_with_a_code(catalog: Catalog) -> None:
    refused = []
    for series in catalog.series:
        try:
            volume = read_volume(series.files)
        except Unreadable as error:
            refused.append(error.code)
        else:
            assert np.isfinite(volume.voxels).all()
            assert np.all(np.diff(volume.geometry.positions_mm) > 0)
    assert set(refused) <= {"one_slice", "mosaic", "colour", "wrong_modality"}


def test_real_ct_windows_are_seen_to_be_clipped_and_real_full_range_is_not(shared_data: Path) -> None:
    clipped = read_volume(sorted((shared_data / "ct" / "ctich-049").glob("*.dcm")))
    assert "hu_clipped" in clipped.notes
    full = read_volume(sorted((shared_data / "vendors/hydrocephalus_paediatric/P1/P1B1/CT").glob("*.dcm")))
    assert "hu_clipped" not in full.notes


def test_one_slice_in_many_transfer_syntaxes_has_the_same_values(shared_data: Path) -> None:
    from pydicom import dcmread

    from inference.pixels import stored_frame

    hu = {}
    for path in sorted((shared_data / "vendors" / "cornerstone_ct_16ts").iterdir()):
        ds = dcmread(path)
        hu[path.name] = stored_frame(ds, 0) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    assert len(hu) >= 15
    reference = next(values for name, values in hu.items() if "LittleEndianExplicit" in name)
    for name, values in hu.items():
        lossless = any(word in name for word in ("Lossless", "Endian", "Process14", "Deflated"))
        within = np.abs(values - reference) <= (0 if lossless else 70)  # 8 bits: 32 HU a step
        assert np.mean(within[reference > -1024]) > 0.99, name
