"""Write equiformer_tiny.npz: energies and forces of tiny models by the plain product.

Run as `python -m tests.references.make_equiformer_tiny`.
"""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

if __name__ == "__main__":
    from tests.models.test_official_parity import REFERENCES, tiny, tiny_graph

    values = {}
    for name in REFERENCES:
        result = eqx.filter_jit(tiny(name, "plain"))(tiny_graph())
        values |= {f"{name}.energy": np.asarray(result["energy"]), f"{name}.forces": np.asarray(result["forces"])}
        print(name, values[f"{name}.energy"], np.abs(values[f"{name}.forces"]).max())
    np.savez(Path(__file__).parent / "equiformer_tiny.npz", **values)
