"""The scaling study: symmetry of its models, its fits on planted laws, its verdicts, and that it resumes."""

import jax
import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotations
from equiform.data.sets.thrown_bodies import BodyTokens
from equiform.errors import UserError
from equiform.papers import studies
from equiform.papers.scaling import Run, ScalingStudy, batches, milestones, runs
from equiform.papers.scaling_fit import (
    Curve,
    ScalingPoint,
    common_costs,
    frontier,
    interval,
    loss_of_size_and_frames,
    power_law,
    size_exponent,
)
from equiform.papers.scaling_models import body_model
from equiform.papers.scaling_plot import draw_scaling
from equiform.papers.scaling_report import analyse, as_dict, as_markdown, gathered
from equiform.runtime.files import to_json

TINY = [
    "seeds=[0]",
    "steps=40",
    "trajectories=6",
    "fewer=[3]",
    "tests=2",
    "batch=2",
    "gatr_sizes=[[4,1]]",
    "transformer_sizes=[[16,1]]",
]


@pytest.mark.parametrize("kind", ["gatr", "transformer"])
def test_gatr_turns_and_moves_with_the_scene_and_the_transformer_does_not(kind):
    rng = np.random.default_rng(0)
    model = body_model(kind, (8, 1), 0)
    vectors, given = rng.normal(size=(2, 5, 5, 3)), jax.numpy.asarray(rng.normal(size=(2, 5, 6)))
    vectors[:, :, 1] /= np.linalg.norm(vectors[:, :, 1], axis=-1, keepdims=True)
    turn, shift = random_rotations(1, rng)[0], rng.normal(size=3)
    moved = vectors @ turn.T
    moved[:, :, [0, 2]] += shift
    out, turned = model(jax.numpy.asarray(vectors), given), model(jax.numpy.asarray(moved), given)
    gap = np.abs(turned - out @ turn.T).max() / np.abs(out).max()
    assert gap < 1e-10 if kind == "gatr" else gap > 0.1


def test_each_frame_is_seen_once_in_an_epoch_whoever_asks():
    tokens = BodyTokens(np.arange(40.0)[:, None, None, None], np.zeros((40, 1, 4)), np.zeros((40, 1, 3)))
    run = Run("transformer", (16, 1), 40, 0)
    seen = np.concatenate([batches(tokens, run, first, 2).vectors.ravel() for first in (0, 10)])
    assert sorted(seen) == list(range(40))
    np.testing.assert_array_equal(batches(tokens, run, 10, 2).vectors, batches(tokens, run, 10, 2).vectors)
    assert (batches(tokens, run, 20, 2).vectors.ravel() != seen[:20]).any()  # another order in the next epoch


def test_augmented_frames_are_rotated_and_targets_with_them():
    rng = np.random.default_rng(0)
    tokens = BodyTokens(*(rng.normal(size=shape).astype(np.float32) for shape in ((20, 3, 4, 3), (20, 3, 4), (20, 2, 3))))
    plain = batches(tokens, Run("transformer", (16, 1), 2, 0), 0, 2)
    turned = batches(tokens, Run("transformer-augmented", (16, 1), 2, 0), 0, 2)
    assert np.abs(turned.vectors - plain.vectors).max() > 0.1
    for part in (plain, turned):
        products = np.einsum("sbtvi,sbmi->sbtvm", part.vectors, part.targets)
        np.testing.assert_allclose(products, np.einsum("sbtvi,sbmi->sbtvm", plain.vectors, plain.targets), atol=1e-5, rtol=0)


def test_tests_are_evenly_spaced_in_the_logarithm():
    assert milestones(1600) == [50, 100, 200, 400, 800, 1600]
    assert milestones(40) == [10, 20, 40]


def planted(alpha: float, beta: float, size: int, rng: np.random.Generator, noise: float = 0.0) -> Curve:
    """A run whose loss is 0.01 + (N / 1000)^−α + (D / 1000)^−β."""
    frames = np.geomspace(500, 30_000, 6)
    loss = 0.01 + (size / 1000) ** -alpha + (frames / 1000) ** -beta
    return Curve(size, frames, 6.0 * size * frames, loss * np.exp(noise * rng.normal(size=6)), 0.001 * loss)


def test_a_planted_law_of_size_and_frames_is_found_again():
    rng = np.random.default_rng(0)
    found = [planted(0.6, 0.3, size, rng) for size in (500, 2000, 8000, 32_000)]
    _, _, alpha, _, beta = loss_of_size_and_frames(found)
    np.testing.assert_allclose([alpha, beta], [0.6, 0.3], atol=0.02, rtol=0)
    np.testing.assert_allclose(size_exponent(found), 1 / 3, atol=0.02, rtol=0)


