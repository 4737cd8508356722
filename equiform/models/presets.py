"""Named configurations: the reference's Equiformers, exactly, and our own; `ALL_PRESETS` adds the other architectures.

The reference presets keep the published function (sharp cutoff, per-degree normalisation) and parameter counts. Ours are named
by size; they have a smooth cutoff and the joint normalisation, so energies and forces are continuous and invariance holds at
symmetric geometries.
"""

from collections.abc import Iterable
from typing import Any

from equiform.errors import UserError, suggest
from equiform.models import parse_config
from equiform.models.family_presets import FAMILY_PRESETS
from equiform.models.width import widened

_REFERENCE: dict[str, Any] = {"norm": "per_degree", "cutoff_kind": "sharp"}
_QM9 = _REFERENCE | {"elements": (1, 6, 7, 8, 9), "alpha_dropout": 0.2}
_MD17 = _REFERENCE | {"elements": tuple(range(64)), "basis": "exp", "num_basis": 32}
_E3 = {
    "irreps": "128x0e+32x0o+32x1e+32x1o+16x2e+16x2o",
    "irreps_sh": "1x0e+1x1o+1x2e",
    "irreps_head": "32x0e+8x0o+8x1e+8x1o+4x2e+4x2o",
    "irreps_mlp": "384x0e+96x0o+96x1e+96x1o+48x2e+48x2o",
}
_L3 = {
    "irreps": "128x0e+64x1e+64x2e+32x3e",
    "irreps_sh": "1x0e+1x1e+1x2e+1x3e",
    "irreps_head": "32x0e+16x1e+16x2e+8x3e",
    "irreps_mlp": "384x0e+192x1e+192x2e+96x3e",
}
_OC20 = _REFERENCE | {
    "elements": tuple(range(84)),
    "irreps": "256x0e+128x1e",
    "irreps_sh": "1x0e+1x1e",
    "irreps_head": "32x0e+16x1e",
    "irreps_mlp": "768x0e+384x1e",
    "num_heads": 8,
    "alpha_dropout": 0.2,
    "average_degree": 23.395238876342773,
    "average_atoms": 77.81317,
    "num_tags": 3,
}
_IS2RS = {"irreps_feature": "512x0e+256x1e", "vector_readouts": ("displacement",), "drop_path": 0.05}

PRESETS: dict[str, dict[str, Any]] = {
    "qm9-l2-nonlinear": _QM9,
    "qm9-l2-linear": _QM9 | {"message": "linear"},
    "qm9-l2-dot": _QM9 | {"message": "linear", "attention": "dot"},
    "qm9-l2-bessel": _QM9 | {"basis": "bessel", "num_basis": 8},
    "qm9-l2-bessel-drop01": _QM9 | {"basis": "bessel", "num_basis": 8, "alpha_dropout": 0.1},
    "qm9-l2-bessel-drop00": _QM9 | {"basis": "bessel", "num_basis": 8, "alpha_dropout": 0.0},
    "qm9-e3-nonlinear": _QM9 | _E3,
    "md17-l2": _MD17,
    "md17-l3": _MD17 | _L3,
    "md17-l3-attention": _MD17 | _L3 | {"irreps_feature": _L3["irreps"], "energy_readout": "attention"},
    "oc20-nonlinear": _OC20,
    "oc20-linear": _OC20 | {"message": "linear"},
    "oc20-dot": _OC20 | {"message": "linear", "attention": "dot"},
    "oc20-linear-8": _OC20 | {"message": "linear", "num_layers": 8},
    "oc20-dot-8": _OC20 | {"message": "linear", "attention": "dot", "num_layers": 8},
    "oc20-e3-nonlinear": _OC20
    | {
        "irreps": "256x0e+64x0o+64x1e+64x1o",
        "irreps_sh": "1x0e+1x1o",
        "irreps_head": "32x0e+8x0o+8x1e+8x1o",
        "irreps_mlp": "768x0e+192x0o+192x1e+192x1o",
    },
    "oc20-is2rs": _OC20 | _IS2RS,
    "oc20-is2rs-18": _OC20 | _IS2RS | {"num_layers": 18},
    "tiny": {
        "irreps": "32x0e+16x1e+8x2e",
        "irreps_head": "16x0e+8x1e+4x2e",
        "irreps_mlp": "64x0e+16x1e+8x2e",
        "irreps_feature": "64x0e",
        "num_heads": 2,
        "num_layers": 2,
        "radial_widths": (32, 32),
    },
    "small": {
        "irreps": "64x0e+32x1e+16x2e",
        "irreps_head": "16x0e+8x1e+4x2e",
        "irreps_mlp": "128x0e+64x1e+32x2e",
        "irreps_feature": "128x0e",
        "num_layers": 3,
    },
    "medium": {"irreps_mlp": "256x0e+128x1e+64x2e", "irreps_feature": "256x0e", "num_layers": 4},
    "large": dict(_L3),
}
OWN = ("tiny", "small", "medium", "large")
for _name in OWN:
    PRESETS[_name] = {"basis": "exp", "num_basis": 32} | PRESETS[_name]


ALL_PRESETS: dict[str, dict[str, Any]] = {**PRESETS, **FAMILY_PRESETS}
"""Every preset that a recipe can name."""


def preset(name: str, *, elements: Iterable[int] | None = None, width: float | int = 1, **changes: Any) -> Any:
    """A configuration by name.

    Args:
        name: One of `ALL_PRESETS`.
        elements: Atomic numbers; required by our own presets, preset in the reference's.
        width: Factor on channels, head channels and hidden sizes; see `widened`.
        changes: Fields to override; not widened.

    Raises:
        UserError: There is no such preset, it needs elements, or it has nothing that a width can scale.
    """
    if name not in ALL_PRESETS:
        published = ", ".join(known for known in ALL_PRESETS if known not in OWN)
        raise UserError(
            f"there is no preset {name!r}{suggest(name, ALL_PRESETS)} (for your own data: {', '.join(OWN)}; those of papers: "
            f"{published})"
        )
    fields = dict(ALL_PRESETS[name])
    if elements is not None:
        fields["elements"] = tuple(sorted(set(elements)))
    if "elements" not in fields:
        raise UserError(f"preset {name!r} needs the elements of the data")
    if width != 1:
        fields = widened(parse_config(fields), width).model_dump()
    return parse_config(fields | changes)
