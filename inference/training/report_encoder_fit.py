"""Fine-tunes a local Hugging Face checkpoint (BioBERT, RadBERT) on local labels; masked-LM adaptation before it.

Nothing is downloaded: the checkpoint is a folder. The adaptation needs no labels (Agarwal et al., Eur Radiol 2025).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from inference.report_encoder import TOKENIZER, EncoderNet, Tokens
from inference.report_scoring import LabelPoint
from inference.training.report_fit import OPEN, Example, Floats
from inference.training.report_recipe import report_metadata
from inference.weights import Metadata, save_model

_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """How an encoder is tuned."""

    epochs: int = 4
    mlm_epochs: int = 1
    batch: int = 16
    learning_rate: float = 3e-5
    head_learning_rate: float = 1e-3
    masked_share: float = 0.15
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A checkpoint in memory: its network with a fresh head, its tokenizer, its configuration."""

    net: EncoderNet
    tokens: Tokens
    config: dict[str, Any]


def adapt(checkpoint: Path, texts: Sequence[str], out: Path, settings: EncoderSettings) -> list[float]:
    """Continue masked-LM training on unlabelled reports; write the checkpoint to ``out``; return mean losses."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint, local_files_only=True).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    tokens = _tokens_of(tokenizer, model.config)
    losses: list[float] = []
    for _ in range(settings.mlm_epochs):
        epoch: list[float] = []
        for first in range(0, len(texts), settings.batch):
            ids, mask, spans = tokens.encode(texts[first : first + settings.batch])
            inputs, targets = _mask(ids, mask, spans, tokenizer.mask_token_id, settings.masked_share)
            logits = model(input_ids=inputs, attention_mask=mask).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            epoch.append(float(loss.detach()))
        losses.append(float(np.mean(epoch)))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _mask(
    ids: torch.Tensor, mask: torch.Tensor, spans: list[list[tuple[int, int]]], mask_id: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    real = torch.zeros_like(mask, dtype=torch.bool)
    for row, row_spans in enumerate(spans):
        for column, (start, end) in enumerate(row_spans):
            real[row, column] = end > start
    chosen = (torch.rand(ids.shape) < share) & real
    if not chosen.any():
        chosen = real
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, _IGNORED)


def read_checkpoint(checkpoint: Path) -> Encoder:
    """Read a local checkpoint folder; raise ValueError naming it when it cannot be used."""
    from transformers import AutoModel, AutoTokenizer

    if not (checkpoint / "config.json").is_file():
        raise ValueError(
            f"{checkpoint} is no Hugging Face checkpoint: config.json is missing; give the folder that holds it"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    if not tokenizer.is_fast:
        raise ValueError(f"{checkpoint} has no fast tokenizer, which the evidence spans need; add its tokenizer.json")
    encoder = AutoModel.from_pretrained(checkpoint, local_files_only=True)
    net = EncoderNet(encoder, encoder.config.hidden_size)
    return Encoder(net=net, tokens=_tokens_of(tokenizer, encoder.config), config=encoder.config.to_dict())


def _tokens_of(tokenizer: Any, config: Any) -> Tokens:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    longest = min(512, int(config.max_position_embeddings) - (2 if config.model_type == "roberta" else 0))
    return Tokens(backend, longest, int(tokenizer.pad_token_id))


def tune(
    encoder: Encoder,
    examples: Sequence[Example],
    settings: EncoderSettings,
    watch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train encoder and head end to end on labelled reports (binary cross-entropy, Adam; the paper's recipe)."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    head = [parameter for name, parameter in encoder.net.named_parameters() if not name.startswith("encoder.")]
    optimiser = torch.optim.AdamW(
        [
            {"params": encoder.net.encoder.parameters(), "lr": settings.learning_rate},
            {"params": head, "lr": settings.head_learning_rate},
        ]
    )
    encoder.net.train()
    for epoch in range(settings.epochs):
        losses = []
        order = rng.permutation(len(examples))
        for first in range(0, len(order), settings.batch):
            chosen = [examples[index] for index in order[first : first + settings.batch]]
            ids, mask, _ = encoder.tokens.encode([example.text for example in chosen])
            targets = torch.from_numpy(np.stack([example.report for example in chosen]))
            known = (targets != OPEN).float()
            logits = encoder.net(ids, mask)[0]
            loss = functional.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), weight=known)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        watch(epoch + 1, float(np.mean(losses)))
    encoder.net.eval()


def encoder_logits(encoder: Encoder, examples: Sequence[Example], batch: int = 16) -> Floats:
    """Logits ``[reports, 10]``."""
    rows = []
    with torch.inference_mode():
        for first in range(0, len(examples), batch):
            ids, mask, _ = encoder.tokens.encode([example.text for example in examples[first : first + batch]])
            rows.append(encoder.net(ids, mask)[0].numpy())
    return np.concatenate(rows)


def save_encoder(
    folder: Path, encoder: Encoder, points: Mapping[str, LabelPoint], *, version: str, training: Mapping[str, Any]
) -> Metadata:
    """Write a folder that `ReportLabeller.load` reads: weights, metadata and ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    data = encoder.tokens.tokenizer.to_str().encode()
    (folder / TOKENIZER).write_bytes(data)
    architecture = {
        "kind": "encoder",
        "encoder": {key: value for key, value in encoder.config.items() if not key.startswith("_")},
        "longest": encoder.tokens.longest,
        "pad_id": encoder.tokens.pad_id,
        "tokenizer_sha256": hashlib.sha256(data).hexdigest(),
        "points": {label: asdict(point) for label, point in points.items()},
    }
    metadata = report_metadata(
        "falx-report-encoder", version, architecture, training, "RESEARCH USE ONLY. Locally trained."
    )
    return save_model(folder, encoder.net.state_dict(), metadata)
