"""Label files of every form that `falx train` and `falx evaluate` read, and what is refused."""

import polars as pl
import pytest

from inference.training.label_file import LabelFileError, read_label_file


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_falx_export_with_studies_accessions_and_extras(tmp_path):
    file = write(
        tmp_path / "labels.csv",
        "study_instance_uid,accession_number,abnormal,Mass,acute stroke,p_abnormal,model_name,station\n"
        "1.2.3,A1,1,0,,0.9,m,X\n,A2,0,,1,0.1,m,Y\n",
    )
    found = read_label_file(file)
    assert found.of_study("1.2.3") == {"abnormal": 1, "mass": 0, "acute_stroke": None}
    assert found.of_study("9.9", accession="A2") == {"abnormal": 0, "mass": None, "acute_stroke": 1}
    assert found.of_study("9.9", accession="A3") is None
    assert found.ignored == ("station",)
    assert len(found.sha256) == 64


def test_parquet_is_read_like_csv(tmp_path):
    pl.DataFrame({"study_instance_uid": ["1.2"], "haemorrhage": [1], "epidural": [0.0]}).write_parquet(
        tmp_path / "l.parquet"
    )
    assert read_label_file(tmp_path / "l.parquet").of_study("1.2") == {"intracranial_haemorrhage": 1, "extradural": 0}


def test_a_study_is_the_sum_of_its_slices(tmp_path):
    file = write(
        tmp_path / "slices.csv",
        "id,study_instance_uid,sop_instance_uid,slice,haemorrhage,epidural,fracture\n"
        "a,1.2,1.2.1,1,0,0,1\na,1.2,1.2.2,2,1,1,1\nb,1.3,1.3.1,1,0,0,0\n",
    )
    found = read_label_file(file)
    assert found.of_slice("1.2.2") == {"intracranial_haemorrhage": 1, "extradural": 1}
    assert found.of_study("1.2", slice_uids=["1.2.1", "1.2.2"])["intracranial_haemorrhage"] == 1
    assert found.of_study("1.3", slice_uids=["1.3.1"])["intracranial_haemorrhage"] == 0
    assert found.of_study("1.4", slice_uids=["1.4.1"]) is None
    assert set(found.ignored) == {"id", "slice", "fracture"}


def test_rsna_2019(tmp_path):
    rows = [
        "ID_0a1_epidural,0",
        "ID_0a1_any,1",
        "ID_0a1_subdural,1",
        "ID_0b2_any,0",
        "ID_0b2_subdural,0",
        "ID_0b2_epidural,0",
    ]
    found = read_label_file(write(tmp_path / "stage_2_train.csv", "ID,Label\n" + "\n".join(rows) + "\n"))
    assert found.of_slice("ID_0a1") == {"extradural": 0, "intracranial_haemorrhage": 1, "subdural": 1}
    assert found.of_study("1", slice_uids=["ID_0b2"])["intracranial_haemorrhage"] == 0


def test_cq500_majority_of_three_readers(tmp_path):
    kinds = ["ICH", "IPH", "IVH", "SDH", "EDH", "SAH"]
    header = ",".join(["name", "Category", *(f"R{r}:{k}" for r in (1, 2, 3) for k in kinds)])
    row = ",".join(["CQ500-CT-7", "B1", "1,1,0,0,0,0", "1,0,0,0,0,0", "0,0,0,0,0,1"])
    found = read_label_file(write(tmp_path / "reads.csv", f"{header}\n{row}\n"))
    labels = found.of_study("1.2.3", patient="CQ500CT7 CQ500CT7"[:8])
    assert labels["intracranial_haemorrhage"] == 1
    assert labels["intraparenchymal"] == 0
    assert labels["subarachnoid"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_instance_uid,station\n1,2\n", "holds no label column"),
        ("name,abnormal\n1,1\n", "names no study"),
        ("study_instance_uid,abnormal\n1.2,maybe\n", "line 2, column abnormal: 'maybe' is not 1, 0 or empty"),
        ("study_instance_uid,abnormal\n1.2,0.5\n", "not 1, 0 or empty"),
        ("ID,Label\nfoo,1\n", "is not ID_<slice>"),
        ("name,R1:ICH\na,1\n", "lacks the columns"),
        ("", "neither CSV nor Parquet"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(LabelFileError, match=message):
        read_label_file(write(tmp_path / "l.csv", text))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(LabelFileError, match="No such file"):
        read_label_file(tmp_path / "none.csv")


@pytest.mark.shared_data
def test_the_real_label_files(shared_data):
    ct = read_label_file(shared_data / "ct_labels.csv")
    mr = read_label_file(shared_data / "mr_labels.csv")
    assert sum(v["intracranial_haemorrhage"] for v in ct.by_slice.values()) > 4
    assert sorted(v["abnormal"] for v in mr.by_study.values()) == [0, 1, 1]