def test_the_frontier_is_the_least_loss_of_any_run_and_its_law_is_found():
    costs = np.geomspace(1, 100, 9)
    low = Curve(1, costs, costs, 2 * costs**-0.5, costs)
    high = Curve(2, costs, costs[3:], 3 * costs[3:] ** -0.5, costs)
    grid = common_costs([[low], [high]])
    np.testing.assert_allclose(grid[[0, -1]], costs[[3, -1]], rtol=1e-12)
    np.testing.assert_allclose(frontier([high, low], grid), 2 * grid**-0.5, rtol=1e-12)
    np.testing.assert_allclose(power_law(grid, 2 * grid**-0.5), [2, 0.5, 1], rtol=1e-9)
    assert np.isnan(frontier([high], costs)[:3]).all()
    short = Curve(1, costs, costs[:2], np.array([1.0, 0.1]), costs)
    np.testing.assert_allclose(frontier([short, low], costs)[1:5], 0.1, rtol=1e-12)  # what was reached once is not lost


def test_an_interval_holds_the_middle_of_the_samples():
    found = interval(0.5, np.linspace(0, 1, 1001))
    np.testing.assert_allclose(found, [0.5, 0.025, 0.975], atol=1e-9, rtol=0)


def results(factor: float, exponent: float, closes: bool) -> list[ScalingPoint]:
    """Planted results: GATr's losses are those of the transformer over a factor."""
    rng, points = np.random.default_rng(0), []
    for model in ("gatr", "transformer", "transformer-augmented"):
        by = 1.0 if model == "gatr" else factor
        slope = exponent if model == "gatr" else 0.3
        for seed in range(4):
            for step in (10, 100, 1000):
                loss = by * step**-slope * np.exp(0.001 * rng.normal())
                points.append(point(model, 1000, False, seed, step, loss))
            limited = factor if model == "transformer" or not closes else 1.0
            points.append(point(model, 10, True, seed, 1000, limited if model != "gatr" else 1.0))
    return points


def point(model: str, trajectories: int, limited: bool, seed: int, step: int, loss: float) -> ScalingPoint:
    """A result with what the fits need."""
    counts = {"parameters": 1000, "step": step, "frames": 16 * step, "flops": 1e6 * step, "seconds": step / 10}
    losses = {"loss": loss, "standard_error": 0.001 * loss, "rotated": loss, "train": loss}
    kind = {"model": model, "size": (16, 1), "trajectories": trajectories, "limited": limited, "seed": seed}
    return ScalingPoint.model_validate(kind | counts | losses)


@pytest.mark.parametrize(
    ("factor", "exponent", "closes", "verdicts"),
    [
        (2.0, 0.3, True, ["supported", "supported", "supported", "supported", "supported"]),
        (0.5, 0.3, False, ["supported", "contradicted", "supported", "contradicted", "supported"]),
        (2.0, 0.5, False, ["supported", "supported", "contradicted", "supported", "contradicted"]),
    ],
)
def test_verdicts_follow_planted_results(factor, exponent, closes, verdicts, tmp_path):
    found = analyse(results(factor, exponent, closes))
    by_claim = {finding.claim: finding.verdict for finding in found.findings}
    claims = [
        "The loss is a power law in compute.",
        "At every tested compute the equivariant model beats the transformer.",
        "It beats the transformer by a similar factor at all of them.",
        "With few data the equivariant model is better than the transformer.",
        "With data augmentation and enough epochs the transformer catches up.",
    ]
    assert [by_claim[claim] for claim in claims] == verdicts
    assert "95 % intervals" in as_markdown(found) and as_dict(found)["findings"][0]["verdict"] == "supported"
    assert draw_scaling(tmp_path / "plot.png", found).stat().st_size > 10_000


def test_a_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no results of a scaling study"):
        gathered([tmp_path])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text("[{}]")
    with pytest.raises(UserError, match="damaged"):
        gathered([tmp_path])


def test_results_are_read_as_they_were_written(tmp_path):
    points = results(2.0, 0.3, True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_bytes(to_json([point.model_dump(mode="json") for point in points]))
    assert gathered([tmp_path]) == points


def test_more_seeds_are_more_runs_and_small_models_come_first():
    study = ScalingStudy().scaled()
    assert len(runs(study)) == 2 * (3 + 4 + 4 + 3 * 2)
    assert len(set(runs(study.model_copy(update={"seeds": (0, 1, 2)})))) == 3 * 17
    assert runs(study)[0].size[0] < runs(study)[-1].size[0]


@pytest.mark.slow
def test_a_stopped_study_ends_as_one_that_was_not(tmp_path):
    pytest.importorskip("mujoco", reason="the extra 'bodies' is not installed")
    whole = studies.plan("scaling-bodies", TINY, tmp_path / "whole", scaled=True)
    text = studies.run(whole, lambda done, total, note: None)
    assert "conclusion of the paper" in text and (tmp_path / "whole" / "scaling.png").is_file()

    class Stopped(Exception):
        """What stops it."""

    def stop(done: int, total: int, note: str) -> None:
        if note == "gatr-4x1-6-0" and done % 40 == 20:
            raise Stopped

    parts = studies.plan("scaling-bodies", TINY, tmp_path / "parts", scaled=True)
    with pytest.raises(Stopped):
        studies.run(parts, stop)
    studies.run(studies.resume(tmp_path / "parts", []), lambda done, total, note: None)
    one, two = (gathered([tmp_path / name]) for name in ("whole", "parts"))
    assert [p.model_copy(update={"seconds": 0.0}) for p in one] == [p.model_copy(update={"seconds": 0.0}) for p in two]
