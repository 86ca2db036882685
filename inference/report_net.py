"""The report network: unlike learners as branches of one network, one forward pass.

A linear bag of hashed word pairs, keyword counts, a sentence net with attention over tokens pooled by the maximum, and
a report net over the sentences. Sentence scores are its explanation. Knows no files and no text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.labels import REPORT_LABELS
from inference.report_features import MODALITIES, N_KEYWORDS, N_SECTIONS, Batch, char_grams, stable_hash
from inference.report_lexicon import N_CUES, N_SCOPES

N_LABELS = len(REPORT_LABELS)
BRANCHES = ("sentence", "context", "report", "bag", "keyword")
_LOWEST = -30.0
_MAX_PLACE = 40
TYPICAL_TOKENS = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportNetConfig:
    """Sizes; kept in the model's metadata.

    ``length_penalty`` is taken from the logit of ``abnormal`` for each unit of log(tokens / 150): the strongest of many
    sentences is stronger than that of few, though none says more. 0 in training, set when the model is made.
    """

    word_buckets: int = 8192
    char_buckets: int = 8192
    gram_buckets: int = 32768
    word_size: int = 64
    width: int = 96
    layers: int = 3
    heads: int = 4
    length_penalty: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For the metadata."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """``report`` [R, 10] combined logits; ``branches`` [branch, R, 10]; ``sentence`` [S, 10]; ``vector`` [R, width]."""

    report: Tensor
    branches: Tensor
    sentence: Tensor
    vector: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """A `Batch` as tensors, with one vector a token."""

    words: Tensor
    cues: Tensor
    scopes: Tensor
    sentence_of_token: Tensor
    grams: Tensor
    sections: Tensor
    report_of_sentence: Tensor
    place: Tensor
    modality: Tensor
    keywords: Tensor


def as_tensors(batch: Batch, gram_buckets: int) -> Tensors:
    """Wrap the arrays of a batch; hashed pairs are folded into the table's size."""
    return Tensors(
        words=torch.from_numpy(batch.words),
        cues=torch.from_numpy(batch.cues),
        scopes=torch.from_numpy(batch.scopes),
        sentence_of_token=torch.from_numpy(batch.sentence_of_token),
        grams=torch.from_numpy(batch.grams % gram_buckets),
        sections=torch.from_numpy(batch.sections),
        report_of_sentence=torch.from_numpy(batch.report_of_sentence),
        place=torch.from_numpy(batch.place),
        modality=torch.from_numpy(batch.modality),
        keywords=torch.from_numpy(batch.keywords),
    )


