"""What is predicted: one file a task, one entry each in `TASKS`."""

from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.tasks.property import Property

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Potential, Property, Motion)}
"""By the name that a model file gives them."""
