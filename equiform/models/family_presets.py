"""Named configurations of the other architectures: those of their papers, exactly. Names begin with the architecture's.

Sizes for one's own data are the architectures' own defaults (`model.name=…`), which have the improvements switched on.
"""

from typing import Any

_QM9_ELEMENTS = (1, 6, 7, 8, 9)
_EGNN_SHARP: dict[str, Any] = {"name": "egnn", "cutoff_kind": "sharp", "cutoff": 1000.0}

FAMILY_PRESETS: dict[str, dict[str, Any]] = {
    "egnn-nbody": _EGNN_SHARP
    | {
        "elements": (0,),
        "num_layers": 4,
        "channels": 64,
        "species": None,
        "velocity": "velocity",
        "charge": "charge",
        "initial_distance": True,
        "gate": False,
        "displacement": "displacement",
        "readout": None,
    },
    "egnn-qm9": _EGNN_SHARP | {"elements": _QM9_ELEMENTS, "species": "powers", "readout": "graph"},
}
