"""Courses of real and synthetic images: what a batch holds, and that a seed is one classifier."""

import numpy as np
import torch
from torch import Tensor

from gen.metrics.features import features_of
from gen.training.classifier_loop import Lesson, teach
from gen.training.utility_classifier import (
    Course,
    Pool,
    UtilityClassifierConfig,
    train_utility_classifier,
)

SMALL = UtilityClassifierConfig(
    image_size=16, widths=(8, 16), feature_dim=8, num_steps=4, batch_size=10, num_warmup_steps=1
)


def pool(level: int, count: int = 6, views: int = 1) -> Pool:
    """Image i of view v has the level `level` + v, and shows the first class if i is odd."""
    levels = level + torch.arange(views)
    pictures = levels.view(1, views, 1, 1, 1).expand(count, views, 1, 16, 16).to(torch.uint8)
    return Pool(pictures, torch.stack([torch.arange(count) % 2, torch.zeros(count)], 1).float())


def levels_of(images: Tensor) -> list[int]:
    found: list[int] = ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    return found


def test_a_batch_holds_its_parts_by_their_shares_however_many_there_are() -> None:
    course = Course(((pool(10, 4), 0.7), (pool(200, 400), 0.3)))
    images, labels = course.lesson(5, 8.0).draw(10, torch.Generator().manual_seed(0))
    assert levels_of(images) == [10] * 7 + [200] * 3
    assert labels.shape == (10, 2)


def test_views_of_an_image_are_shown_alike_often_and_rare_findings_more_often() -> None:
    stated = torch.zeros(100, 1)
    stated[0] = 1
    shown = Pool(pool(50, 100, 4).pictures, stated)
    images, labels = shown.draw(4000, torch.Generator().manual_seed(0))
    shares = torch.tensor(levels_of(images)).bincount()[50:] / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.03, rtol=0)
    # its only positive weighs as the root of 100 others: 10 to 1
    assert abs(labels.mean().item() - 1 / (1 + 99 / 10)) < 0.02


def test_courses_follow_one_another_by_their_shares_of_the_steps() -> None:
    seen: list[list[int]] = []

    class Watched(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(levels_of(x))
            return super().forward(x.flatten(1))

    lessons = [
        Course(((pool(200), 1.0),), 0.5).lesson(2, 8.0),
        Course(((pool(10), 1.0),), 0.5).lesson(2, 8.0),
    ]
    told: list[int] = []
    teach(Watched(256, 2), lessons, SMALL, 0, told.append)
    assert seen == [[200] * 10] * 2 + [[10] * 10] * 2
    assert told == [1, 2, 3, 4]


def test_what_labels_do_not_speak_of_teaches_nothing() -> None:
    unknown = Pool(pool(90).pictures, torch.full((6, 2), torch.nan))
    lesson = Course(((unknown, 1.0),)).lesson(1, 8.0)
    _, labels = lesson.draw(4, torch.Generator().manual_seed(0))
    answers = torch.randn(4, 2, requires_grad=True)
    lesson.loss(answers, labels).backward()
    assert (answers.grad == 0).all()


def test_a_seed_means_one_classifier_and_leaves_others_randomness_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (8, 1, 1, 16, 16), dtype=np.uint8))
    courses = [Course(((Pool(pictures, pool(0, 8).stated), 1.0),))]
    state = torch.random.get_rng_state()

    def answers(seed: int) -> np.ndarray:
        network = train_utility_classifier(courses, ("Mass", "Hernia"), SMALL, seed)
        return features_of(pictures[:, 0], network.probabilities)

    first = answers(0)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    np.testing.assert_array_equal(first, answers(0))
    assert not np.allclose(first, answers(1))


def test_a_lesson_of_a_closed_form_loss_goes_down_its_slope() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    lesson = Lesson(
        lambda count, _: (torch.ones(count, 1), torch.full((count, 1), 3.0)),
        lambda found, wanted: (found - wanted).square().mean(), 200,
    )  # fmt: skip
    config = SMALL.model_copy(update={"learning_rate": 0.1, "weight_decay": 0.0})
    teach(layer, [lesson], config, 0)
    assert abs(layer.weight.item() - 3) < 0.05