class _Convolution(nn.Module):
    """Each token looks ``reach`` tokens to both sides, never across the end of its sentence."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(3 * width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, sentence: Tensor) -> Tensor:
        normed = self.norm(tokens)
        width = normed.shape[1]
        # the weights meet the tokens before they are shifted: one product, no copy of the tokens three times as wide
        weight = self.mix.weight.view(width, 3, width).transpose(0, 1).reshape(3 * width, width)
        earlier, here, later = functional.linear(normed, weight).chunk(3, 1)
        same = (sentence[self.reach :] == sentence[: -self.reach]).unsqueeze(1)
        mixed = here + self.mix.bias
        mixed[self.reach :] += earlier[: -self.reach] * same
        mixed[: -self.reach] += later[self.reach :] * same
        out: Tensor = tokens + self.out(torch.relu(mixed))
        return out


def _segment_max(values: Tensor, segment: Tensor, count: int) -> Tensor:
    index = segment.unsqueeze(1).expand_as(values)
    return values.new_full((count, values.shape[1]), _LOWEST).scatter_reduce(0, index, values, "amax")


def _segment_softmax(scores: Tensor, segment: Tensor, count: int) -> Tensor:
    weights = torch.exp(scores.clamp(-12, 12))
    total = weights.new_zeros(count, scores.shape[1]).index_add(0, segment, weights)
    return weights / total[segment]


class ReportNet(nn.Module):
    """See the module's docstring. Word vectors come from `word_vectors`, so that they can be kept between batches."""

    def __init__(self, config: ReportNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.word_table = nn.Embedding(config.word_buckets, config.word_size)
        self.char_table = nn.EmbeddingBag(config.char_buckets, config.word_size, mode="mean")
        nn.init.normal_(self.word_table.weight, std=0.3)
        nn.init.normal_(self.char_table.weight, std=0.5)
        self.lift = nn.Linear(config.word_size, width)
        self.cue_table = nn.Embedding(N_CUES * N_SCOPES, width)
        self.section_table = nn.Embedding(N_SECTIONS, width)
        self.modality_table = nn.Embedding(len(MODALITIES), width)
        self.place_table = nn.Embedding(2 * _MAX_PLACE, width)
        self.convolutions = nn.ModuleList(_Convolution(width, 2**layer) for layer in range(config.layers))
        self.token_norm = nn.LayerNorm(width)
        self.token_attention = nn.Linear(width, N_LABELS)
        self.token_score = nn.Linear(width, N_LABELS)
        self.pool_attention = nn.Linear(width, config.heads)
        self.pool_out = nn.Linear(2 * width, width)
        self.context = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, dropout=0.1, batch_first=True, norm_first=True
        )
        self.context_score = nn.Linear(width, N_LABELS)
        self.sentence_attention = nn.Linear(width, N_LABELS)
        self.report_score = nn.Linear(width, N_LABELS)
        self.gram_table = nn.EmbeddingBag(config.gram_buckets, N_LABELS, mode="sum")
        nn.init.zeros_(self.gram_table.weight)
        self.gram_bias = nn.Parameter(torch.full((N_LABELS,), -2.0))
        self.keyword_score = nn.Linear(N_KEYWORDS, N_LABELS)
        self.branch_weight = nn.Parameter(torch.full((len(BRANCHES), N_LABELS), -1.0))
        self.report_bias = nn.Parameter(torch.zeros(N_LABELS))

    def word_vectors(self, words: list[str], word_dropout: float = 0.0) -> Tensor:
        """Vectors of words, ``[words, word_size]``; ``word_dropout`` of them are known by their pieces alone."""
        grams = [[gram % self.config.char_buckets for gram in char_grams(word)] for word in words]
        flat = torch.tensor([gram for each in grams for gram in each], dtype=torch.long)
        offsets = torch.tensor([0, *[len(each) for each in grams]], dtype=torch.long).cumsum(0)[:-1]
        whole = self.word_table(torch.tensor([stable_hash(word) % self.config.word_buckets for word in words]))
        if word_dropout:
            whole = whole * (torch.rand(len(words), 1) >= word_dropout)
        vectors: Tensor = whole + self.char_table(flat, offsets)
        return vectors

    def forward(self, batch: Tensors, vectors: Tensor) -> Scores:
        """Score reports; ``vectors`` [T, word_size] is the word vector of each token."""
        sentences, reports = batch.sections.numel(), batch.modality.numel()
        segment = batch.sentence_of_token
        tokens = self.lift(vectors) + self.cue_table(batch.cues * N_SCOPES + batch.scopes)
        tokens = tokens + self.section_table(batch.sections)[segment]
        for convolution in self.convolutions:
            tokens = convolution(tokens, segment)
        tokens = self.token_norm(tokens)
        weights = _segment_softmax(self.token_attention(tokens), segment, sentences)
        scored = weights * self.token_score(tokens)
        sentence = scored.new_zeros(sentences, N_LABELS).index_add(0, segment, scored)
        vector = self._sentence_vectors(tokens, segment, sentences)
        hidden = self._in_context(vector, batch, reports)
        context = sentence + self.context_score(hidden)
        shares = _segment_softmax(self.sentence_attention(hidden), batch.report_of_sentence, reports)
        pooled = (shares.unsqueeze(2) * hidden.unsqueeze(1)).reshape(sentences, -1)
        pooled = pooled.new_zeros(reports, pooled.shape[1]).index_add(0, batch.report_of_sentence, pooled)
        pooled = pooled.reshape(reports, N_LABELS, -1)
        report = (pooled * self.report_score.weight).sum(2) + self.report_score.bias
        tokens_of_report = torch.bincount(batch.report_of_sentence[segment], minlength=reports)
        branches = torch.stack(
            (
                _segment_max(sentence, batch.report_of_sentence, reports),
                _segment_max(context, batch.report_of_sentence, reports),
                report,
                self._bag(batch, tokens_of_report),
                self.keyword_score(batch.keywords),
            )
        )
        combined = (functional.softplus(self.branch_weight).unsqueeze(1) * branches).sum(0) + self.report_bias
        abnormal = combined[:, :1] + combined[:, 1:].max(1, keepdim=True).values
        excess = torch.log(tokens_of_report.clamp(min=1) / TYPICAL_TOKENS).unsqueeze(1)
        combined = torch.cat((abnormal - self.config.length_penalty * excess, combined[:, 1:]), 1)
        return Scores(report=combined, branches=branches, sentence=sentence, vector=pooled.mean(1))

    def _sentence_vectors(self, tokens: Tensor, segment: Tensor, sentences: int) -> Tensor:
        heads = self.config.heads
        weights = _segment_softmax(self.pool_attention(tokens), segment, sentences)
        parts = tokens.reshape(tokens.shape[0], heads, -1) * weights.unsqueeze(2)
        mean = tokens.new_zeros(sentences, tokens.shape[1]).index_add(0, segment, parts.reshape(tokens.shape))
        peak = _segment_max(tokens, segment, sentences)
        vector: Tensor = self.pool_out(torch.cat((mean, peak), 1))
        return vector

    def _in_context(self, vector: Tensor, batch: Tensors, reports: int) -> Tensor:
        counts = torch.bincount(batch.report_of_sentence, minlength=reports)
        from_end = counts[batch.report_of_sentence] - 1 - batch.place
        vector = vector + self.place_table(batch.place.clamp(max=_MAX_PLACE - 1))
        vector = vector + self.place_table(_MAX_PLACE + from_end.clamp(max=_MAX_PLACE - 1))
        vector = (
            vector + self.section_table(batch.sections) + self.modality_table(batch.modality)[batch.report_of_sentence]
        )
        longest = int(counts.max())
        padded = vector.new_zeros(reports, longest, vector.shape[1])
        padded[batch.report_of_sentence, batch.place] = vector
        absent = torch.arange(longest).unsqueeze(0) >= counts.unsqueeze(1)
        hidden: Tensor = self.context(padded, src_key_padding_mask=absent)
        return hidden[batch.report_of_sentence, batch.place]

    def _bag(self, batch: Tensors, tokens_of_report: Tensor) -> Tensor:
        offsets = torch.cumsum(tokens_of_report, 0) - tokens_of_report
        flat = batch.grams.reshape(-1)
        bag: Tensor = self.gram_table(flat, offsets * 2) / tokens_of_report.clamp(min=1).sqrt().unsqueeze(1)
        return bag + self.gram_bias
