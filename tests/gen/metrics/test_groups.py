"""Groups that measures are split by."""

from gen.data.captions import Labels
from gen.metrics.groups import AXES, groups_of, rows_by_group


def test_an_image_is_in_a_group_of_each_axis_its_labels_speak_of() -> None:
    labels = Labels(("Effusion", "Mass"), view="PA", sex="F", age=40.0)
    assert groups_of(labels) == {
        "finding": ("Effusion", "Mass"),
        "view": ("PA",),
        "sex": ("female",),
        "age group": ("adult",),
    }
    assert set(groups_of(Labels(("Normal",), child=True))) == {"finding", "age group"}
    assert groups_of(None) == {}


def test_rows_are_listed_under_every_group_they_belong_to() -> None:
    labels = [Labels(("Mass",), sex="M"), None, Labels(("Effusion", "Mass"), child=True)]
    rows = rows_by_group(labels)
    assert tuple(rows) == AXES
    assert rows["finding"] == {"Effusion": [2], "Mass": [0, 2]}
    assert rows["sex"] == {"male": [0]}
    assert rows["age group"] == {"adult": [0], "child": [2]}
    assert rows["view"] == {}
