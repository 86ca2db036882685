"""Which series is read, and why not the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.config import SeriesRules
from node.errors import Rejected
from node.headers import Header
from node.rules.ct_series import Kernel, kernel_of
from node.rules.facts import SeriesFacts
from node.rules.series_choice import Candidate, choose_series, facts_of, why_none
from node.study import CT_HAEMORRHAGE, MR_ABNORMALITY

RULES = SeriesRules()
CT_CLASS, MR_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
CT = {
    "modality": "CT",
    "sop_class_uid": CT_CLASS,
    "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "convolution_kernel": "H30s",
    "series_description": "Head 5.0",
    "body_part": "HEAD",
    "patient_age_years": 65.0,
}
MR = {
    "modality": "MR",
    "sop_class_uid": MR_CLASS,
    "image_type": ("ORIGINAL", "PRIMARY", "M", "ND"),
    "series_description": "t2_tse_tra",
    "scanning_sequence": ("SE",),
    "echo_time_ms": 100.0,
    "repetition_time_ms": 5000.0,
    "echo_train_length": 15,
    "body_part": "BRAIN",
    "patient_age_years": 65.0,
}


def series(
    base: dict[str, object], *, n: int = 32, step_mm: float = 5.0, number: int = 1, axial: bool = True, **values: object
) -> SeriesFacts:
    merged = {**base, **values}
    direction = (0.0, 0.0, 1.0) if axial else (1.0, 0.0, 0.0)
    orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if axial else (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    return facts_of(
        [
            Header(
                **{
                    "study_instance_uid": "1.2.3",
                    "series_instance_uid": f"1.2.3.{number}",
                    "sop_instance_uid": f"1.2.3.{number}.{z}",
                    "series_number": number,
                    "rows": 512,
                    "columns": 512,
                    "pixel_spacing_mm": (0.45, 0.45),
                    "slice_thickness_mm": step_mm,
                    "frame_positions_mm": (tuple(step_mm * z * d for d in direction),),
                    "frame_orientations": (orientation,),
                    "instance_number": z + 1,
                    **merged,
                }  # type: ignore[arg-type]
            )
            for z in range(n)
        ]
    )


def judged(facts: SeriesFacts, purpose: str, rules: SeriesRules = RULES) -> Candidate:
    return choose_series([facts], purpose, rules).candidates[0]


def codes(candidate: Candidate) -> set[str]:
    return {r.code for r in candidate.reasons}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"series_description": "Topogram 0.6"}, "localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "derived"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "MIP")}, "derived"),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL")}, "derived"),
        ({"series_description": "Dose Report"}, "derived"),
        ({"series_description": "Head MPR cor"}, "derived"),
        ({"contrast_agent": "Iomeron 400"}, "contrast"),
        ({"series_description": "CTA Head 0.75"}, "contrast"),
        ({"series_description": "Head C+ 5.0"}, "contrast"),
        ({"series_description": "Head post contrast"}, "contrast"),
        ({"convolution_kernel": "H70h"}, "kernel"),
        ({"convolution_kernel": "BONE"}, "kernel"),
        ({"convolution_kernel": "FC30"}, "kernel"),
        ({"convolution_kernel": "", "series_description": "Head bone 1.0"}, "kernel"),
        ({"patient_age_years": 17.0}, "child"),
        ({"body_part": "CHEST"}, "not_a_head"),
        ({"body_part": "", "series_description": "Thorax 5.0"}, "not_a_head"),
        ({"body_part": "", "pixel_spacing_mm": (0.9, 0.9)}, "not_a_head"),
        ({"series_description": "Head phantom QA"}, "phantom"),
        ({"patient_name": "PHANTOM^DAILY"}, "phantom"),
        ({"n": 15}, "coverage"),
        ({"n": 5, "step_mm": 30.0}, "too_few_slices"),
        ({"n": 1600, "step_mm": 0.1}, "too_many_slices"),
        ({"axial": False}, "not_axial"),
        ({"pixel_spacing_mm": None}, "missing_pixel_spacing"),
        ({"frame_positions_mm": (None,)}, "missing_position"),
        ({"frame_orientations": ((0.0,) * 6,)}, "missing_position"),
        ({"study_instance_uid": "../x"}, "invalid_uid"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, "wrong_modality"),
        ({"samples_per_pixel": 3}, "colour"),
    ],
)
def test_ct_series_that_are_not_read(values: dict[str, object], code: str) -> None:
    candidate = judged(series(CT, **values), CT_HAEMORRHAGE)
    assert not candidate.eligible
    assert code in codes(candidate)
    assert all(r.text.startswith("The series ") and r.text.endswith(".") for r in candidate.reasons)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"contrast_agent": "NONE"},
        {"series_description": "Head without contrast"},
        {"series_description": "Head w/o contrast"},
        {"series_description": "Kopf nativ 4.0 J30s"},
        {"convolution_kernel": "FC64"},
        {"convolution_kernel": "UB"},
        {"convolution_kernel": "Hr40f\\2"},
        {"convolution_kernel": "STANDARD"},
        {"convolution_kernel": "11"},
        {"patient_age_years": None},
        {"patient_age_years": 18.0},
        {"body_part": ""},
        {"image_type": ("DERIVED", "PRIMARY", "AXIAL"), "lossy": True},
        {"n": 240, "step_mm": 0.625},
    ],
)
def test_ct_series_that_are_read(values: dict[str, object]) -> None:
    candidate = judged(series(CT, **values), CT_HAEMORRHAGE)
    assert candidate.eligible, candidate.reasons


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"inversion_time_ms": 2500.0, "repetition_time_ms": 9000.0}, "flair"),
        ({"scanning_sequence": ("SE", "IR")}, "inversion_recovery"),
        ({"inversion_time_ms": 160.0}, "inversion_recovery"),
        ({"series_description": "t2_tirm_tra_dark-fluid"}, "flair"),
        ({"series_description": "AX FLAIR"}, "flair"),
        ({"scanning_sequence": ("EP", "SE")}, "epi"),
        ({"b_value": 1000.0}, "diffusion"),
        ({"image_type": ("DERIVED", "PRIMARY", "ADC")}, "diffusion"),
        ({"series_description": "DWI b1000"}, "diffusion"),
        ({"scanning_sequence": ("GR",), "echo_time_ms": 20.0, "repetition_time_ms": 700.0}, "gradient_echo"),
        ({"series_description": "AX T2* GRE"}, "gradient_echo"),
        ({"echo_time_ms": 22.0, "repetition_time_ms": 2300.0}, "proton_density"),
        ({"echo_time_ms": 12.0, "repetition_time_ms": 500.0}, "t1"),
        ({"echo_time_ms": 700.0}, "weighting"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, "not_magnitude"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC")}, "mosaic"),
        ({"axial": False}, "not_axial"),
        ({"series_description": "localizer"}, "localizer"),
        ({"body_part": "LSPINE"}, "not_a_head"),
        ({"echo_time_ms": None, "repetition_time_ms": None, "series_description": "Series 4"}, "weighting_unknown"),
        ({"echo_time_ms": None, "repetition_time_ms": None, "series_description": "t1 tra"}, "t1"),
    ],
)
def test_mr_series_that_are_not_read(values: dict[str, object], code: str) -> None:
    candidate = judged(series(MR, **values), MR_ABNORMALITY)
    assert not candidate.eligible
    assert code in codes(candidate)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"series_description": ""},
        {"series_description": "PD/T2 dual echo"},
        {"inversion_time_ms": 0.0},
        {"echo_time_ms": None, "repetition_time_ms": None, "series_description": "AX T2 FSE"},
        {"image_type": ("ORIGINAL", "PRIMARY", "MPR")},
        {"n": 160, "step_mm": 1.0, "mr_acquisition_type": "3D", "echo_time_ms": 280.0},
    ],
)
def test_mr_series_that_are_read(values: dict[str, object]) -> None:
    candidate = judged(series(MR, **values), MR_ABNORMALITY)
    assert candidate.eligible, candidate.reasons


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("H30s", Kernel.SOFT), ("J40s", Kernel.SOFT), ("Hr36f", Kernel.SOFT), ("H60s", Kernel.SHARP),
        ("Hr64h", Kernel.SHARP), ("SOFT", Kernel.SOFT), ("BONEPLUS", Kernel.SHARP), ("FC21", Kernel.SOFT),
        ("FC08", Kernel.SOFT), ("FC68", Kernel.SOFT), ("FC81", Kernel.SHARP), ("UA", Kernel.SOFT),
        ("YB", Kernel.SHARP), ("", Kernel.UNKNOWN), ("XYZ", Kernel.UNKNOWN),
    ],
)  # fmt: skip
def test_kernels(name: str, kernel: Kernel) -> None:
    assert kernel_of(series(CT, convolution_kernel=name)) is kernel


def test_the_best_of_several_ct_series_is_chosen_in_any_order() -> None:
    study = [
        series(CT, number=1, series_description="Topogram", axial=False, n=1),
        series(CT, number=2, series_description="Head 5.0 H30s"),
        series(CT, number=3, series_description="Head 0.6 H30s", step_mm=0.625, n=250),
        series(CT, number=4, series_description="Head 1.0 H70h", convolution_kernel="H70h"),
        series(MR, number=5),
    ]
    for order in (study, study[::-1]):
        choice = choose_series(order, CT_HAEMORRHAGE, RULES)
        assert choice.chosen is not None
        assert choice.chosen.series_instance_uid == "1.2.3.2"
        assert [c.eligible for c in choice.candidates] == [True, True, False, False, False]
        assert "thickness" in codes(choice.candidates[0])


def test_a_whole_series_wins_over_one_with_gaps() -> None:
    holed = series(CT, number=9)
    headers = [replace(holed.header, frame_positions_mm=((0.0, 0.0, 5.0 * z),)) for z in range(32) if z != 15]
    choice = choose_series([facts_of(headers), series(CT, number=2)], CT_HAEMORRHAGE, RULES)
    assert choice.chosen is not None
    assert choice.chosen.series_instance_uid == "1.2.3.2"
    assert choose_series([facts_of(headers)], CT_HAEMORRHAGE, RULES).flags == ("missing_slices",)


def test_an_absent_age_is_flagged() -> None:
    assert choose_series([series(CT, patient_age_years=None)], CT_HAEMORRHAGE, RULES).flags == ("age_unknown",)


def test_rules_of_the_site() -> None:
    two = [series(CT, number=1, series_description="Head A"), series(CT, number=2, series_description="Head B")]
    preferred = choose_series(two, CT_HAEMORRHAGE, SeriesRules(prefer_descriptions=("head a",)))
    assert preferred.chosen is not None
    assert preferred.chosen.series_instance_uid == "1.2.3.1"
    excluded = choose_series(two, CT_HAEMORRHAGE, SeriesRules(exclude_descriptions=(r"\bB$", "A")))
    assert excluded.chosen is None
    assert {r.code for c in excluded.candidates for r in c.reasons} == {"excluded_by_rule"}


def test_why_none_names_the_nearest() -> None:
    study = [series(MR, number=1, series_description="FLAIR"), series(CT, number=2)]
    reason = why_none(choose_series(study, MR_ABNORMALITY, RULES), MR_ABNORMALITY)
    assert reason.code == "flair"
    assert reason.text == "No series is an axial T2 of the head. The series is a FLAIR by its description."
    none = why_none(choose_series(study[1:], MR_ABNORMALITY, RULES), MR_ABNORMALITY)
    assert (none.code, none.text) == ("wrong_modality", "The study holds no MR series.")


def test_two_series_given_as_one_are_refused() -> None:
    with pytest.raises(Rejected, match="2 different series"):
        facts_of([series(CT, number=1).header, series(CT, number=2).header])
    with pytest.raises(Rejected, match="no instance"):
        facts_of([])


def test_a_whole_body_is_read_when_no_head_series_is_there() -> None:
    body = series(CT, n=160, number=1, body_part="WHOLEBODY", series_description="Whole body native", rows=800)
    alone = choose_series([body], CT_HAEMORRHAGE, RULES)
    assert alone.chosen is body
    assert "longer_than_a_head" in {one.code for one in alone.candidates[0].reasons}
    head = series(CT, number=2, slice_thickness_mm=8.0, step_mm=8.0, convolution_kernel="")
    assert choose_series([body, head], CT_HAEMORRHAGE, RULES).chosen is head


def test_a_trunk_by_its_body_part_is_not_read_however_long() -> None:
    trunk = series(CT, n=160, body_part="CHEST")
    assert choose_series([trunk], CT_HAEMORRHAGE, RULES).chosen is None
