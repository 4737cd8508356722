"""The rendering head: the published forward pass, and invariance where the published code loses it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.cameras import Cameras, moved
from equiform.models.ray_rendering import RayRendering, RayRenderingConfig, bilinear, sampled_views, sinusoids

LIMIT = 1e-12


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_ibrnet_head.npz")


def cameras_of(rows):
    """From IBRNet's 34 numbers: height, width, K and camera-to-world as 4 × 4."""
    pose = rows[:, 18:].reshape(-1, 4, 4)
    parts = pose[:, :3, :3], pose[:, :3, 3], rows[:, 2:18].reshape(-1, 4, 4)[:, :3, :3]
    return Cameras(*(jnp.asarray(part) for part in parts), int(rows[0, 0]), int(rows[0, 1]))


def stored_model(stored, softening):
    model = RayRendering(RayRenderingConfig(features=8, num_samples=8, softening=softening), key=jax.random.key(0))

    def get(name):
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


def stored_inputs(stored, views=4):
    target, sources = cameras_of(stored["query_camera"][None]), cameras_of(stored["src_cameras"][:views])
    depths = jnp.broadcast_to(jnp.asarray(stored["z_vals"]), stored["xyz"].shape[:2])
    maps = jnp.moveaxis(jnp.asarray(stored["featmaps"]), 1, -1)[:views]
    images = jnp.asarray(stored["imgs"])[0, :views]
    return jnp.asarray(stored["xyz"]), depths, target, sources, images, maps


@eqx.filter_jit
def rendered(model, samples, depths, target, sources, images, maps):
    return model(samples, depths, target.centre[0], target.rotation[0, :, 0], sources, images, maps)


def test_every_output_equals_the_published_one(stored):
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    out = rendered(stored_model(stored, 1e-6), samples, depths, target, sources, images, maps)
    raw = jnp.concatenate([out.colors, out.density[..., None]], axis=-1)
    for value, name in ((out.rgb, "rgb"), (out.depth, "depth"), (out.weights, "weights"), (raw, "raw")):
        np.testing.assert_allclose(value, stored[f"out.{name}"], atol=LIMIT)
    views = eqx.filter_jit(sampled_views)(samples, target.centre[0], target.rotation[0, :, 0], sources, images, maps, 1e-6)
    np.testing.assert_allclose(views.features, stored["out.rgb_feat"], atol=LIMIT)
    np.testing.assert_array_equal(views.mask, stored["out.mask"][..., 0] > 0)
    np.testing.assert_allclose(views.cosine, stored["out.ray_diff"][..., 0], atol=LIMIT)
    np.testing.assert_allclose(views.angle, stored["out.ray_diff"][..., 1], atol=LIMIT)
    # The third column is the sample's coordinate along the target ray from the foot of the origin. The head does not use it.
    between = np.asarray(target.centre)[0] - stored["xyz"]
    along = (between / (np.linalg.norm(between, axis=-1, keepdims=True) + 1e-6) * stored["xyz"]).sum(-1)
    np.testing.assert_allclose(np.broadcast_to(along[..., None], (3, 8, 4)), stored["out.ray_diff"][..., 2], atol=LIMIT)
    np.testing.assert_allclose(sinusoids(8, 16), stored["pos_encoding"][0], atol=LIMIT)


@pytest.mark.parametrize("views", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_motions_and_the_zero_of_the_angle_change_nothing(stored, views):
    """Three views are where the published code takes cross products along the wrong axis."""
    model = stored_model(stored, 0.0)
    samples, depths, target, sources, images, maps = stored_inputs(stored, views)
    out = rendered(model, samples, depths, target, sources, images, maps)
    for seed in range(3):
        rotation = jnp.asarray(Rotation.random(random_state=seed).as_matrix())
        shift = jnp.asarray(np.random.default_rng(seed).normal(size=3) * 3)
        turned = moved(target, rotation, shift), moved(sources, rotation, shift)
        after = rendered(model, samples @ rotation.T + shift[None, None], depths, *turned, images, maps)
        for value, expected in zip(jax.tree.leaves(after), jax.tree.leaves(out)):
            np.testing.assert_allclose(value, expected, atol=1e-10)
    roll = jnp.asarray(Rotation.from_rotvec([0, 0, 0.9]).as_matrix())
    rolled = Cameras(target.rotation @ roll, target.centre, target.intrinsics, 16, 16)
    after = rendered(model, samples, depths, rolled, sources, images, maps)
    assert np.abs(after.rgb - out.rgb).max() < 1e-10


def test_the_published_norms_depend_on_the_zero_of_the_angle(stored):
    """The first mended defect: small, and far above rounding."""
    roll = jnp.asarray(Rotation.from_rotvec([0.4, 0.2, 0.9]).as_matrix())
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    rolled = Cameras(target.rotation @ roll, target.centre, target.intrinsics, 16, 16)
    change = {}
    for softening in (0.0, 1e-6):
        model = stored_model(stored, softening)
        out, after = (rendered(model, samples, depths, camera, sources, images, maps) for camera in (target, rolled))
        change[softening] = np.abs(after.density - out.density).max()
    assert change[0.0] < 1e-12 < 1e-9 < change[1e-6] < 1e-5


def test_order_of_the_views_changes_nothing(stored):
    model = stored_model(stored, 0.0)
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    order = jnp.asarray([2, 0, 3, 1])
    mixed = Cameras(sources.rotation[order], sources.centre[order], sources.intrinsics[order], 16, 16)
    out = rendered(model, samples, depths, target, sources, images, maps)
    after = rendered(model, samples, depths, target, mixed, images[order], maps[order])
    np.testing.assert_allclose(after.rgb, out.rgb, atol=LIMIT)


def test_published_size_has_the_published_number_of_parameters():
    model = RayRendering(RayRenderingConfig(), key=jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))) == 25_408


def test_images_are_interpolated_between_pixel_centres_and_zero_outside():
    image = jnp.asarray(np.arange(6.0).reshape(1, 2, 3, 1))
    place = jnp.asarray([[0.0, 0], [1, 1], [0.25, 0], [0.5, 0.5], [1.5, 0], [1e9, -1e9]])[None, :, None]
    np.testing.assert_allclose(bilinear(image, place)[0, :, 0, 0], [0, 5, 0.5, 2.5, 0, 0], atol=1e-12)
