"""Named configurations of the other architectures: those of their papers, exactly. Names begin with the architecture's.

Sizes for one's own data are the architectures' own defaults (`model.name=…`), which have the improvements switched on.
"""

from typing import Any

_QM9_ELEMENTS = (1, 6, 7, 8, 9)
_EGNN_SHARP: dict[str, Any] = {"name": "egnn", "cutoff_kind": "sharp", "cutoff": 1000.0}
# The embedding of the reference has a row for every number below 100.
_ET: dict[str, Any] = {
    "name": "torchmd-et",
    "elements": tuple(range(100)),
    "vector_cutoff": False,
    "vector_norm": "plain",
}
_ET_QM9 = _ET | {"channels": 256, "num_layers": 8, "num_basis": 64}

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
    "torchmd-et-qm9": _ET_QM9,
    "torchmd-et-qm9-dipole": _ET_QM9 | {"readout": "dipole"},
    "torchmd-et-qm9-extent": _ET_QM9 | {"readout": "spatial_extent"},
    "torchmd-et-md17": _ET,
    "torchmd-et-ani1": _ET,
}
