"""A folder of procedural scenes: made once, resumed, read back, refused when it is of other settings."""

import numpy as np
import pytest

from equiform.data.formats.cameras import read_views
from equiform.data.sets import rays_store
from equiform.data.sets.rays_scenes import RayScene, make_sample
from equiform.data.sets.rays_store import ScenesConfig, make_scenes, read_config, read_scenes, write_pictures
from equiform.errors import UserError

TINY = ScenesConfig(views=2, pixels=6, num_points=4)


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(rays_store, "SHARD", 2)
    make_scenes(tmp_path / "s", "test", 3, TINY)
    return tmp_path / "s"


def test_scenes_are_those_of_their_numbers(made):
    found = read_scenes(made, "test")
    assert len(found) == 3 and read_config(made) == TINY
    for number, scene in enumerate(found):
        expected = make_sample("test", number, views=2, pixels=6, num_points=4)
        for name in RayScene._fields:
            np.testing.assert_array_equal(getattr(scene, name), getattr(expected, name))
    assert len(read_scenes(made, "test", 2)) == 2


def test_more_scenes_leave_complete_files_alone(made):
    first = made / "test-00000.npz"
    before, told = first.stat().st_mtime_ns, []
    make_scenes(made, "test", 5, TINY, progress=lambda done, total: told.append((done, total)))
    assert first.stat().st_mtime_ns == before and told == [(2, 5), (4, 5), (5, 5)]
    assert len(read_scenes(made, "test", 5)) == 5


def test_other_settings_missing_scenes_and_damage_are_named(made):
    with pytest.raises(UserError, match="scenes of other settings"):
        make_scenes(made, "test", 3, ScenesConfig())
    with pytest.raises(UserError, match="3 of 9 scenes"):
        read_scenes(made, "test", 9)
    with pytest.raises(UserError, match="train up to 2000"):
        make_scenes(made, "test", 201, TINY)
    (made / "test-00000.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is damaged"):
        read_scenes(made, "test", 1)
    with pytest.raises(UserError, match="holds no procedural scenes"):
        read_config(made / "nowhere")


def test_written_pictures_are_read_back_with_their_cameras(made):
    scene = read_scenes(made, "test", 1)[0]
    write_pictures(made / "scene-000", scene)
    found = read_views(made / "scene-000")
    assert len(found.images) == 3
    np.testing.assert_allclose(found.images[:2], scene.images, rtol=0, atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(found.images[2], scene.target_image, rtol=0, atol=0.5 / 255 + 1e-9)
    np.testing.assert_allclose(found.cameras.rotation[:2], scene.rotation, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.cameras.centre[:2], scene.centre, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.cameras.intrinsics[0], scene.intrinsics, rtol=0, atol=1e-12)
