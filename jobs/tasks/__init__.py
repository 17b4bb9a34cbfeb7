"""What can be asked for: one task a file, all of one shape (`task.py`), registered here.

task.py         the shape: spec -> items -> processes -> files
text_to_cxr.py  chest X-rays from sentences
large_image.py  large images of tissue
anomaly_map.py  where pictures depart from healthy anatomy
augment.py      training pictures from pictures, with their masks
data_set.py     one of these over a manifest
said_labels.py  labels inside a spec
uploads.py      pictures inside a spec
study.py        or those of a study in a PACS
served.py       which models a task can use
"""

from jobs.tasks.anomaly_map import AnomalyMaps
from jobs.tasks.augment import Augment
from jobs.tasks.data_set import DataSet
from jobs.tasks.large_image import LargeImages
from jobs.tasks.task import Task
from jobs.tasks.text_to_cxr import TextToCXR

TASKS: dict[str, Task] = {
    task.name: task for task in (TextToCXR(), LargeImages(), AnomalyMaps(), Augment(), DataSet())
}

__all__ = ["TASKS", "Task"]
