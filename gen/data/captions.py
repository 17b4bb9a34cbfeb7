"""Radiology sentences from labels: many phrasings of one meaning, and none of more.

A text encoder trained on one template learns the template. `caption` draws phrasing, order and
what is left unsaid; it never states severity or laterality, which labels do not hold, and denies
only findings that the labels say are absent. `paraphrase` uses words `caption` never does, to ask
whether a model understood the meaning.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gen.errors import InvalidInput

NORMAL = "Normal"

# The terms of ChestX-ray14 (Wang et al. 2017), of the paediatric set (Kermany et al. 2018) and
# COVID-19, each with the ways reports say it.
PHRASES: dict[str, tuple[str, ...]] = {
    NORMAL: (
        "no acute finding",
        "no acute cardiopulmonary abnormality",
        "clear lungs",
        "lungs are clear",
        "normal chest",
        "normal study",
        "no evidence of disease",
        "unremarkable chest",
    ),
    "Atelectasis": ("atelectasis", "atelectatic change", "subsegmental atelectasis"),
    "Cardiomegaly": ("cardiomegaly", "enlarged heart", "enlarged cardiac silhouette"),
    "Consolidation": ("consolidation", "airspace consolidation", "consolidated lung"),
    "Edema": ("edema", "pulmonary edema", "interstitial edema"),
    "Effusion": ("pleural effusion", "effusion", "blunting of the costophrenic angle"),
    "Emphysema": ("emphysema", "emphysematous change", "hyperinflated lungs"),
    "Fibrosis": ("fibrosis", "pulmonary fibrosis", "fibrotic change"),
    "Hernia": ("hernia", "hiatal hernia", "hiatus hernia"),
    "Infiltration": ("infiltration", "pulmonary infiltrate", "infiltrates"),
    "Mass": ("mass", "lung mass", "pulmonary mass"),
    "Nodule": ("nodule", "pulmonary nodule", "lung nodule"),
    "Pleural thickening": ("pleural thickening", "thickened pleura"),
    "Pneumonia": (
        "pneumonia",
        "findings of pneumonia",
        "consistent with pneumonia",
        "pneumonic opacity",
        "lung infection",
    ),
    "Bacterial pneumonia": ("bacterial pneumonia", "pneumonia of bacterial origin"),
    "Viral pneumonia": ("viral pneumonia", "pneumonia of viral origin"),
    "COVID-19": ("COVID-19", "COVID-19 pneumonia", "SARS-CoV-2 pneumonia"),
    "Pneumocystis": ("pneumocystis pneumonia", "pneumocystis jirovecii pneumonia"),
    "ARDS": ("ARDS", "acute respiratory distress syndrome"),
    "Pneumothorax": ("pneumothorax", "air in the pleural space"),
}

# Held out of training: what a model has understood, it also draws from these.
PARAPHRASES: dict[str, tuple[str, ...]] = {
    NORMAL: ("healthy lungs", "normal radiograph without abnormality", "normal appearance"),
    "Pneumonia": ("infectious pneumonia", "pneumonia is present", "infection of the lung"),
    "Bacterial pneumonia": ("pneumonia, bacterial",),
    "Viral pneumonia": ("pneumonia, viral",),
    "Effusion": ("fluid, pleural effusion",),
    "Cardiomegaly": ("large heart",),
}

_STORED = {"No Finding": NORMAL, "normal": NORMAL, "Pleural_Thickening": "Pleural thickening"}
_CHESTXRAY14 = tuple(
    name
    for name in PHRASES
    if name
    not in (NORMAL, "Bacterial pneumonia", "Viral pneumonia", "COVID-19", "Pneumocystis", "ARDS")
)
_STUDY = ("chest X-ray", "chest radiograph", "radiograph of the chest", "CXR", "chest film")
_VIEW = {
    "PA": ("Posteroanterior", "PA", "Frontal", "Upright frontal"),
    "AP": ("Anteroposterior", "AP", "Frontal", "Portable"),
}
_CHILD = ("young child", "child", "paediatric patient", "pediatric patient", "toddler")
_ADULT = {
    "M": ("man", "male", "male patient", "adult man"),
    "F": ("woman", "female", "female patient", "adult woman"),
    None: ("adult", "adult patient", "patient"),
}


@dataclass(frozen=True)
class Labels:
    """What is known of one radiograph; None is unknown, `age` is in years."""

    findings: tuple[str, ...]
    view: str | None = None
    age: float | None = None
    sex: str | None = None
    child: bool = False

    @property
    def normal(self) -> bool:
        """Whether nothing was found."""
        return self.findings == (NORMAL,)

    @property
    def kind(self) -> str:
        """Who, and what was found: images of one kind compare in how rare they are."""
        return f"{'child' if self.child else 'adult'}: {', '.join(sorted(self.findings))}"


def labels_of(fields: Mapping[str, str]) -> Labels:
    """Labels of a manifest row.

    Raises:
        InvalidInput: the row has no finding, or one that has no phrases.
    """
    child = fields["file"].startswith("images/kermany")
    return Labels(
        findings=_findings([name for name in fields["findings"].split("|") if name]),
        view=fields.get("view") or None,
        age=float(fields["age"]) if fields.get("age") else None,
        sex=fields.get("sex") or None,
        child=child,
    )


def _findings(names: Sequence[str]) -> tuple[str, ...]:
    """Canonical names; "pneumonia|viral" is one finding."""
    for kind in ("bacterial", "viral"):
        if kind in names:
            return (f"{kind.capitalize()} pneumonia",)
    canonical = {_STORED.get(name, name[:1].upper() + name[1:]) for name in names}
    unknown = sorted(canonical - PHRASES.keys())
    if unknown or not canonical:
        raise InvalidInput(
            f"findings are {'|'.join(names)!r}, of which {', '.join(unknown) or 'none'} has words"
            " in gen.data.captions.PHRASES; add its phrases there or mend the manifest"
        )
    return tuple(sorted(canonical))


def canonical(labels: Labels) -> str:
    """One fixed sentence, in the style of the manifest's prompts."""
    view = {"PA": "Posteroanterior", "AP": "Anteroposterior"}.get(labels.view or "", "Frontal")
    who = {"M": "male", "F": "female"}.get(labels.sex or "", "adult")
    who = "young child" if labels.child else who
    found = "no acute finding" if labels.normal else ", ".join(labels.findings).lower()
    return f"{view} chest X-ray of a {who}. Findings: {found.replace('covid', 'COVID')}."


