"""What can be asked for: one task a file, all of one shape (`task.py`), registered here.

task.py         the shape: spec -> items -> processes -> files
text_to_cxr.py  chest X-rays from sentences
large_image.py  large images of tissue
anomaly_map.py  where pictures depart from healthy anatomy
uploads.py      pictures inside a spec
study.py        or those of a study in a PACS
served.py       which models a task can use
"""

from jobs.tasks.anomaly_map import AnomalyMaps
from jobs.tasks.large_image import LargeImages
from jobs.tasks.task import Task
from jobs.tasks.text_to_cxr import TextToCXR

TASKS: dict[str, Task] = {task.name: task for task in (TextToCXR(), LargeImages(), AnomalyMaps())}

__all__ = ["TASKS", "Task"]
