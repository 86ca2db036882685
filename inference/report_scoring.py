"""From split reports to `ReportLabels`: screening, a scoring network, calibration, abstention, evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from inference.calibration import sigmoid
from inference.labels import REPORT_LABELS
from inference.report_features import WordTable
from inference.report_labels import ReportLabels, Span
from inference.report_net import ReportNet, ReportNetConfig, as_tensors
from inference.report_screen import unusable
from inference.report_text import MAX_REPORT_CHARACTERS, CleanText, Sentence, clean, split
from inference.result import ModelId
from inference.weights import Metadata, WrongModel, load_weights

Floats = npt.NDArray[np.float32]

BATCH_REPORTS = 32
_EVIDENCE_LOGIT_MARGIN = 2.0
_MAX_EVIDENCE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RawScores:
    """Logits ``report`` [R, 10], ``sentences`` one [S, 10] a report, ``vectors`` [R, width]."""

    report: Floats
    sentences: list[Floats]
    vectors: Floats


class Network(Protocol):
    """Anything that scores split reports."""

    def scores(
        self, reports: Sequence[Sequence[Sentence]], texts: Sequence[str], modalities: Sequence[str]
    ) -> RawScores:
        """Score a batch; every report has at least one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPoint:
    """One label's calibration ``sigmoid(slope * logit + intercept)`` and abstention band ``low < p < high``."""

    slope: float = 1.0
    intercept: float = 0.0
    low: float = 0.3
    high: float = 0.7

    def decide(self, probability: float) -> int | None:
        """1, 0, or None inside the band."""
        if probability >= self.high:
            return 1
        return 0 if probability <= self.low else None


class CompactNetwork:
    """The shipped network: one or several members whose logits are averaged; word vectors are kept between batches."""

    def __init__(self, members: Sequence[ReportNet]) -> None:
        self._members = [member.eval() for member in members]
        self._table = WordTable()
        self._vectors = [torch.zeros(0, member.config.word_size) for member in members]
        self._filled = 0
        self._generation = self._table.generation

    def scores(
        self, reports: Sequence[Sequence[Sentence]], texts: Sequence[str], modalities: Sequence[str]
    ) -> RawScores:
        """See `Network`."""
        batch = self._table.batch(reports, texts, modalities)
        with torch.inference_mode():
            self._learn_new_words()
            outputs = []
            for member, vectors in zip(self._members, self._vectors, strict=True):
                tensors = as_tensors(batch, member.config.gram_buckets)
                outputs.append(member(tensors, vectors[tensors.words]))
            report = torch.stack([output.report for output in outputs]).mean(0).numpy()
            sentence = torch.stack([output.sentence for output in outputs]).mean(0).numpy()
            summary = torch.cat([output.vector for output in outputs], 1).numpy()
        ends = np.cumsum([len(sentences) for sentences in reports])[:-1]
        return RawScores(report=report, sentences=list(np.split(sentence, ends)), vectors=summary)

    def _learn_new_words(self) -> None:
        words = self._table.words
        if self._table.generation != self._generation:
            self._generation, self._filled = self._table.generation, 0
        if len(words) == self._filled:
            return
        fresh = words[self._filled :]
        for index, member in enumerate(self._members):
            kept = self._vectors[index]
            if len(words) > len(kept):
                grown = torch.zeros(max(2 * len(kept), len(words), 4096), member.config.word_size)
                grown[: self._filled] = kept[: self._filled]
                self._vectors[index] = kept = grown
            kept[self._filled : len(words)] = member.word_vectors(fresh)
        self._filled = len(words)


