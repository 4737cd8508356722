"""Equiformer with an attention layer as the energy's readout: equal to plain NumPy on arrays by their published names.

The stored references hold no such model. The layer itself is the class that the blocks use, which those references test.
"""

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.special import expit

from equiform.graph import fully_connected_edges, make_graph, to_device
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.equiformer_gate import SIGMOID_FACTOR, SILU_FACTOR, SMOOTH_LEAKY_RELU_FACTOR
from equiform.models.presets import preset
from equiform.persist.official.convert import model_from_state
from equiform.persist.official.inference import infer_fields
from equiform.persist.official.names import official_shapes, official_state, with_official_state

SCALARS, VECTORS = 6, 4
SMALL = {
    "elements": tuple(range(64)), "irreps": "5x0e+3x1e", "irreps_sh": "1x0e+1x1e", "irreps_head": "3x0e+2x1e",
    "irreps_mlp": "6x0e+4x1e", "irreps_feature": f"{SCALARS}x0e+{VECTORS}x1e", "num_heads": 2, "num_layers": 1,
    "num_basis": 7, "radial_widths": (8, 9),
}  # fmt: skip


def small() -> EquiformerConfig:
    return preset("md17-l3-attention", **SMALL)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Of the head, counted by hand: degrees 0 and 1 couple by five paths, 0×0→0, 0×1→1, 1×0→1, 1×1→0 and 1×1→1."""
    heads, alpha, values = 2, 3, (2 * 3, 2 * 2)
    squares = SCALARS**2 + VECTORS**2
    weights, from_scalar, from_vector = 2 * SCALARS + 3 * VECTORS, SCALARS + VECTORS, SCALARS + 2 * VECTORS
    gates = SCALARS + VECTORS
    return {
        "merge_src.tp.weight": (squares,),
        "merge_src.bias.0": (SCALARS,),
        "merge_dst.tp.weight": (squares,),
        "alpha_dot": (1, heads, alpha),
        "sep_act.dtp_rad.offset": (weights,),
        "sep_act.dtp_rad.net.0.weight": (8, 7),
        "sep_act.dtp_rad.net.0.bias": (8,),
        "sep_act.dtp_rad.net.1.weight": (8,),
        "sep_act.dtp_rad.net.1.bias": (8,),
        "sep_act.dtp_rad.net.3.weight": (9, 8),
        "sep_act.dtp_rad.net.3.bias": (9,),
        "sep_act.dtp_rad.net.4.weight": (9,),
        "sep_act.dtp_rad.net.4.bias": (9,),
        "sep_act.dtp_rad.net.6.weight": (weights, 9),
        "sep_act.lin.tp.weight": (from_scalar * gates + from_vector * VECTORS,),
        "sep_act.lin.bias.0": (gates,),
        "sep_alpha.tp.weight": (from_scalar * heads * alpha,),
        "sep_alpha.bias.0": (heads * alpha,),
        "sep_value.dtp.tp.weight": (weights,),
        "sep_value.lin.tp.weight": (from_scalar * values[0] + from_vector * values[1],),
        "sep_value.lin.bias.0": (values[0],),
        "proj.tp.weight": (values[0],),
        "proj.bias.0": (1,),
    }


def head_of(model: Equiformer) -> dict[str, tuple[int, ...]]:
    shapes = official_shapes(model)
    return {name.removeprefix("head."): shape for name, shape in shapes.items() if name.startswith("head.")}


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """No zeros and no ones, so that no bias and no norm can be forgotten."""
    model = eqx.filter_eval_shape(lambda: Equiformer(small(), key=jax.random.key(0)))
    rng = np.random.default_rng(0)
    return {name: 0.4 * rng.standard_normal(shape) for name, shape in official_shapes(model).items()}


@pytest.fixture(scope="module")
def model(state: dict[str, np.ndarray]) -> Equiformer:
    return with_official_state(Equiformer(small(), key=jax.random.key(0)), state, np.float64)


def test_the_head_has_the_published_names_and_shapes(model):
    assert head_of(model) == published_shapes()


def test_a_state_is_recognised(state):
    fields, _ = infer_fields(state)
    names = ("irreps", "irreps_head", "irreps_mlp", "irreps_feature", "energy_readout", "elements", "basis", "num_basis")
    assert {name: fields[name] for name in names} == {name: getattr(small(), name) for name in names}


def test_a_state_is_written_back_unchanged(model, state):
    back = official_state(model)
    assert list(back) == list(state)
    assert all(np.array_equal(back[name], array) for name, array in state.items())


@pytest.mark.slow  # It counts the parameters of every preset.
def test_the_published_size_is_recognised():
    config = preset("md17-l3-attention")
    shapes = official_shapes(eqx.filter_eval_shape(lambda: Equiformer(config, key=jax.random.key(0))))
    _, report = model_from_state({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    assert (report.matched, report.config) == ("md17-l3-attention", config)


def test_dot_product_attention_is_not_combined_with_it():
    with pytest.raises(ValueError, match='energy_readout "attention" requires attention "mlp"'):
        preset("qm9-l2-dot", energy_readout="attention")


def test_energies_are_those_of_plain_numpy(model, state):
    positions = 1.2 * np.random.default_rng(5).normal(size=(5, 3))
    positions[4] += 9.0  # an atom without neighbours
    graph = to_device(make_graph(positions, [1, 6, 8, 1, 6], *fully_connected_edges(5)), np.float64)

    def loss(model: Equiformer) -> tuple[jax.Array, tuple]:
        stages = model.stages(graph)
        return stages.outputs["energy"].sum(), (stages.feature.to_mul_ir(), stages.outputs["energy"])

    gradients, (feature, energy) = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(model)
    expected = numpy_energies({name: state[f"head.{name}"] for name in published_shapes()}, np.asarray(feature), positions)
    np.testing.assert_allclose(energy, expected / np.sqrt(small().average_atoms), rtol=1e-12)
    # Values of degree 1 do not reach a scalar: their linear map is the only array without a gradient, here and there.
    without = [name for name, gradient in official_state(gradients).items() if not np.any(gradient)]
    assert without == []
    by_degree = gradients.energy_attention.message.value.weights
    assert np.any(by_degree["0e"]) and not np.any(by_degree["1e"])


def numpy_energies(head: dict[str, np.ndarray], feature: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The head's output per atom from features (atoms, 6 scalars and 4 vectors as xyz), one edge after the other."""
    x0, x1 = feature[:, :SCALARS], feature[:, SCALARS:].reshape(-1, VECTORS, 3)
    source = np.split(head["merge_src.tp.weight"], [SCALARS**2])
    target = np.split(head["merge_dst.tp.weight"], [SCALARS**2])
    energies = np.zeros(len(feature))
    for i in range(len(feature)):
        logits, values = [], []
        for j in range(len(feature)):
            vector = positions[j] - positions[i]
            distance = np.linalg.norm(vector)
            if i == j or distance > 5.0:
                continue
            m0 = x0[j] @ source[0].reshape(SCALARS, -1) + head["merge_src.bias.0"] + x0[i] @ target[0].reshape(SCALARS, -1)
            m1 = np.einsum("cx,ck->kx", x1[j], source[1].reshape(VECTORS, -1))
            m1 += np.einsum("cx,ck->kx", x1[i], target[1].reshape(VECTORS, -1))
            harmonic = np.sqrt(3) * vector / distance
            f0, f1 = product(m0, m1, harmonic, radial(head, distance))
            alpha = (f0 @ head["sep_alpha.tp.weight"].reshape(len(f0), -1) + head["sep_alpha.bias.0"]).reshape(2, 3)
            smooth = 0.6 * alpha + 0.4 * alpha * (2 * expit(alpha) - 1)
            logits.append(SMOOTH_LEAKY_RELU_FACTOR * (smooth * head["alpha_dot"][0]).sum(axis=1))
            g0, g1 = linear(f0, f1, head["sep_act.lin.tp.weight"], SCALARS + VECTORS, VECTORS)
            g0 = g0 + head["sep_act.lin.bias.0"]
            gated = SILU_FACTOR * g0[:SCALARS] * expit(g0[:SCALARS])
            v0, v1 = product(
                gated, SIGMOID_FACTOR * expit(g0[SCALARS:])[:, None] * g1, harmonic, head["sep_value.dtp.tp.weight"]
            )
            value, _ = linear(v0, v1, head["sep_value.lin.tp.weight"], 6, 4)
            values.append((value + head["sep_value.lin.bias.0"]).reshape(2, 3))
        energies[i] = head["proj.bias.0"][0]
        if logits:
            weights = np.exp(logits - np.max(logits, axis=0))
            weights /= weights.sum(axis=0)
            energies[i] += np.einsum("eh,ehc->hc", weights, values).ravel() @ head["proj.tp.weight"]
    return energies


