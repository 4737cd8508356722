"""The stored references of the space of rays as our models and inputs: the small network, and the published rendering head."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.cameras import Cameras
from equiform.algebra.pluecker import Rays, Section, base_section, changed_section
from equiform.models.ray_rendering import RayRendering, RayRenderingConfig
from equiform.models.ray_transformer import RayTokens, RayTransformer, RayTransformerConfig


def stored_net(stored: Any) -> RayTransformer:
    """The stored network: twelve rays, four channels, one layer of each kind."""
    config = RayTransformerConfig(
        features=4, channels=4, num_heads=2, num_ray_layers=1, num_point_layers=1, radial_hidden=8, readout_hidden=8
    )
    model = RayTransformer(config, key=jax.random.key(0))

    def get(name: str) -> jax.Array:
        return jnp.asarray(stored[f"param.{name}"])

    def mix(name: str) -> jax.Array:
        weight = get(name).T
        return jnp.stack([weight.real, weight.imag]) if jnp.iscomplexobj(weight) else weight

    def radial(layer: Any, names: list[str]) -> Any:
        last = jnp.stack([get(f"{n}.W2") for n in names])
        bias = jnp.stack([get(f"{n}.b2") for n in names])
        parts = jnp.stack([get(f"{n}.W1") for n in names]), jnp.stack([get(f"{n}.b1") for n in names])
        parts += (last.reshape(*last.shape[:2], 2, -1), bias.reshape(len(names), 2, -1))
        return eqx.tree_at(lambda r: (r.first, r.first_bias, r.last, r.last_bias), layer, parts)

    def pair_names(prefix: str) -> list[str]:
        return [f"{prefix}{o}{i}" for o in range(3) for i in range(3)]

    att, gate, point = model.ray_layers[0], model.gates[0], model.point_layers[0]
    lifted = [mix(f"lift.W{k}") for k in range(3)]
    changes = [
        (lambda m: m.lift.weights, (mix("lift.self"),)),
        (lambda m: [layer.weights for layer in m.lift_pairs.mix], [(weight,) for weight in lifted]),
        (lambda m: m.lift_pairs.radial, radial(model.lift_pairs.radial, [f"lift.R{k}" for k in range(3)])),
        (lambda m: m.ray_layers[0].key_radial, radial(att.key_radial, pair_names("att.Rk"))),
        (lambda m: m.ray_layers[0].value_radial, radial(att.value_radial, pair_names("att.Rv"))),
        (lambda m: m.point_layers[0].mix.weights, tuple(mix(f"pt.W{k}") for k in range(3))),
        (lambda m: m.point_layers[0].radial, radial(point.radial, [f"pt.R{k}" for k in range(3)])),
        (lambda m: m.point_layers[0].score.weight, get("pt.logit").T),
        (lambda m: m.point_layers[0].vector.weight, get("pt.g").T),
    ]
    for name, letter in {"query": "q", "key": "k", "value": "v", "out": "o"}.items():
        changes.append(
            (lambda m, name=name: getattr(m.ray_layers[0], name).weights, tuple(mix(f"att.W{letter}{k}") for k in range(3)))
        )
    for k in range(len(gate.layers)):
        changes.append(
            (lambda m, k=k: (m.gates[0].layers[k].weight, m.gates[0].layers[k].bias), (mix(f"gate.W{k}"), get(f"gate.b{k}")))
        )
    for where, name in ((lambda m: m.point_layers[0].vector_radial, "pt.Rg"), (lambda m: m.readout, "out")):
        changes.append(
            (
                lambda m, where=where: (
                    where(m).first.weight,
                    where(m).first.bias,
                    where(m).second.weight,
                    where(m).second.bias,
                ),
                tuple(get(f"{name}.{part}") for part in ("W1", "b1", "W2", "b2")),
            )
        )
    for where, value in changes:
        model = eqx.tree_at(where, model, value)
    return model


def stored_tokens(stored: Any) -> tuple[RayTokens, Section]:
    """Its rays, and the sections that its tensors are stored in."""
    rays = Rays(jnp.asarray(stored["rays"][:, :3]), jnp.asarray(stored["rays"][:, 3:]))
    section = jax.jit(changed_section)(base_section(rays), jnp.asarray(stored["gauge_alpha"]), jnp.asarray(stored["gauge_c"]))
    return RayTokens(rays, jnp.asarray(stored["feats"]), jnp.ones(12, bool), jnp.zeros((12, 3))), section


def cameras_of(rows: np.ndarray) -> Cameras:
    """From IBRNet's 34 numbers: height, width, K and camera-to-world as 4 × 4."""
    pose = rows[:, 18:].reshape(-1, 4, 4)
    parts = pose[:, :3, :3], pose[:, :3, 3], rows[:, 2:18].reshape(-1, 4, 4)[:, :3, :3]
    return Cameras(*(jnp.asarray(part) for part in parts), int(rows[0, 0]), int(rows[0, 1]))