class ReportScorer:
    """Texts in, `ReportLabels` out, in the order given."""

    def __init__(self, network: Network, model_id: ModelId, points: Mapping[str, LabelPoint]) -> None:
        self.model_id = model_id
        self._network = network
        self._points = [points[label] for label in REPORT_LABELS]
        self._slope = np.array([point.slope for point in self._points])
        self._intercept = np.array([point.intercept for point in self._points])

    def label(self, texts: Sequence[str], modalities: Sequence[str]) -> list[ReportLabels]:
        """Label reports; see `ReportLabeller.label`."""
        answers: list[ReportLabels | None] = [None] * len(texts)
        waiting: list[tuple[int, CleanText, list[Sentence]]] = []
        for index, text in enumerate(texts):
            cleaned = clean(text)
            sentences = [] if len(cleaned.text) > MAX_REPORT_CHARACTERS else split(cleaned.text)
            reason = unusable(cleaned.text, sentences)
            if reason:
                answers[index] = _declined(reason, cleaned.repaired)
            else:
                waiting.append((index, cleaned, sentences))
        waiting.sort(key=lambda item: len(item[2]))  # reports of like length share a batch
        for first in range(0, len(waiting), BATCH_REPORTS):
            chunk = waiting[first : first + BATCH_REPORTS]
            scores = self._network.scores(
                [sentences for _, _, sentences in chunk],
                [cleaned.text for _, cleaned, _ in chunk],
                [modalities[index] for index, _, _ in chunk],
            )
            probabilities = sigmoid(scores.report * self._slope + self._intercept)
            for row, (index, cleaned, sentences) in enumerate(chunk):
                answers[index] = self._answer(probabilities[row], scores.sentences[row], cleaned, sentences)
        return [answer for answer in answers if answer is not None]

    def embed(self, texts: Sequence[str]) -> Floats:
        """One unit vector a text, zeros for a text without a word."""
        vectors: dict[int, Floats] = {}
        split_texts = [(index, cleaned, split(cleaned.text)) for index, cleaned in enumerate(map(_clean_start, texts))]
        usable = [item for item in split_texts if item[2]]
        for first in range(0, len(usable), BATCH_REPORTS):
            chunk = usable[first : first + BATCH_REPORTS]
            scores = self._network.scores([s for _, _, s in chunk], [c.text for _, c, _ in chunk], [""] * len(chunk))
            vectors.update({index: vector for (index, _, _), vector in zip(chunk, scores.vectors, strict=True)})
        width = len(next(iter(vectors.values()))) if vectors else 1
        table = np.stack([vectors.get(index, np.zeros(width, np.float32)) for index in range(len(texts))])
        norm = np.linalg.norm(table, axis=1, keepdims=True)
        return np.asarray(table / np.where(norm > 0, norm, 1), dtype=np.float32)

    def _answer(
        self, probabilities: npt.NDArray[np.float64], logits: Floats, cleaned: CleanText, sentences: list[Sentence]
    ) -> ReportLabels:
        labels: dict[str, int | None] = {}
        evidence: dict[str, tuple[Span, ...]] = {}
        for column, label in enumerate(REPORT_LABELS):
            decision = self._points[column].decide(float(probabilities[column]))
            labels[label] = decision
            spans: list[Span] = []
            if decision != 0:
                scores = logits[:, column]
                bar = max(scores.max() - _EVIDENCE_LOGIT_MARGIN, 0.0)
                chosen = set(np.argsort(-scores, kind="stable")[:_MAX_EVIDENCE].tolist())
                picked = [i for i in sorted(chosen) if scores[i] >= bar] or [int(scores.argmax())]
                spans = [cleaned.original_span(sentences[i].start, sentences[i].end) for i in picked]
            evidence[label] = tuple(spans)
        return ReportLabels(
            probabilities={label: round(float(p), 6) for label, p in zip(REPORT_LABELS, probabilities, strict=True)},
            labels=labels,
            evidence=evidence,
            flags=("repaired_encoding",) if cleaned.repaired else (),
        )


def _clean_start(text: str) -> CleanText:
    return clean(text[:MAX_REPORT_CHARACTERS])


def _declined(reason: str, repaired: bool) -> ReportLabels:
    return ReportLabels(
        probabilities={},
        labels=dict.fromkeys(REPORT_LABELS),
        evidence=dict.fromkeys(REPORT_LABELS, ()),
        flags=(reason, "repaired_encoding") if repaired else (reason,),
    )


def load_scorer(folder: Path) -> ReportScorer:
    """Load a model folder of either kind; raise `WrongModel` (a ValueError) for anything that is not one."""
    metadata, tensors = load_weights(folder)
    kind = metadata.architecture.get("kind")
    if kind == "compact":
        network: Network = CompactNetwork(_members(metadata, tensors))
    elif kind == "encoder":
        from inference.report_encoder import load_encoder

        network = load_encoder(metadata, tensors, folder)
    else:
        raise WrongModel(f"{folder} holds no report model: its architecture is {kind!r}, expected compact or encoder")
    points = {label: LabelPoint(**metadata.architecture["points"][label]) for label in REPORT_LABELS}
    return ReportScorer(network, metadata.model_id, points)


def compact_members(folder: Path) -> list[ReportNet]:
    """The networks of a compact model folder, to be trained further."""
    return _members(*load_weights(folder))


def _members(metadata: Metadata, tensors: Mapping[str, torch.Tensor]) -> list[ReportNet]:
    sizes: Mapping[str, Any] = metadata.architecture["net"]
    members = []
    for number in range(int(metadata.architecture["members"])):
        net = ReportNet(ReportNetConfig(**sizes))
        prefix = f"{number}."
        net.load_state_dict({k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)})
        members.append(net.eval())
    return members