def caption(labels: Labels, rng: random.Random) -> str:
    """One of many sentences that say what the labels say, or a part of it."""
    if rng.random() < 0.1:
        return canonical(labels)
    return _arrange(labels, _found(labels, rng, PHRASES), rng)


def paraphrase(labels: Labels, rng: random.Random) -> str:
    """As `caption`, in words of `PARAPHRASES` where there are any."""
    return _arrange(labels, _found(labels, rng, {**PHRASES, **PARAPHRASES}), rng)


def _found(labels: Labels, rng: random.Random, words: Mapping[str, Sequence[str]]) -> str:
    findings = list(labels.findings)
    rng.shuffle(findings)
    said = [rng.choice(words[_broader(name, rng)]) for name in findings]
    return rng.choice((", ", " and ")).join(said)


def _broader(name: str, rng: random.Random) -> str:
    """Bacterial and viral pneumonia are pneumonia, and often only called so."""
    return "Pneumonia" if name.endswith(" pneumonia") and rng.random() < 0.4 else name


def _arrange(labels: Labels, found: str, rng: random.Random) -> str:
    study, who = _study(labels, rng), _who(labels, rng)
    denied = f" {_denial(labels, rng)}" if rng.random() < 0.25 else ""
    text = rng.choice(
        (
            f"{study} of a {who}. Findings: {found}.",
            f"{study} of a {who} with {found}.",
            f"{study} of a {who}: {found}.",
            f"{study} showing {found} in a {who}.",
            f"{who.capitalize()}, {study}, {found}.",
            f"{found[:1].upper()}{found[1:]}. {study} of a {who}.",
        )
    )
    text += denied
    return text.lower().rstrip(".") if rng.random() < 0.3 else text.strip()


def _study(labels: Labels, rng: random.Random) -> str:
    study = rng.choice(_STUDY)
    views = _VIEW.get(labels.view or "", ("Frontal",))
    return f"{rng.choice(views)} {study}" if rng.random() < 0.75 else study


def _who(labels: Labels, rng: random.Random) -> str:
    if labels.child:
        return rng.choice(_CHILD)
    who = rng.choice(_ADULT[labels.sex if rng.random() < 0.85 else None])
    if labels.age is None or rng.random() < 0.4:
        return who
    return f"{labels.age:.0f}-year-old {who.removeprefix('adult ')}".replace("adult", "patient")


def _denial(labels: Labels, rng: random.Random) -> str:
    """Deny one finding the labels speak of and do not hold; nothing if there is none."""
    spoken_of = ("Pneumonia",) if labels.child else _CHESTXRAY14
    known = labels.normal or (not labels.child and set(labels.findings) <= set(_CHESTXRAY14))
    absent = [name for name in spoken_of if name not in labels.findings]
    if not known or not absent:
        return ""
    return rng.choice(("No {}.", "Without {}.", "No evidence of {}.")).format(
        PHRASES[rng.choice(absent)][0]
    )