def product(s: np.ndarray, v: np.ndarray, harmonic: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scalars and vectors times 1 and a vector, by the path; channels in the order in which the paths were made."""
    w = np.split(weights, np.cumsum([SCALARS, SCALARS, VECTORS, VECTORS]))
    scalars = np.concatenate([w[0] * s, w[3] * (v @ harmonic) / np.sqrt(3)])
    crossed = np.cross(v, harmonic) / np.sqrt(2)
    return scalars, np.concatenate([(w[1] * s)[:, None] * harmonic, w[2][:, None] * v, w[4][:, None] * crossed])


def linear(s: np.ndarray, v: np.ndarray, flat: np.ndarray, to_scalars: int, to_vectors: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.split(flat, [len(s) * to_scalars])
    return s @ first.reshape(-1, to_scalars), np.einsum("cx,ck->kx", v, second.reshape(-1, to_vectors))


def radial(head: dict[str, np.ndarray], distance: float) -> np.ndarray:
    """The network of PhysNet's basis: linear, layer norm, SiLU, twice; then linear."""
    means = np.linspace(np.exp(-5.0), 1, 7)
    beta = (2 / 7 * (1 - np.exp(-5.0))) ** -2
    h = 0.5 * (np.cos(np.pi * distance / 5) + 1) * np.exp(-beta * (np.exp(-distance) - means) ** 2)
    net = {name.removeprefix("sep_act.dtp_rad."): array for name, array in head.items()}
    for i in (0, 3):
        h = net[f"net.{i}.weight"] @ h + net[f"net.{i}.bias"]
        h = (h - h.mean()) / np.sqrt(h.var() + 1e-5) * net[f"net.{i + 1}.weight"] + net[f"net.{i + 1}.bias"]
        h = h * expit(h)
    return net["net.6.weight"] @ h + net["offset"]
