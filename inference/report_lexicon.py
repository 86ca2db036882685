"""Words that name findings, and words that deny, doubt or date them: cues as in ConText (Harkema 2009).

Only hints for the network, which learns how far to trust them.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

CUES: tuple[tuple[str, str], ...] = (
    ("haemorrhage", r"h(a)?emorr?h?ag|^bleed|^blood|h(a)?ematoma|^sah$|^sdh$|^edh$|^ich$|^ivh$|h(a)?ematic|apoplex"),
    ("stroke", r"infarct|isch(a)?emi|restrict|cytotoxic|aspects|demarcat|^stroke|diffusion|thrombol|^ictus"),
    (
        "mass",
        r"tumou?r|^mass|metasta|menin?gioma|glioma|glioblast|schwannoma|neurinoma|neuroma|adenoma|"
        r"neoplas|absces|lymphoma|carcino|astrocyt|ependym|blastoma|craniophar|^sol$|^sols$|expansi|"
        r"epidermoid|germinoma|chordoma|cysticerc|tuberculoma|colloid|enhanc|neoform|volumetric|neurocyt|"
        r"cytoma",
    ),
    (
        "vascular",
        r"aneur[iy]sm|stenos|occlu|thrombos|dissect|malformation|cavernom|^avm|fistul|^dva$|moya|angioma|"
        r"nidus|coil|clipp|narrowing|outpouch",
    ),
    ("hydrocephalus", r"hydro.?ceph|ventriculomeg|transependym|evans|^nph$|shunt|aqueduct|callosal|dilat|widen"),
    ("atrophy", r"atroph|involution|scheltens|^mta$|koedam|volume|shrunk|hippocamp|shrink"),
    (
        "small_vessel",
        r"microangio|leu[ck]oarai|fazekas|microvasc|confluen|coalesc|vessel|^white$|periventric|"
        r"binswanger",
    ),
    (
        "inflammation",
        r"demyelin|^ms$|scleros|plaque|inflam|adem|dawson|nmo|encephalomyel|juxtacort|mcdonald|"
        r"leukoenceph",
    ),
    ("encephalomalacia", r"malac|glios|gliot|lacun|porenceph|cavit|cystic|sequel|defect|softening|resect|scar"),
    (
        "other",
        r"fractur|chiari|edema|siderosis|microbleed|microh|hygroma|empyema|mastoiditis|pres$|sclerosis|"
        r"ectopia|swelling",
    ),
    ("old", r"^old$|chronic|mature|established|remote|longstanding|ancient|unchanged|stable"),
    ("new", r"^acute|subacute|recent|^new|fresh|evolving|hyperacute"),
    (
        "slight",
        r"^few$|mild|minimal|minor|slight|punctate|tiny|nonspecific|unspecific|isolated|scattered|age|"
        r"variant|physiolog",
    ),
    ("strong", r"moderate|severe|marked|extensive|advanced|excess|beyond|greater|pronounced|disproportion"),
    ("extracranial", r"scalp|subgaleal|sinus|maxillary|soft|mastoid|orbit|calvari|ethmoid|mucosal"),
)
"""Class name -> pattern of the words that belong to it; the first match wins."""

ROLES: tuple[tuple[str, str], ...] = (
    (
        "deny",
        r"^(no|not|non|without|w/o|absen\w*|negative|neither|nor|free|none|never|denies|exclude[sd]?|"
        r"fails?|lack\w*|nil)$",
    ),
    (
        "undo",
        r"^(resolved|resolution|disappeared|cleared|excluded|ruled|unlikely|artefact\w*|artifact\w*|"
        r"unremarkable|normal)$",
    ),
    ("end", r"^(but|however|although|except|apart|aside|besides|other|though|yet|save|with|showing|which|;)$"),
    (
        "past",
        r"^(previous\w*|prior|known|history|hx|formerly|earlier|father|mother|family|sister|status|\?|"
        r"query|rule|r/o|indication|clinical|reason|question|suspected|evaluate)$",
    ),
    (
        "doubt",
        r"^(possib\w*|may|might|could|cannot|questionable|equivocal|uncertain|versus|differential|"
        r"exclude|unless)$",
    ),
)

N_CUES = len(CUES) + 1
N_ROLES = len(ROLES) + 1
N_SCOPES = 8
DENY, UNDO, END, PAST, DOUBT = range(1, N_ROLES)

_CUES = [re.compile(pattern) for _, pattern in CUES]
_ROLES = [re.compile(pattern) for _, pattern in ROLES]


def cue_of(word: str) -> int:
    """Class of a lower-cased word, 0 for none."""
    return next((index + 1 for index, pattern in enumerate(_CUES) if pattern.search(word)), 0)


def role_of(word: str) -> int:
    """Part that a lower-cased word plays for the words around it, 0 for none."""
    return next((index + 1 for index, pattern in enumerate(_ROLES) if pattern.search(word)), 0)


def scopes(roles: npt.NDArray[np.int64], sentence_starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each token of all sentences in a row: 1 denied, + 2 past or asked for, + 4 undone in the sentence.

    Parameters
    ----------
    roles
        ``[tokens]``, what ``role_of`` says of each.
    sentence_starts
        Index of each sentence's first token, ascending, beginning with 0.
    """
    position = np.arange(roles.size)
    start_mark = np.full(roles.size, -1)
    start_mark[sentence_starts] = sentence_starts
    ends = np.maximum.accumulate(np.maximum(np.where(roles == END, position, -1), start_mark))
    starts = np.maximum.accumulate(start_mark)
    denied = np.maximum.accumulate(np.where(roles == DENY, position, -1)) >= ends
    past = np.maximum.accumulate(np.where(roles == PAST, position, -1)) >= starts
    lengths = np.diff(np.append(sentence_starts, roles.size))
    undone = np.repeat(np.logical_or.reduceat(roles == UNDO, sentence_starts), lengths)
    scope: npt.NDArray[np.int64] = denied.astype(np.int64) + 2 * past + 4 * undone
    return scope
