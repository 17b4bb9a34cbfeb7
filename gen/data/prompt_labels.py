"""Labels that a sentence asks for: the inverse of `gen.data.captions.caption`.

It knows the vocabulary of the captions and denials ("no X", "without X", "no evidence of X"), not
free text: a word it does not know says nothing.
"""

import re
from dataclasses import replace

from gen.data.captions import NORMAL, PARAPHRASES, PHRASES, Labels, canonical

_CHILD = re.compile(r"\b(child|toddler|infant|pa?ediatric)\b", re.IGNORECASE)
_FEMALE = re.compile(r"\b(woman|female)\b", re.IGNORECASE)
_MALE = re.compile(r"\b(man|male)\b", re.IGNORECASE)
_VIEWS = {
    "PA": re.compile(r"\b(posteroanterior|upright)\b|\bPA\b", re.IGNORECASE),
    "AP": re.compile(r"\b(anteroposterior|portable)\b|\bAP\b", re.IGNORECASE),
}
_AGE = re.compile(r"\b(\d{1,3})-year-old\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:no|without)(?: evidence of)? ([^.,;:]+)", re.IGNORECASE)
# the longest first, so that "pneumonia of viral origin" is not read as "pneumonia"
_WORDS = sorted(
    (
        (word, name)
        for table in (PHRASES, PARAPHRASES)
        for name in table
        for word in (name, *table[name])
    ),
    key=lambda pair: -len(pair[0]),
)


def labels_in(prompt: str) -> Labels:
    """What a sentence asks for; without a finding it asks for a normal chest."""
    text = prompt
    found = set()
    for word, name in _WORDS:
        if name == NORMAL:
            continue
        pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
        for match in pattern.finditer(text):
            if not _denied(text, match.start()):
                found.add(name)
        text = pattern.sub(lambda match: "_" * len(match.group()), text)
    age = _AGE.search(prompt)
    sex = "F" if _FEMALE.search(prompt) else "M" if _MALE.search(prompt) else None
    views = [view for view, words in _VIEWS.items() if words.search(prompt)]
    return Labels(
        findings=tuple(sorted(found)) or (NORMAL,),
        view=views[0] if len(views) == 1 else None,
        age=float(age.group(1)) if age else None,
        sex=sex,
        child=bool(_CHILD.search(prompt)),
    )


def without_findings(prompt: str) -> str:
    """The same person and view as in a sentence, and a normal chest."""
    return canonical(replace(labels_in(prompt), findings=(NORMAL,)))


def _denied(text: str, position: int) -> bool:
    return any(match.start() < position < match.end() for match in _DENIED.finditer(text))
