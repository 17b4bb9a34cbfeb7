"""Does an image show what was asked? A classifier trained on real images judges.

The classifier is a logistic regression on features of the embedded encoder and a coarse image, so
it trains in seconds and its own error on real test images is measured beside what it says.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from gen.errors import InvalidInput
from gen.metrics.features import Encoder, features_of
from gen.metrics.frechet import Estimate

COARSE_SIDE = 24


def describe(images: Tensor, encoder: Encoder) -> NDArray[np.float64]:
    """What the classifier sees of uint8 images (N, 1, S, S): encoder features and coarse pixels."""
    coarse = F.interpolate(images.float() / 255, (COARSE_SIDE, COARSE_SIDE), mode="area").flatten(1)
    return np.hstack([features_of(images, encoder), coarse.double().numpy()])


@dataclass(frozen=True)
class Judge:
    """A binary classifier with its AUROC on real images that it has not seen."""

    classifier: Any
    real_auroc: Estimate

    def score(self, described: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of the positive class (N,)."""
        scores: NDArray[np.float64] = self.classifier.decision_function(described)
        return scores


def train_judge(
    train: NDArray[np.float64],
    train_labels: NDArray[np.bool_],
    test: NDArray[np.float64],
    test_labels: NDArray[np.bool_],
) -> Judge:
    """Fit on real `train` images and measure on real `test` images.

    Raises:
        InvalidInput: one of the classes is missing in either.
    """
    _check_classes("train_labels", train_labels)
    _check_classes("test_labels", test_labels)
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
    )
    classifier.fit(train, train_labels)
    return Judge(classifier, auroc(classifier.decision_function(test), test_labels))


def auroc(
    scores: NDArray[np.floating],
    labels: NDArray[np.bool_],
    num_resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve with a bootstrap interval, resampled within each class.

    Raises:
        InvalidInput: one of the classes is missing.
    """
    _check_classes("labels", labels)
    positive, negative = scores[labels], scores[~labels]
    rng = np.random.default_rng(seed)
    truth = np.repeat([True, False], [len(positive), len(negative)])
    draws = [
        roc_auc_score(
            truth,
            np.concatenate([rng.choice(each, len(each)) for each in (positive, negative)]),
        )
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(draws, (0.025, 0.975))
    value = float(roc_auc_score(truth, np.concatenate([positive, negative])))
    return Estimate(value, float(low), float(high))


def _check_classes(name: str, labels: NDArray[np.bool_]) -> None:
    positive = int(np.sum(labels))
    if positive in (0, len(labels)):
        raise InvalidInput(
            f"{name} hold {positive} positive and {len(labels) - positive} negative images, but an"
            " AUROC needs both; add images of the missing class"
        )
