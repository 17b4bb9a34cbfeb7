"""Classifiers of every arm, share and seed, each trained once: what it says is kept."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.bars import Bars
from jobs.kept_arrays import KeptArrays, identity_of
from jobs.utility.arms import ARMS, CLASSICAL_ARMS, Material
from jobs.utility.classical import View, draw_views
from jobs.utility.config import UtilityConfig
from jobs.utility.sets import Sets

if TYPE_CHECKING:  # torch is imported when something is trained
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.training.utility_classifier import Course, UtilityClassifierConfig

SCRATCH_RATE, TUNED_RATE = 3e-3, 5e-4


@dataclass(frozen=True)
class Answers:
    """Probabilities of each seed's classifier, (S, M, K) of `val` and (S, N, K) of `test`."""

    val: "NDArray[np.floating]"
    test: "NDArray[np.floating]"


@dataclass(frozen=True)
class Share:
    """The rows of `train` that one share and seed holds, and of how many patients."""

    rows: "NDArray[np.intp]"
    num_patients: int


def draw_shares(config: UtilityConfig, sets: Sets) -> dict[tuple[float, int], Share]:
    """The same share of the patients for every arm."""
    from gen.training.labelled_images import draw_patients

    stated = sets.train.stated(sets.classes)
    found = {}
    for fraction in config.fractions:
        for seed in config.seeds:
            rows = draw_patients(stated, sets.train.patients, fraction, seed)
            patients = {sets.train.patients[row] for row in rows}
            found[fraction, seed] = Share(rows, len(patients))
    return found


def training_of(config: UtilityConfig) -> "UtilityClassifierConfig":
    """How each classifier is trained."""
    from gen.training.utility_classifier import UtilityClassifierConfig

    usual = SCRATCH_RATE if config.encoder is None else TUNED_RATE
    return UtilityClassifierConfig(
        image_size=config.image_size,
        widths=config.widths,
        num_steps=config.num_training_steps,
        encoder=config.encoder,
        learning_rate=config.learning_rate or usual,
    )


class Trainer:
    """Trains what was not trained before, with one and the same way of training."""

    def __init__(self, config: UtilityConfig, sets: Sets, drawn: Bars) -> None:
        import torch

        self._config, self._classes, self._drawn = config, sets.classes, drawn
        self._training = training_of(config)
        self._kept = KeptArrays(config.out / "runs")
        self._held_out = torch.cat([sets.val.pixels, sets.test.pixels])
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._report = drawn.bar("training classifiers")
        self._said = False

    def answers(
        self, courses: "list[Course]", seed: int, left: int, done: int, total: int
    ) -> "NDArray[np.floating]":
        """What it says of `val` and `test` together, (M + N, K).

        Args:
            courses: what it is shown.
            seed: of its weights and draws.
            left: classifiers that are still to be trained, to foretell the time.
            done, total: for the bar.
        """
        from gen.metrics.features import features_of
        from gen.training.utility_classifier import train_utility_classifier

        def train() -> "NDArray[np.floating]":
            started = time.monotonic()
            network = train_utility_classifier(
                courses, self._classes, self._training, seed, self._device
            )
            answers = features_of(self._held_out, network.probabilities)
            self._foretell((time.monotonic() - started) * left)
            return answers

        kept: NDArray[np.floating] = self._kept.get(self.identity(courses, seed), train)
        self._report(done, total)
        return kept

    def identity(self, courses: "list[Course]", seed: int) -> str:
        """The name of what is kept, of all that it depends on."""
        shares = [(course.share, [share for _, share in course.parts]) for course in courses]
        pools = [pool for course in courses for pool, _ in course.parts]
        tensors: list[Tensor] = [self._held_out]
        for pool in pools:
            tensors += [pool.pictures, pool.stated]
        return identity_of((self._training.model_dump_json(), self._classes, seed, shares), tensors)

    def _foretell(self, seconds: float) -> None:
        if not self._said:
            self._said = True
            self._drawn.say(
                f"at most {seconds / 60:.0f} minutes of training to go; what is trained is kept in"
                f" {self._config.out}, and not trained twice"
            )


def train_arms(
    config: UtilityConfig,
    sets: Sets,
    shares: dict[tuple[float, int], Share],
    drawn: Bars,
    view: View | None = None,
) -> dict[tuple[float, str], Answers]:
    """Probabilities of each share and arm."""
    import numpy as np

    trainer = Trainer(config, sets, drawn)
    found = defaultdict(list)
    total = len(shares) * len(config.arms)
    done = 0
    for (fraction, seed), material in materials(config, sets, shares, drawn, view):
        for arm in config.arms:
            courses = ARMS[arm](material)
            found[fraction, arm].append(
                trainer.answers(courses, seed, total - done, done + 1, total)
            )
            done += 1
    split = len(sets.val)
    stacked = {key: np.stack(each) for key, each in found.items()}
    return {key: Answers(each[:, :split], each[:, split:]) for key, each in stacked.items()}


def materials(
    config: UtilityConfig,
    sets: Sets,
    shares: dict[tuple[float, int], Share],
    drawn: Bars,
    view: View | None = None,
) -> "Iterator[tuple[tuple[float, int], Material]]":
    """What classifiers of each share and seed may be shown."""
    import numpy as np
    import torch

    from gen.training.utility_classifier import Pool

    stated = torch.from_numpy(sets.train.stated(sets.classes))
    plain = sets.train.pixels[:, None]
    used = np.unique(np.concatenate([share.rows for share in shares.values()]))
    views = plain[used]
    if set(config.arms) & set(CLASSICAL_ARMS):
        views = draw_views(
            sets.train.pixels[used], config.num_views, config.out / "views",
            drawn.bar("transforming real images"), view,
        )  # fmt: skip
    synthetic = Pool(
        sets.synthetic.pixels[:, None], torch.from_numpy(sets.synthetic.stated(sets.classes))
    )
    for key, share in shares.items():
        yield (
            key,
            Material(
                Pool(plain[share.rows], stated[share.rows]),
                Pool(views[np.searchsorted(used, share.rows)], stated[share.rows]),
                synthetic,
                config.synthetic_share,
                config.pretraining_share,
            ),
        )
