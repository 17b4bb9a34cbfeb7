"""The search for copies in `medphantom evaluate large`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput
from jobs.bars import Bars
from jobs.large_sets import Picture

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray

    from gen.encoders.encoder import Encoder
    from gen.metrics.tile_copies import TileIndex, TileMatches

FALSE_ALARMS = 0.01  # of real places, where there are enough of them to say so
SHOWN = 5  # pairs most alike, for people to look at
_BLOCK = 4  # tiles a side: places that are drawn together


def find_copies(
    images: Sequence[Picture],
    real: Sequence[Picture],
    training: Sequence[Picture],
    encoder: "Encoder",
    patch_size: int,
    num_places: int,
    num_planted: int,
    seed: int,
    drawn: Bars,
) -> dict[str, Any]:
    """Rate of places that are nearer to a training tile than real ones are, and recall of copies.

    Args:
        images, real, training: at one magnification, none smaller than a patch. A real image that
            is a training image too is no match of its own pixels.
        encoder: of the look-ups.
        patch_size: side in pixels of what counts as a copy.
        num_places: of the images, and of the real images, that are looked at, drawn.
        num_planted: copies of each kind that are made to be found.
        seed: of all draws.
        drawn: bars.
    """
    import numpy as np

    from gen.metrics.calibration import calibrate, flag
    from gen.metrics.copies import Matches
    from gen.metrics.tile_copies import index_tiles
    from gen.metrics.tile_planted import planted_recall

    views = [each.view for each in training]
    index = index_tiles(views, encoder, patch_size, drawn.bar("indexing training images"))
    of_digest = {each.sha256: number for number, each in enumerate(training)}
    owns = [of_digest.get(each.sha256) for each in real]
    held_out, blocks = _matches(
        real, owns, index, encoder, num_places, seed, drawn, "looking up real places"
    )
    # each half of the real places must hold the n-th that is flagged by mistake
    rate = max(FALSE_ALARMS, 4 / max(1, len(blocks)))
    calibration = calibrate(_joined(held_out), blocks, (), min(rate, 0.5), seed)
    found, _ = _matches(
        images, [None] * len(images), index, encoder, num_places, seed, drawn, "looking up places"
    )
    matches: Matches = _joined(found)
    flagged = flag(matches, calibration)
    pictures = [each.view for each in images]
    recall = planted_recall(
        views, pictures, index, encoder, calibration.threshold.value, num_planted, seed,
        drawn.bar("looking for planted copies"),
    )  # fmt: skip
    order = np.argsort(-matches.scores)[:SHOWN]
    return {
        "rate": asdict(flagged.rate),
        "floor": asdict(flagged.floor),
        "threshold": asdict(calibration.threshold),
        "false_alarm_rate": calibration.false_alarm_rate,
        "places": len(matches.scores),
        "real_places": len(blocks),
        "training_windows": len(index.embeddings),
        "recall": {name: asdict(each) for name, each in recall.items()},
        "nearest": [_pair(images, found, training, index, int(row)) for row in order],
    }


def _matches(
    pictures: Sequence[Picture],
    owns: Sequence[int | None],
    index: "TileIndex",
    encoder: "Encoder",
    num_places: int,
    seed: int,
    drawn: Bars,
    title: str,
) -> tuple[list["TileMatches"], list[str]]:
    """Matches of drawn places of each picture, and the block that each place lies in."""
    import numpy as np

    from gen.metrics.tile_copies import match_places, places_of

    side = index.tile_size
    everywhere = [
        (number, place)
        for number, each in enumerate(pictures)
        for place in places_of(each.view, side)
    ]
    chosen = np.random.default_rng(seed).permutation(len(everywhere))[:num_places]
    report, done = drawn.bar(title), 0
    found, blocks = [], []
    for number, picture in enumerate(pictures):
        places = [everywhere[i][1] for i in sorted(chosen) if everywhere[i][0] == number]

        def step(now: int, _: int, before: int = done) -> None:
            report(before + now, len(chosen))

        matches = match_places(picture.view, places, index, encoder, owns[number], step)
        done += len(places)
        found.append(matches)
        blocks += [
            f"{number}\n{top // (_BLOCK * side)}\n{left // (_BLOCK * side)}"
            for top, left in matches.corners.tolist()
        ]
    if not blocks:
        names = ", ".join(str(each.path) for each in pictures)
        raise InvalidInput(f"copies are looked for in {names}, which shows no tissue; name others")
    return found, blocks


def _joined(found: "Sequence[TileMatches]") -> Any:
    import numpy as np

    from gen.metrics.copies import Matches

    return Matches(
        np.concatenate([each.scores for each in found]),
        np.concatenate([each.rows for each in found]),
    )


def _pair(
    images: Sequence[Picture],
    found: "Sequence[TileMatches]",
    training: Sequence[Picture],
    index: "TileIndex",
    row: int,
) -> dict[str, Any]:
    """A place and what it is most like, each by file and corner at the compared magnification."""
    sizes = [len(each.scores) for each in found]
    number = next(n for n in range(len(sizes)) if row < sum(sizes[: n + 1]))
    place = row - sum(sizes[:number])
    top, left = _corner(found[number].corners[place])
    match = int(found[number].rows[place])
    train_top, train_left = _corner(index.corners[match].numpy())
    return {
        "file": str(images[number].path),
        "top": top,
        "left": left,
        "score": float(found[number].scores[place]),
        "train": str(training[int(index.images[match])].path),
        "train_top": train_top,
        "train_left": train_left,
    }


def _corner(values: "NDArray[np.integer]") -> tuple[int, int]:
    return int(values[0]), int(values[1])
