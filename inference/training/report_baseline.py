"""The keyword labeller to beat: named findings less denied ones, with ConText-like scope (Harkema 2009, Chapman 2001).

Score of a label = affirmed mentions - half the denied ones. Written as the field would write it, without the network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inference.labels import REPORT_LABELS
from inference.report_text import clean, sentence_spans

_PATTERNS: dict[str, str] = {
    "acute_stroke": r"(?:acute|subacute|recent|fresh|early|evolving)[\w\s,-]{0,30}(?:infarct|isch"
    r"|stroke)|restricted diffusion"
    r"|diffusion restriction|restriction (?:in|of|to) (?:the )?diffusion|infarct demarcation"
    r"|loss of gr[ea]y.white|low adc",
    "mass": r"tumou?r|\bmass(?:es)?\b|metasta|meningioma|glioma|glioblastoma|schwannoma|neurinoma"
    r"|adenoma|neoplas|abscess"
    r"|lymphoma|colloid cyst|epidermoid|craniopharyngioma|astrocytoma|space.occupying|medulloblastoma|ependymoma",
    "atrophy": r"atroph|volume (?:loss|reduction)|involution|scheltens|\bmta\b",
    "vascular": r"aneurysm|stenosis|occlusion|thrombosis|dissection|cavernom|\bavms?\b|arteriovenous|fistula|\bdva\b"
    r"|venous an(?:omaly|gioma)|dense mca|moyamoya|cavernous malformation",
    "small_vessel_disease": r"small vessel|microangiopath|leu[ck]oarai|fazekas (?:grade )?(?:2|3|ii)|microvascular"
    r"|confluent|chronic isch(?:a)?emi",
    "white_matter_inflammation": r"demyelinat|multiple sclerosis|\bms\b|plaques?|adem\b|\bnmo"
    r"|inflammatory lesion|dawson",
    "encephalomalacia": r"encephalomalac|malaci|gliosis|gliotic|lacun|porenceph|(?:old|mature|chronic"
    r"|established|remote)"
    r"[\w\s,-]{0,25}infarct|resection cavity|defect zone|sequela",
    "intracranial_haemorrhage": r"h(?:a)?emorrhag|h(?:a)?ematoma|\bbleed|\bblood|\bs[da]h\b|\bich\b|\bivh\b",
    "hydrocephalus": r"hydroceph|ventriculomegaly|transependymal|dilat\w+ (?:of the )?(?:lateral )?ventric|\bnph\b",
}  # fmt: skip
_FINDING = {label: re.compile(pattern, re.IGNORECASE) for label, pattern in _PATTERNS.items()}
_DENIAL = re.compile(
    r"\b(?:no|not|without|absence of|absent|negative for|neither|nor|free of|no evidence|never|unlikely"
    r"|cannot be excluded)\b",
    re.IGNORECASE,
)
_SCOPE_END = re.compile(
    r"\b(?:but|however|although|except|apart from|other than|aside from|though)\b"
    r"|;",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\b(?:not (?:seen|identified|detected|shown|demonstrated)|excluded|ruled out|resolved|absent|unlikely)\b", re.I
)
_PAST = re.compile(
    r"\b(?:history|clinical|indication|previous(?:ly)?|prior|known|rule out|exclude|query|question"
    r"|family|mother|father)\b|\?",
    re.IGNORECASE,
)
_MINIMISED = re.compile(
    r"\b(?:for age|age.appropriate|age.related|mild|minimal|few|normal|scalp|in keeping with age)\b", re.I
)


def keyword_scores(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Scores ``[reports, 10]`` in the order of ``REPORT_LABELS``; for ``abnormal`` the sum over the findings."""
    table = np.zeros((len(texts), len(REPORT_LABELS)))
    for row, text in enumerate(texts):
        readable = clean(text).text
        for start, end in sentence_spans(readable):
            sentence = readable[start:end]
            for label, pattern in _FINDING.items():
                column = REPORT_LABELS.index(label)
                table[row, column] += sum(_weight(sentence, match) for match in pattern.finditer(sentence))
    table[:, 0] = np.maximum(table[:, 1:], 0).sum(axis=1)
    return table


def _weight(sentence: str, mention: re.Match[str]) -> float:
    before = sentence[: mention.start()]
    ends = [match.end() for match in _SCOPE_END.finditer(before)]
    scope = before[ends[-1] :] if ends else before
    if _DENIAL.search(scope) or _DENIED_AFTER.search(sentence, mention.end()):
        return -0.5
    if _PAST.search(before) or _MINIMISED.search(sentence):
        return 0.0
    return 1.0
