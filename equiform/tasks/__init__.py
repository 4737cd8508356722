"""Tasks, the quantities to predict: one file and one entry in `TASKS` each."""

from equiform.tasks.api import Task
from equiform.tasks.direct_forces import DirectForces
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.tasks.property import Property

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Potential, Property, Motion, DirectForces)}
"""Tasks by their name in model files."""
