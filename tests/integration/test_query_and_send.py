"""C-ECHO, C-FIND and `falx send` against real peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fixtures_delivery import Node, destination
from fixtures_net import ct_series, deliveries_of, queue_results, report
from fixtures_reception import certificates, running_reception
from pydicom.uid import generate_uid

from node.config import QuerySettings
from node.dicom_net.embedded_pacs import EmbeddedPacs
from node.dicom_net.query import echo, find_studies, series_instance_count
from node.dicom_net.sending import dicom_files, send_folder
from node.errors import Rejected, Transient


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[EmbeddedPacs]:
    made = EmbeddedPacs(tmp_path / "pacs", "PACS", 0, {})
    made.start()
    yield made
    made.stop()


def write(folder: Path, datasets: list[pydicom.FileDataset]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"IM{number}", enforce_file_format=True)
    return folder


def falx(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node.cli", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_echo_says_what_is_wrong(pacs: EmbeddedPacs, free_port: Callable[[], int]) -> None:
    good = echo(destination(pacs.port), "FALX")
    assert good.ok
    assert "answers in" in good.text
    gone = echo(destination(free_port()), "FALX")
    assert not gone.ok
    assert "no connection" in gone.text


def test_counts_and_studies_of_the_small_pacs(pacs: EmbeddedPacs, tmp_path: Path) -> None:
    series = ct_series(4)
    send_folder(write(tmp_path / "in", series), "PACS", "127.0.0.1", pacs.port, calling_ae="CT1")
    query = QuerySettings(ae_title="PACS", host="127.0.0.1", port=pacs.port)
    study, uid = series[0].StudyInstanceUID, series[0].SeriesInstanceUID
    assert series_instance_count(query, study, uid, calling_ae="FALX") == 4
    assert series_instance_count(query, study, "1.2.3", calling_ae="FALX") is None
    (found,) = find_studies(query, calling_ae="FALX", study_date="20240101-20240131", modality="CT")
    assert found.StudyInstanceUID == study
    assert find_studies(query, calling_ae="FALX", study_date="20230101-20231231") == []
    with pytest.raises(Transient):
        series_instance_count(query.model_copy(update={"port": 1}), study, uid, calling_ae="FALX")


@pytest.mark.needs("Orthanc")
def test_counts_of_orthanc(orthanc_factory: Callable[..., Any], tmp_path: Path) -> None:
    orthanc = orthanc_factory({"FALX": ("127.0.0.1", 1)})
    series = ct_series(3)
    send_folder(write(tmp_path / "in", series), "ORTHANC", "127.0.0.1", orthanc.port, calling_ae="FALX")
    query = QuerySettings(ae_title="ORTHANC", host="127.0.0.1", port=orthanc.port)
    study, uid = series[0].StudyInstanceUID, series[0].SeriesInstanceUID
    assert series_instance_count(query, study, uid, calling_ae="FALX") == 3
    assert series_instance_count(query, study, "1.2.3", calling_ae="FALX") is None


def test_send_takes_any_names_leaves_out_directories_and_lists_what_is_no_dicom(
    pacs: EmbeddedPacs, tmp_path: Path
) -> None:
    folder = write(tmp_path / "in", ct_series(2))
    write(folder / "deeper", ct_series(1))
    (folder / "README.txt").write_text("not dicom")
    (folder / "empty").write_bytes(b"")
    directory = report("1.2.3")
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    out = tmp_path / "out.json"
    done = falx("send", str(folder), "--to", f"PACS@127.0.0.1:{pacs.port}", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "3 of 3 objects sent, 2 studies" in done.stderr
    document = json.loads(out.read_text())
    assert {o["state"] for o in document["objects"]} == {"sent"}
    assert {Path(p).name for p in document["not_dicom"]} == {"README.txt", "empty"}
    assert len(pacs.datasets()) == 3


def test_send_ends_with_1_when_something_is_refused_and_the_json_is_clean(tmp_path: Path) -> None:
    series = ct_series(2)
    del series[1].StudyInstanceUID
    folder = write(tmp_path / "in", series)
    with running_reception(tmp_path / "falx", reception={"callers": [{"ae_title": "FALX_SEND"}]}) as reception:
        config = tmp_path / "falx" / "config.yaml"
        done = falx("send", str(folder), "-c", str(config), "--json", "-")
        assert len(reception.rows()) == 1
    assert done.returncode == 1
    assert [o["status"] for o in json.loads(done.stdout)["objects"]] == ["0x0000", "0xC000"]
    assert "cannot understand" in done.stderr


def test_send_says_what_is_wrong_with_its_arguments(tmp_path: Path, free_port: Callable[[], int]) -> None:
    folder = write(tmp_path / "in", ct_series(1))
    assert falx("send", str(folder)).returncode == 2
    assert "AE@host:port" in falx("send", str(folder), "--to", "PACS").stderr
    done = falx("send", str(folder), "--to", f"PACS@127.0.0.1:{free_port()}")
    assert (done.returncode, "no connection" in done.stderr) == (1, True)
    with pytest.raises(Rejected, match="no DICOM file"):
        send_folder(tmp_path / "out", "PACS", "127.0.0.1", 1, calling_ae="FALX")


def test_more_kinds_than_one_association_can_carry(pacs: EmbeddedPacs, tmp_path: Path) -> None:
    """50 SOP classes in 2 or 3 contexts each are more than the 128 an association has."""
    datasets = []
    for number in range(70):
        (one,) = ct_series(1)
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = f"1.3.46.670589.11.0.0.12.{number + 1}"
        datasets.append(one)
    result = send_folder(write(tmp_path / "in", datasets), "PACS", "127.0.0.1", pacs.port, calling_ae="CT1")
    assert result.refused == []
    assert len(pacs.datasets()) == 70


def test_a_file_whose_meta_names_another_object_is_sent_as_what_it_is(pacs: EmbeddedPacs, tmp_path: Path) -> None:
    (one,) = ct_series(1)
    folder = write(tmp_path / "in", [one])
    content = (folder / "IM0").read_bytes()
    right, wrong = str(one.SOPInstanceUID).encode(), str(one.SOPInstanceUID)[:-1].encode()
    wrong += b"1" if right.endswith(b"0") else b"0"
    place = content.index(right)
    (folder / "IM0").write_bytes(content[:place] + wrong + content[place + len(right) :])
    assert pydicom.dcmread(folder / "IM0").file_meta.MediaStorageSOPInstanceUID != one.SOPInstanceUID
    assert send_folder(folder, "PACS", "127.0.0.1", pacs.port, calling_ae="CT1").refused == []
    assert [str(d.SOPInstanceUID) for d in pacs.datasets()] == [one.SOPInstanceUID]


def test_dicom_files_of_a_single_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ct_series(1))
    files, others = dicom_files(folder / "IM0")
    assert (len(files), others) == (1, [])


@pytest.mark.needs("openssl", "storescp")
def test_results_go_out_over_mutual_tls(
    tmp_path: Path, free_port: Callable[[], int], wait_for: Callable[..., object]
) -> None:
    keys, out, port = tmp_path / "keys", tmp_path / "received", free_port()
    certificates(keys)
    out.mkdir()
    server = subprocess.Popen(
        ["storescp", "+tls", str(keys / "ct1.key"), str(keys / "ct1.pem"), "+cf", str(keys / "ca.pem"), "-rc",
         "-od", str(out), "-aet", "PACS", "--accept-all", str(port)]
    )  # fmt: skip
    secure = {"certificate": keys / "falx.pem", "private_key": keys / "falx.key", "trusted": keys / "ca.pem"}
    node = Node(tmp_path / "falx", free_port(), destination(port, tls=secure))
    try:
        with node.running():
            queue_results(node.settings.storage, node.ledger, [report(generate_uid())], ["pacs"])
            wait_for(node.all_are("confirmed"), 60, "acceptance")
    finally:
        server.terminate()
        server.wait()
    assert len(list(out.iterdir())) == 1
    assert {row["confirmed_by"] for row in deliveries_of(node.ledger).values()} == {"accepted"}
