"""What can be asked for: one task a file, all of one shape (`task.py`), registered here.

task.py         the shape: spec -> items -> processes -> files
text_to_cxr.py  chest X-rays from sentences
"""

from jobs.tasks.task import Task
from jobs.tasks.text_to_cxr import TextToCXR

TASKS: dict[str, Task] = {task.name: task for task in (TextToCXR(),)}

__all__ = ["TASKS", "Task"]
