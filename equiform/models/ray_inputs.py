"""What models of scenes are given: rays of calibrated images, query points, and what each view shows at each point."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from equiform.graph import AnyArray


class SceneInputs(NamedTuple):
    """One scene, or several along a first axis of every array; all geometry in the coordinates of the world.

    Attributes:
        direction: Unit direction of each ray token.
        centre: Its centre of projection.
        patch: Colours about its pixel.
        pixel: Number of its pixel, counted through all images.
        points: Query points.
        view_direction: Unit directions from each camera to each point.
        view_depth: Distances from the cameras.
        view_place: Where the point appears, as (x / z, y / z) in the camera's frame. Invariant.
        view_pixel: Where the point appears in the image, (x, y), 0 at the centre of the first pixel, 1 at that of the last.
        view_centre: Centre of each camera.
        view_patch: Colours about the pixel that the point projects to.
        view_mask: Whether it is in the image.
        images: Colours − 1.
    """

    direction: Float[AnyArray, "*scenes rays 3"]
    centre: Float[AnyArray, "*scenes rays 3"]
    patch: Float[AnyArray, "*scenes rays _"]
    pixel: Int[AnyArray, "*scenes rays"]
    points: Float[AnyArray, "*scenes points 3"]
    view_direction: Float[AnyArray, "*scenes points views 3"]
    view_depth: Float[AnyArray, "*scenes points views"]
    view_place: Float[AnyArray, "*scenes points views 2"]
    view_pixel: Float[AnyArray, "*scenes points views 2"]
    view_centre: Float[AnyArray, "*scenes views 3"]
    view_patch: Float[AnyArray, "*scenes points views _"]
    view_mask: Bool[AnyArray, "*scenes points views"]
    images: Float[AnyArray, "*scenes views height width 3"]
