"""Labelled tiles from manifests, and splits that no picture is on both sides of."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gen.errors import InvalidInput, UnsafeFile
from gen.training.fractions import draw_fraction
from gen.training.labelled_tiles import (
    LabelledTiles,
    read_labelled_tiles,
    split_tiles,
)


def write(folder: Path, rows: list[dict[str, str]], sizes: tuple[int, int] = (8, 8)) -> Path:
    """A manifest of flat pictures whose level is their row."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for level, row in enumerate(rows):
        (folder / row["file"]).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((*sizes, 3), level, np.uint8)).save(folder / row["file"])
    return folder


def tiles(labels: list[int], splits: list[str] | None = None) -> LabelledTiles:
    blank = np.zeros((4, 4, 3), np.uint8)
    names = splits or [""] * len(labels)
    return LabelledTiles([blank] * len(labels), np.array(labels), names, ("a", "b"), [])


def test_tiles_of_a_pattern_carry_the_labels_of_a_column(tmp_path: Path) -> None:
    rows = [
        {"file": "t/0.png", "kind": "stroma", "split": "train"},
        {"file": "t/1.png", "kind": "", "split": "train"},
        {"file": "t/2.png", "kind": "mucosa", "split": "val"},
        {"file": "u/3.png", "kind": "fat", "split": "train"},
        {"file": "t/4.png", "kind": "stroma", "split": "test"},
    ]
    folder = write(tmp_path, rows, (6, 10))
    (folder / "t/4.png").write_bytes(b"no picture")
    for data in (folder, folder / "manifest.csv"):
        found = read_labelled_tiles(data, "t/*", "kind")
        assert found.classes == ("mucosa", "stroma")
        assert found.labels.tolist() == [1, 0]
        assert found.splits == ["train", "val"]
        assert found.at(4).shape == (2, 3, 4, 4)
        assert found.at(4)[:, 0, 0, 0].tolist() == [0, 2]
        assert found.omissions == [
            "1 tile(s) have no label; the first: t/1.png",
            "1 tile(s) cannot be read; the first: t/4.png",
        ]


def test_of_an_oblong_picture_the_middle_is_taken(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"file": f"{i}.png", "kind": str(i)} for i in range(2)], (4, 10))
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    Image.fromarray(wide).save(folder / "0.png")
    found = read_labelled_tiles(folder, "*", "kind")
    assert (found.pixels[0] == 200).all()
    assert found.splits == ["", ""]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read as a table"):
        read_labelled_tiles(tmp_path, "*", "kind")
    folder = write(tmp_path, [{"file": "a.png", "kind": "x"}])
    with pytest.raises(InvalidInput, match="no column 'sort', only: file, kind"):
        read_labelled_tiles(folder, "*", "sort")
    with pytest.raises(InvalidInput, match="1 files like '\\*', of 1 classes"):
        read_labelled_tiles(folder, "*", "kind")
    outside = folder / "manifest.csv"
    outside.write_text("file,kind\n../a.png,x\n")
    with pytest.raises(UnsafeFile, match="leaves"):
        read_labelled_tiles(folder, "*", "kind")


def test_a_manifests_split_holds_but_for_copies_of_held_out_tiles() -> None:
    splits = ["train"] * 5 + ["val", "test", "test"]
    given_tiles = tiles([0, 0, 1, 1, 0, 0, 1, 1], splits)
    found = split_tiles(given_tiles, [0, 1, 2, 3, 5, 5, 6, 7])
    assert found.train.tolist() == [0, 1, 2, 3]
    assert found.held_out.tolist() == [5, 6, 7]
    assert found.num_copies == 1
    with pytest.raises(InvalidInput, match=r"no tile of 'b' to train on"):
        split_tiles(given_tiles, [0, 1, 6, 7, 4, 5, 6, 7])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=30, max_size=60), st.integers(0, 100))
def test_without_a_manifests_split_a_quarter_of_each_class_is_held_out_by_group(
    labels: list[int], seed: int
) -> None:
    labels = [*([0] * 8), *([1] * 8), *labels]
    groups = [100 * label + index % 7 for index, label in enumerate(labels)]
    found = split_tiles(tiles(labels, ["train"] * len(labels)), groups, seed)
    numbers = np.array(groups)
    assert not set(numbers[found.train]) & set(numbers[found.held_out])
    assert sorted([*found.train, *found.held_out]) == list(range(len(labels)))
    for label in (0, 1):
        names = {g for g in numbers[found.held_out] if g // 100 == label}
        assert len(names) == 2  # a quarter of seven


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_fraction_is_part_of_a_larger_one_and_groups_are_whole(
    seed: int, one: float, other: float
) -> None:
    labels = np.array([0] * 20 + [1] * 40)
    groups = [index // 2 for index in range(60)]
    rows = np.arange(2, 58)
    small, large = (
        draw_fraction(labels, groups, rows, share, seed) for share in sorted((one, other))
    )
    assert set(small) <= set(large) <= set(rows)
    assert set(labels[small]) == {0, 1}
    assert all(index ^ 1 in set(large) for index in large)
    expected = sum(max(1, round(max(one, other) * count)) for count in (9, 19))
    assert len(large) == 2 * expected


def test_seeds_draw_different_tiles_and_all_is_all() -> None:
    labels, rows = np.array([0] * 20 + [1] * 20), np.arange(40)
    first, second = (draw_fraction(labels, range(40), rows, 0.2, seed) for seed in (0, 1))
    assert len(first) == len(second) == 8
    assert first.tolist() != second.tolist()
    assert draw_fraction(labels, range(40), rows, 1, 0).tolist() == rows.tolist()
