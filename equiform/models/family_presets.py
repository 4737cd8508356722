"""Named configurations of the other architectures, exactly as in their papers. Names begin with the architecture's name.
`equiformer-nbody` is ours: Equiformer for simulated particles, with true parities.

For your own data use the architectures' defaults (`model.name=…`), which have the improvements enabled.
"""

from typing import Any

_QM9_ELEMENTS = (1, 6, 7, 8, 9)
_EGNN_SHARP: dict[str, Any] = {"name": "egnn", "cutoff_kind": "sharp", "cutoff": 1000.0}
# The reference's embedding has a row for every atomic number below 100.
_ET: dict[str, Any] = {
    "name": "torchmd-et",
    "elements": tuple(range(100)),
    "vector_cutoff": False,
    "vector_norm": "plain",
}
_ET_QM9 = _ET | {"channels": 256, "num_layers": 8, "num_basis": 64}
_SE3: dict[str, Any] = {
    "name": "se3-transformer",
    "cutoff": 1000.0,
    "cutoff_kind": "sharp",
    "l_max": 3,
    "num_basis": 0,
    "true_parity": False,
    "embed": False,
}
_SE3_NBODY = _SE3 | {
    "elements": (0,),
    "channels": 8,
    "num_heads": 2,
    "last_self_interaction": "attentive",
    "add_direction": True,
    "nonlinearity": "bias",
    "species": None,
    "node_scalars": ("charge",),
    "node_vectors": ("velocity",),
    "edge_products": ("charge",),
    "vector_readouts": ("displacement", "velocity_change"),
    "readout": None,
}
# As released: three numbers per atom times the velocity, inverted masks, dropout in evaluation.
_DEMETAR: dict[str, Any] = {
    "name": "demetar",
    "cutoff_kind": "sharp",
    "activation": "relu",
    "scope": "graph",
    "num_basis": None,
}
_DEMETAR_NBODY = _DEMETAR | {
    "elements": (0,),
    "cutoff": 1000.0,
    "channels": 64,
    "node_layers": 1,
    "edge_layers": 1,
    "joint_layers": 1,
    "charge": "charge",
    "velocity": "velocity",
    "vector_readouts": ("displacement",),
    "readout": None,
    "average_degree": 4.0,
    "max_atoms": 5,
    "max_edges": 20,
}
_DEMETAR_QM9 = _DEMETAR | {
    "elements": _QM9_ELEMENTS,
    "cutoff": 3.0,
    "num_basis": 16,
    "node_layers": 3,
    "edge_layers": 3,
    "joint_layers": 3,
    "centre_distance": True,
    "readout": "graph",
    "max_atoms": 29,
}
_DEMETAR_RELEASED: dict[str, Any] = {"mask": "others", "dropout": 0.1, "dropout_in_evaluation": True, "speed": False}

FAMILY_PRESETS: dict[str, dict[str, Any]] = {
    "equiformer-nbody": {
        "elements": (0,),
        "cutoff": 20.0,
        "cutoff_kind": "sharp",
        "num_layers": 4,
        "irreps": "32x0e+16x1o+8x2e",
        "irreps_sh": "1x0e+1x1o+1x2e",
        "irreps_head": "8x0e+4x1o+2x2e",
        "irreps_mlp": "64x0e+16x1o+8x2e",
        "irreps_feature": "64x0e+32x1o",
        "basis": "exp",
        "num_basis": 32,
        "radial_widths": (32, 32),
        "average_degree": 4.0,
        "average_atoms": 5.0,
        "node_scalars": ("charge",),
        "node_vectors": ("velocity",),
        "vector_readouts": ("displacement",),
    },
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
        "vector_readouts": ("displacement",),
        "readout": None,
    },
    "egnn-qm9": _EGNN_SHARP | {"elements": _QM9_ELEMENTS, "species": "powers", "readout": "graph"},
    "se3-transformer-nbody": _SE3_NBODY,
    "tfn-nbody": _SE3_NBODY | {"attention": False},
    "se3-transformer-qm9": _SE3
    | {
        "elements": _QM9_ELEMENTS,
        "num_layers": 7,
        "division": 2,
        "num_heads": 8,
        "nonlinearity": "norm",
        "species": "with_number",
        "readout": "max",
    },
    "linear-nbody": {"name": "linear", "elements": (0,)},
    "deep-sets-nbody": {"name": "deep-sets", "elements": (0,)},
    "set-transformer-nbody": {"name": "transformer", "elements": (0,), "block": "set"},
    "transformer-nbody": {"name": "transformer", "elements": (0,)},
    "torchmd-et-qm9": _ET_QM9,
    "torchmd-et-qm9-dipole": _ET_QM9 | {"readout": "dipole"},
    "torchmd-et-qm9-extent": _ET_QM9 | {"readout": "spatial_extent"},
    "torchmd-et-md17": _ET,
    "torchmd-et-ani1": _ET,
    "demetar-published": _DEMETAR_NBODY | _DEMETAR_RELEASED | {"vectors": "velocity-components"},
    "demetar-nbody": _DEMETAR_NBODY,
    "demetar-qm9-published": _DEMETAR_QM9
    | _DEMETAR_RELEASED
    | {"num_basis": None, "padding": "attended", "edges_arrive": False},
    "demetar-qm9": _DEMETAR_QM9,
}
