"""Trains the report network on labelled reports: synthetic ones made afresh as it goes, or a site's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from inference.labels import REPORT_LABELS
from inference.report_features import Batch, WordTable
from inference.report_net import BRANCHES, ReportNet, ReportNetConfig, as_tensors
from inference.report_text import Sentence, clean, split
from inference.training.report_corpus import SyntheticReport, make_report

Floats = npt.NDArray[np.float32]
OPEN = -1.0
"""Target of a label that is left open: it does not count."""

_SECTION_DROPOUT = 0.4
_WORD_DROPOUT = 0.12
_SMOOTHING = 0.03
_AVERAGED_FROM = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A split report with targets: ``report`` [10], ``sentences`` [S, 10] (None: only the report is labelled)."""

    text: str
    modality: str
    split: list[Sentence]
    report: Floats
    sentences: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how fast; the defaults are those of the shipped model."""

    reports: int = 60_000
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 1


def targets_of(labels: dict[str, int | None]) -> Floats:
    """Labels in canonical order as floats; None becomes ``OPEN``."""
    values = [labels.get(label) for label in REPORT_LABELS]
    return np.array([OPEN if value is None else value for value in values], dtype=np.float32)


def example_of(report: SyntheticReport) -> Example | None:
    """Split a synthetic report as the labeller will, and carry its sentences' labels over; None when it is empty."""
    sentences = split(report.text)
    if not sentences:
        return None
    targets = np.zeros((len(sentences), len(REPORT_LABELS)), dtype=np.float32)
    for start, end, line in report.lines:
        if not line.present and not line.masked:
            continue
        shares = [max(0, min(end, s.end) - max(start, s.start)) / max(1, end - start) for s in sentences]
        for index, share in enumerate(shares):
            if share <= 0:
                continue
            for column, label in enumerate(REPORT_LABELS):
                if label in line.present:
                    targets[index, column] = 1.0 if share > 0.7 else max(OPEN, targets[index, column] or OPEN)
                elif label in line.masked and targets[index, column] == 0:
                    targets[index, column] = OPEN
    return Example(
        text=report.text, modality=report.modality, split=sentences, report=targets_of(report.labels), sentences=targets
    )


def labelled_example(text: str, modality: str, labels: dict[str, int | None]) -> Example | None:
    """A site's report, labelled as a whole."""
    cleaned = clean(text)
    sentences = split(cleaned.text)
    if not sentences:
        return None
    return Example(text=cleaned.text, modality=modality, split=sentences, report=targets_of(labels), sentences=None)


def synthetic_examples(count: int, first_seed: int) -> Iterator[Example]:
    """Fresh synthetic examples."""
    for seed in range(first_seed, first_seed + count):
        example = example_of(make_report(seed))
        if example is not None:
            yield example


def _masked_loss(logits: torch.Tensor, targets: torch.Tensor, positive_weight: float = 1.0) -> torch.Tensor:
    known = (targets >= 0).float()
    soft = targets.clamp(min=0) * (1 - 2 * _SMOOTHING) + _SMOOTHING
    weight = known * (1 + (positive_weight - 1) * (targets > 0.5).float())
    loss = functional.binary_cross_entropy_with_logits(logits, soft, weight=weight, reduction="sum")
    return loss / known.sum().clamp(min=1)


def batch_of(examples: Sequence[Example], table: WordTable) -> Batch:
    """Arrays of a batch of examples."""
    return table.batch([e.split for e in examples], [e.text for e in examples], [e.modality for e in examples])


def _loss(net: ReportNet, examples: Sequence[Example], rng: np.random.Generator) -> torch.Tensor:
    table = WordTable()
    batch = batch_of(examples, table)
    batch.sections[np.repeat(rng.random(len(examples)) < _SECTION_DROPOUT, np.bincount(batch.report_of_sentence))] = 0
    tensors = as_tensors(batch, net.config.gram_buckets)
    vectors = functional.dropout(net.word_vectors(table.words, _WORD_DROPOUT), 0.1)
    scores = net(tensors, vectors[tensors.words])
    reports = torch.from_numpy(np.stack([example.report for example in examples]))
    loss = 2.0 * _masked_loss(scores.report, reports)
    for branch in range(len(BRANCHES)):
        loss = loss + _masked_loss(scores.branches[branch], reports)
    sentence_targets = np.concatenate(
        [
            e.sentences if e.sentences is not None else np.full((len(e.split), len(REPORT_LABELS)), OPEN)
            for e in examples
        ]
    )
    loss = loss + 4.0 * _masked_loss(scores.sentence, torch.from_numpy(sentence_targets).float(), positive_weight=3.0)
    return loss + 1e-4 * net.gram_table.weight.pow(2).mean() * 1000


def fit(
    net: ReportNet,
    examples: Iterator[Example],
    settings: FitSettings,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> ReportNet:
    """Train ``net`` on a stream of examples; ``watch`` hears the step and the mean loss now and then.

    The weights kept are the mean over the last part of the training (stochastic weight averaging).
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    steps = max(1, settings.reports // settings.batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps, pct_start=0.1)
    averaged = AveragedModel(net)
    recent: list[float] = []
    net.train()
    for step in range(steps):
        chosen = [example for _, example in zip(range(settings.batch), examples, strict=False)]
        if not chosen:
            break
        loss = _loss(net, chosen, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step >= _AVERAGED_FROM * steps:
            averaged.update_parameters(net)
        recent.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            watch(step + 1, float(np.mean(recent)))
            recent.clear()
    net.load_state_dict(averaged.module.state_dict())
    return net.eval()


def predict(net: ReportNet, examples: Sequence[Example], batch: int = 64) -> tuple[Floats, Floats]:
    """Combined logits ``[reports, 10]`` and those of the branches ``[branch, reports, 10]``."""
    combined, branches = [], []
    with torch.inference_mode():
        for first in range(0, len(examples), batch):
            table = WordTable()
            tensors = as_tensors(batch_of(examples[first : first + batch], table), net.config.gram_buckets)
            scores = net(tensors, net.word_vectors(table.words)[tensors.words])
            combined.append(scores.report.numpy())
            branches.append(scores.branches.numpy())
    return np.concatenate(combined), np.concatenate(branches, axis=1)


def new_net(seed: int) -> ReportNet:
    """An untrained network."""
    torch.manual_seed(seed)
    return ReportNet(ReportNetConfig())
