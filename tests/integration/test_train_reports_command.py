"""`falx train reports` and `falx evaluate reports`: the compact network, and a tiny encoder checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inference.labels import REPORT_LABELS
from inference.report_labels import ReportLabeller
from node.cli import app
from node.errors import Misconfigured

DEV_SET = Path(__file__).parents[1] / "data" / "report_dev_set.jsonl"
ROWS = [json.loads(line) for line in DEV_SET.read_text(encoding="utf-8").splitlines()]


def falx(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", "-"])
    if result.exception:
        raise result.exception
    answer: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    return answer


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A label file as `falx labels export` writes it: accession numbers, label columns, no texts."""
    lines = ["accession_number,p_mass,reader," + ",".join(REPORT_LABELS)]
    for row in ROWS[:40]:
        values = ["" if row["labels"][label] is None else str(row["labels"][label]) for label in REPORT_LABELS]
        lines.append(f"{row['id']},0.5,x," + ",".join(values))
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([*lines, "unknown-accession,0.1,x" + ",0" * 10]) + "\n")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A randomly initialised BERT of two thin layers, with a vocabulary of the words of the development set."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    words = sorted({word for row in ROWS[:40] for word in row["text"].lower().split() if word.isalpha()})
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_tuning_the_compact_network_on_local_labels(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "model"
    record = falx("train", "reports", "--labels", labels, "--reports", DEV_SET, "--out", out, "--epochs", 1)
    assert record["unmatched_rows"] == 1
    assert record["local_reports"] == 40
    assert record["ignored_columns"] == ["p_mass", "reader"]
    labeller = ReportLabeller.load(out)
    assert labeller.model_id.name == "falx-report-labels-local"
    assert labeller.model_id != ReportLabeller.load().model_id
    (answer,) = labeller.label(["Large acute subdural haematoma on the left with midline shift."], ["CT"])
    assert answer.probabilities["intracranial_haemorrhage"] > answer.probabilities["mass"]
    with pytest.raises(Misconfigured, match="not empty"):
        falx("train", "reports", "--labels", labels, "--reports", DEV_SET, "--out", out)


def test_an_encoder_is_adapted_tuned_saved_and_loaded(tmp_path: Path, labels: Path, checkpoint: Path) -> None:
    out = tmp_path / "model"
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text("\n".join(json.dumps({"id": row["id"], "text": row["text"]}) for row in ROWS[40:72]))
    record = falx(
        "train", "reports", "--labels", labels, "--reports", DEV_SET, "--out", out, "--epochs", 2,
        "--encoder", checkpoint, "--mlm", unlabelled,
    )  # fmt: skip
    assert len(record["mlm_losses"]) == 1
    labeller = ReportLabeller.load(out)
    texts = [row["text"] for row in ROWS[:9]] + [ROWS[80]["text"] * 3]
    answers = labeller.label(texts, ["MR"] * 10)
    for text, answer in zip(texts, answers, strict=True):
        assert set(answer.probabilities) == set(REPORT_LABELS)
        for label, spans in answer.evidence.items():
            assert all(text[start:end].strip() for start, end in spans)
            assert spans or answer.labels[label] == 0
    assert labeller.embed(texts).shape == (10, 32)
    (out / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer"):
        ReportLabeller.load(out)


def test_an_encoder_learns_what_the_labels_say(checkpoint: Path) -> None:
    from inference.training.report_encoder_fit import EncoderSettings, encoder_logits, read_checkpoint, tune
    from inference.training.report_fit import labelled_example

    texts = {1: "haemorrhage in the left frontal lobe", 0: "the ventricles are normal"}
    examples = [labelled_example(texts[n % 2], "CT", {"mass": n % 2}) for n in range(16)]
    encoder = read_checkpoint(checkpoint)
    losses: list[float] = []
    settings = EncoderSettings(epochs=12, batch=8, learning_rate=1e-3)
    tune(encoder, [e for e in examples if e], settings, lambda epoch, loss: losses.append(loss))
    logits = encoder_logits(encoder, [e for e in examples[:2] if e])[:, REPORT_LABELS.index("mass")]
    assert losses[-1] < 0.5 * losses[0]
    assert logits[1] > logits[0] + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mlm", DEV_SET), "give --encoder"),
        (("--encoder", Path("/nowhere")), "config.json is missing"),
    ],
)
def test_wrong_arguments(tmp_path: Path, labels: Path, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        falx("train", "reports", "--labels", labels, "--reports", DEV_SET, "--out", tmp_path / "m", *arguments)


def test_label_files_that_cannot_be_used(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(Misconfigured, match="no row of"):
        falx("train", "reports", "--labels", labels, "--out", tmp_path / "m")
    (tmp_path / "other.csv").write_text("id,finding\n1,2\n")
    with pytest.raises(Misconfigured, match="no column that names a label"):
        falx("evaluate", "reports", "--labels", tmp_path / "other.csv", "--reports", DEV_SET)


def test_evaluation_shows_intervals_and_the_keyword_labeller(labels: Path) -> None:
    result = falx("evaluate", "reports", "--labels", labels, "--reports", DEV_SET)
    assert result["reports"] == 40
    assert result["unmatched_rows"] == 1
    abnormal = result["labels"]["abnormal"]
    assert abnormal["auc_low"] <= abnormal["auc"] <= abnormal["auc_high"]
    assert abnormal["positives"] + abnormal["negatives"] <= 40
    assert 0.5 < result["keyword_mean_auc"] <= 1
    assert result["model"]["sha256"]