def stored_head(stored: Any, softening: float) -> RayRendering:
    """The published rendering head with its stored weights."""
    model = RayRendering(RayRenderingConfig(features=8, num_samples=8, softening=softening), key=jax.random.key(0))

    def get(name: str) -> jax.Array:
        return jnp.asarray(stored[f"state.{name}"])

    networks = {
        "directions": "ray_dir_fc",
        "base": "base_fc",
        "visibility": "vis_fc",
        "second_visibility": "vis_fc2",
        "geometry": "geometry_fc",
        "to_tensors": "ray_dir_fc_2",
        "density": "out_geometry_fc",
    }
    changes = [(lambda m: m.sharpness, get("s"))]
    for ours, theirs in networks.items():
        for part, number in (("first", 0), ("second", 2)):
            changes.append((lambda m, o=ours, p=part: getattr(getattr(m, o), p).weight, get(f"{theirs}.{number}.weight").T))
            changes.append((lambda m, o=ours, p=part: getattr(getattr(m, o), p).bias, get(f"{theirs}.{number}.bias")))
    for index in range(3):
        changes.append((lambda m, i=index: m.colour[i].weight, get(f"rgb_fc.{2 * index}.weight").T))
        changes.append((lambda m, i=index: m.colour[i].bias, get(f"rgb_fc.{2 * index}.bias")))
    for index in range(2):
        changes.append((lambda m, i=index: m.tensors[i].weight, get(f"geometry_fc_lf.tensor_fc.{2 * index}.weight")))
        changes.append((lambda m, i=index: m.tensors[i].threshold, get(f"geometry_fc_lf.tensor_fc.{2 * index + 1}.beta")[0, 0]))
    for ours, theirs in {"query": "w_qs_inv", "key": "w_ks_inv", "value": "w_vs_inv", "mix": "fc_1_inv"}.items():
        changes.append((lambda m, o=ours: getattr(m.attention, o).weight, get(f"ray_attention_lf.{theirs}.weight").T))
    for ours, theirs in {"query_tensors": "w_qs.weight", "key_tensors": "w_ks.weight"}.items():
        changes.append((lambda m, o=ours: getattr(m.attention, o), get(f"ray_attention_lf.{theirs}")))
    for ours, theirs in {"scale": "weight", "shift": "bias"}.items():
        changes.append((lambda m, o=ours: getattr(m.attention, o), get(f"ray_attention_lf.layer_norm.{theirs}")))
    for where, value in changes:
        assert where(model).shape == value.shape
        model = eqx.tree_at(where, model, value)
    return model


def stored_inputs(stored: Any, views: int = 4) -> tuple[Any, ...]:
    """Samples, depths, target camera, source cameras, images and feature maps."""
    target, sources = cameras_of(stored["query_camera"][None]), cameras_of(stored["src_cameras"][:views])
    depths = jnp.broadcast_to(jnp.asarray(stored["z_vals"]), stored["xyz"].shape[:2])
    maps = jnp.moveaxis(jnp.asarray(stored["featmaps"]), 1, -1)[:views]
    images = jnp.asarray(stored["imgs"])[0, :views]
    return jnp.asarray(stored["xyz"]), depths, target, sources, images, maps
