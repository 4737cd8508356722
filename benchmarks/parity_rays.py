"""Compare rays, kernels, scenes, the ray network and the rendering head with their stored references, by stage, in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.official import relative_error
from benchmarks.rays_references import stored_head, stored_inputs, stored_net, stored_tokens
from equiform.algebra.pluecker import Rays, RayType, Section, cocycle, point_pairs, ray_pairs, transformed
from equiform.algebra.so3.rotations import wigner_d
from equiform.data.sets.rays_scenes import pixel_directions
from equiform.data.sets.sphere_tracing import Scene, normals, signed_distance, trace, visual_hull
from equiform.models.ray_rendering import sampled_views
from equiform.nn.rays import RayField, scalar_field, transported
from equiform.nn.rays_convolution import pair_factor, pair_invariants, point_kernel


def kernel_errors(stored: Any) -> dict[str, float]:
    """Action, cocycle, pairs, kernels and fields of `rays_kernels.npz`."""
    rays = {name: Rays(jnp.asarray(stored[name][:, :3]), jnp.asarray(stored[name][:, 3:])) for name in "XY"}
    sections = {name: Section(jnp.asarray(stored[f"F{name}"]), jnp.asarray(stored[f"o{name}"])) for name in "XY"}
    rotation, translation, f = (jnp.asarray(stored[name]) for name in ("R", "t", "f"))
    found: dict[str, list[tuple[Any, Any]]] = {"action": [], "cocycle": [], "kernels, ray to ray": [], "convolution": []}
    found |= {"transported field": [], "Wigner D": [], "kernels, ray to point": []}
    for name in "XY":
        moved = transformed(rays[name], rotation, translation)
        found["action"].append((jnp.concatenate([moved.direction, moved.moment], 1), stored[f"g{name}"]))
        section = Section(jnp.asarray(stored[f"gF{name}"]), jnp.asarray(stored[f"go{name}"]))
        angle, shift = cocycle(section, rotation, translation, sections[name])
        found["cocycle"] += [(angle, stored[f"phi{name}"]), (shift, stored[f"om{name}"])]
    pairs = ray_pairs(rays["X"], sections["X"], rays["Y"], sections["Y"])
    names = {"a": "a", "b": "b", "a_back": "a2", "b_back": "b2", "cosine": "cos", "reciprocal": "rec", "foot": "z_xy"}
    found["pairs of rays"] = [(getattr(pairs, ours), stored[f"pair.{theirs}"]) for ours, theirs in names.items()]
    points = point_pairs(jnp.asarray(stored["P"]), rays["Y"], sections["Y"])
    names = {"distance": "r", "along": "z", "a": "a", "frame": "E"}
    found["pairs with points"] = [(getattr(points, ours), stored[f"pt.{theirs}"]) for ours, theirs in names.items()]
    for name in stored.files:
        case = name.partition("[")[2].rstrip("]")
        if name.startswith("K_rr["):
            ko, wo, ki, wi = case.split(",")
            kinds = RayType(int(ko), float(wo)), RayType(int(ki), float(wi))
            kernel = pair_factor(pairs, *kinds, "general") * jnp.asarray(stored["radial"])
            found["kernels, ray to ray"].append((kernel, stored[name]))
            found["convolution"].append((kernel @ f, stored[f"f_out[{case}]"]))
        elif name.startswith("f_transported["):
            k, omega = case.split(",")
            kind, expected = RayType(int(k), float(omega)), stored[name]
            field = RayField(((f.real if kind.trivial else f)[:, None],), (kind,))
            moved_field = transported(field, jnp.asarray(stored["phiY"]), jnp.asarray(stored["omY"])).values[0][:, 0]
            found["transported field"].append((moved_field, expected.real if kind.trivial else expected))
        elif name.startswith("K_rp["):
            degree, k, omega = case.split(",")
            components = jnp.asarray(stored[f"c{degree}"])
            value = point_kernel(points, int(degree), RayType(int(k), float(omega)), components)
            found["kernels, ray to point"].append((value, stored[name]))
        elif name.startswith("wigD"):
            degree = int(name.removeprefix("wigD"))
            found["Wigner D"].append((wigner_d(degree, rotation)[degree], stored[name]))
    return _worst(found)


def scene_errors(stored: Any) -> dict[str, float]:
    """Rays, rendered views, distances and hull of `rays_scene.npz`."""
    scene = Scene(*(stored[f"scene.{name}"] for name in ("kind", "c", "R", "par", "rgb", "light")))
    views, pixels = len(stored["cam.o"]), round(stored["view.d"].shape[1] ** 0.5)
    focal = 0.5 * pixels / np.tan(np.radians(20))
    k = np.array([[focal, 0, pixels / 2], [0, focal, pixels / 2], [0, 0, 1]])
    directions = pixel_directions(stored["cam.R_c2w"], k, pixels).reshape(views, -1, 3)
    origins = np.repeat(stored["cam.o"][:, None], directions.shape[1], axis=1)
    flat = directions.reshape(-1, 3)
    seen = trace(scene, origins.reshape(-1, 3), flat)
    facing = -(normals(scene, origins.reshape(-1, 3) + seen.depth[:, None] * flat) * flat).sum(-1)
    silhouettes = stored["view.hit"].reshape(views, pixels, pixels)
    cameras = stored["cam.R_c2w"], stored["cam.o"], np.repeat(k[None], views, axis=0)
    inside = visual_hull(stored["query.p"], *cameras, silhouettes)
    return _worst(
        {
            "pixel rays": [(directions, stored["view.d"]), (np.cross(origins, directions), stored["plucker"][..., 3:])],
            "views": [
                (seen.rgb, stored["view.rgb"].reshape(-1, 3)),
                (seen.depth, stored["view.depth"].ravel()),
                (seen.hit.astype(float), stored["view.hit"].ravel().astype(float)),
                (np.where(seen.hit, np.maximum(facing, 0), 0), stored["view.head"].ravel()),
            ],
            "signed distance": [(signed_distance(scene, stored["query.p"]), stored["query.sdf"])],
            "visual hull": [(inside.astype(float), stored["hull.inside"].astype(float))],
        }
    )


def net_errors(stored: Any) -> dict[str, float]:
    """Every stage of the network of `rays_net.npz`, in its stored sections."""
    model, (tokens, section), queries = stored_net(stored), stored_tokens(stored), jnp.asarray(stored["queries"])
    number = tokens.mask.shape[0]
    off = ~jnp.eye(number, dtype=bool)

    @eqx.filter_jit
    def stages(model: Any) -> dict[str, Any]:
        pairs = ray_pairs(tokens.rays, section, tokens.rays, section)
        invariants, given = pair_invariants(pairs), scalar_field(tokens.features)
        lifted = model.lift_pairs(given, pairs, invariants, jnp.where(off, 1 / (number - 1), 0))
        own = model.lift(given).values[0]
        lifted = lifted.map(lambda value, kind: value + own if kind.trivial else value)
        field, points = model.on_rays(tokens, section), point_pairs(queries, tokens.rays, section)
        arguments = field, points, points.distance[..., None], jnp.ones((queries.shape[0], number), bool)
        parts, alpha = model.point_layers[0].parts(*arguments)
        state = model.point_layers[0](*arguments)
        out = {f"lift.h{k}": value for k, value in enumerate(lifted.values)}
        out |= {f"att.h{k}": value for k, value in enumerate(field.values)}
        out |= {"att.logits": jnp.where(off[..., None], model.ray_layers[0].logits(lifted, pairs, invariants), 0)}
        out |= {"pt.scal": parts, "pt.alpha": alpha, "pt.f0": state.scalars, "pt.v": state.vectors}
        return out | {"occ_logit": model(tokens, queries, section=section)}

    expected = {name: np.asarray(stored[f"out.{name}"]) for name in stages(model)}
    expected["att.logits"] = np.where(np.asarray(off)[..., None], expected["att.logits"], 0)
    return _worst({name: [(value, expected[name])] for name, value in stages(model).items()})


def head_errors(stored: Any) -> dict[str, float]:
    """Every output of the published rendering head, `rays_ibrnet_head.npz`."""
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    axis, centre = target.rotation[0, :, 0], target.centre[0]
    model = stored_head(stored, 1e-6)
    out = eqx.filter_jit(lambda model, *given: model(*given))(model, samples, depths, centre, axis, sources, images, maps)
    views = eqx.filter_jit(sampled_views)(samples, centre, axis, sources, images, maps, 1e-6)
    raw = jnp.concatenate([out.colors, out.density[..., None]], axis=-1)
    pairs = {"rgb": out.rgb, "depth": out.depth, "weights": out.weights, "raw": raw, "rgb_feat": views.features}
    errors = {name: [(value, stored[f"out.{name}"])] for name, value in pairs.items()}
    errors["angles"] = [(jnp.stack([views.cosine, views.angle], -1), stored["out.ray_diff"][..., :2])]
    return _worst(errors)


CASES: dict[str, Callable[[Any], dict[str, float]]] = {
    "rays_kernels": kernel_errors,
    "rays_scene": scene_errors,
    "rays_net": net_errors,
    "rays_ibrnet_head": head_errors,
}


def compare_rays(root: Path, case: str) -> dict[str, float]:
    """Errors of one case by stage.

    Args:
        root: The folder of the references.
        case: Of `CASES`.
    """
    with np.load(root / "rays" / f"{case}.npz") as stored, jax.enable_x64(True):
        return CASES[case](stored)


def _worst(pairs: dict[str, list[tuple[Any, Any]]]) -> dict[str, float]:
    return {name: max(relative_error(np.asarray(a), np.asarray(b)) for a, b in values) for name, values in pairs.items()}
