"""A transformer encoder with attention over tokens, as in Wood et al. (Eur Radiol 2022).

Takes the place of the compact network. Per label: attention over the token vectors, a weighted sum, a hidden layer, one
logit. Ten labels share the encoder (the paper has one network a label). Needs ``transformers``; reads nothing but the
model folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference.labels import REPORT_LABELS
from inference.report_scoring import Floats, RawScores
from inference.report_text import Sentence
from inference.weights import Metadata, WrongModel

TOKENIZER = "tokenizer.json"
_N_LABELS = len(REPORT_LABELS)


class EncoderNet(nn.Module):
    """Encoder, attention over tokens for each label, one hidden layer."""

    def __init__(self, encoder: nn.Module, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = nn.Linear(width, _N_LABELS)
        self.hidden = nn.Linear(width, hidden)
        self.score = nn.Parameter(torch.randn(_N_LABELS, hidden) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(_N_LABELS))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``[R, 10]``, attention ``[R, tokens, 10]`` summing to 1 over tokens, report vectors ``[R, width]``."""
        vectors = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        attention = self.attention(vectors).masked_fill(mask.unsqueeze(2) == 0, -1e9).softmax(1)
        pooled = torch.einsum("rtl,rtw->rlw", attention, vectors)
        logits = (torch.relu(self.hidden(pooled)) * self.score).sum(2) + self.bias
        return logits, attention, pooled.mean(1)


class Tokens:
    """Wraps a fast tokenizer: padded ids, mask and character offsets; a long report keeps its head and its tail."""

    def __init__(self, tokenizer: Any, longest: int, pad_id: int) -> None:
        self.tokenizer = tokenizer
        self.longest = longest
        self.pad_id = pad_id

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[list[tuple[int, int]]]]:
        """Ids ``[R, T]``, mask ``[R, T]`` and each token's half-open span (empty for special tokens)."""
        rows = []
        for encoding in self.tokenizer.encode_batch(list(texts)):
            ids, spans = list(encoding.ids), list(encoding.offsets)
            if len(ids) > self.longest:
                tail = self.longest // 4
                ids = ids[: self.longest - tail] + ids[-tail:]
                spans = spans[: self.longest - tail] + spans[-tail:]
            rows.append((ids, spans))
        width = max(len(ids) for ids, _ in rows)
        table = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for row, (ids, _) in enumerate(rows):
            table[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return table, mask, [spans for _, spans in rows]


class EncoderNetwork:
    """A `report_scoring.Network` that runs an encoder."""

    def __init__(self, net: EncoderNet, tokens: Tokens) -> None:
        self._net = net.eval()
        self._tokens = tokens

    def scores(
        self, reports: Sequence[Sequence[Sentence]], texts: Sequence[str], modalities: Sequence[str]
    ) -> RawScores:
        """Sentence scores are the logarithm of each sentence's share of the attention, the largest being 2."""
        ids, mask, spans = self._tokens.encode(texts)
        with torch.inference_mode():
            logits, attention, vectors = self._net(ids, mask)
        shares = [
            _sentence_shares(sentences, spans[row], attention[row].numpy()) for row, sentences in enumerate(reports)
        ]
        return RawScores(report=logits.numpy(), sentences=shares, vectors=vectors.numpy())


def _sentence_shares(sentences: Sequence[Sentence], spans: Sequence[tuple[int, int]], attention: Floats) -> Floats:
    starts = np.array([sentence.start for sentence in sentences])
    shares = np.full((len(sentences), _N_LABELS), 1e-9, dtype=np.float32)
    for (start, end), weights in zip(spans, attention, strict=False):
        if end > start:
            shares[max(0, int(np.searchsorted(starts, start, side="right")) - 1)] += weights
    return np.asarray(np.log(shares / shares.max(axis=0)) + 2.0, dtype=np.float32)


def load_encoder(metadata: Metadata, tensors: Mapping[str, Tensor], folder: Path) -> EncoderNetwork:
    """Rebuild an encoder model from its folder; raise `WrongModel` when the tokenizer is not its own."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModel

    path = folder / TOKENIZER
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != metadata.architecture["tokenizer_sha256"]:
        raise WrongModel(f"{path} is missing or was changed; copy the model folder again")
    settings = dict(metadata.architecture["encoder"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    net = EncoderNet(AutoModel.from_config(config), config.hidden_size)  # type: ignore[no-untyped-call]
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    tokens = Tokens(
        Tokenizer.from_str(data.decode()), int(metadata.architecture["longest"]), int(metadata.architecture["pad_id"])
    )
    return EncoderNetwork(net, tokens)
