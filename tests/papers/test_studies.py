"""Studies as recipes: settings, growth, resuming, reports; and the study of spins itself, tiny."""

import json

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from equiform.cli.app import Application
from equiform.cli.table import run_recipe
from equiform.errors import UserError
from equiform.papers import studies
from equiform.papers.double_exchange import StudyConfig
from equiform.papers.studies import StudyRecipe, describe, plan, resume, run

NAME = "slmc-double-exchange"


class Sizes(BaseModel):
    """Settings of a study that counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: int = Field(3, ge=1)
    start: int = 0

    def scaled(self):
        return self.model_copy(update={"parts": 1})


def counting(folder, settings, progress):
    """Parts 1, 2, …; those of the folder are not repeated."""
    for part in range(settings.start + 1, settings.start + settings.parts + 1):
        if not (folder / str(part)).exists():
            (folder / str(part)).touch()
            progress(part, settings.parts, "counting")
        yield f"up to {part}"


@pytest.fixture
def counted(monkeypatch):
    """`NAME` stands for the study that counts."""
    recipe = StudyRecipe(Sizes, ("parts",), counting, "a paper", ("an hour", "a minute"))
    monkeypatch.setattr(studies, "find_study", lambda name: recipe)


def test_finished_parts_are_reported_and_not_repeated(counted, tmp_path):
    done: list[int] = []
    assert run(plan(NAME, [], tmp_path, scaled=True), lambda part, total, note: done.append(part)) == "up to 1"
    assert (tmp_path / "report.md").read_text() == "up to 1" and done == [1]
    more = resume(tmp_path, ["parts=2"])
    assert run(more, lambda part, total, note: done.append(part)) == "up to 2" and done == [1, 2]
    assert json.loads((tmp_path / "study.json").read_text()) == {"study": NAME, "settings": {"parts": 2, "start": 0}}
    with pytest.raises(UserError, match="holds this study with start=0; give the same, or choose another folder"):
        plan(NAME, ["start=5"], tmp_path, scaled=False)


def test_what_differs_from_the_full_form_is_said(counted, tmp_path):
    assert describe(plan(NAME, [], tmp_path, scaled=False))[-1].startswith("the full form; expected cost: an hour")
    assert describe(plan(NAME, [], tmp_path, scaled=True))[-1] == "  parts=1"
    assert studies.defaults(NAME).splitlines()[1:] == ["parts: 3", "start: 0"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("seed=1", "'seed=1' is not a setting of slmc-double-exchange; did you mean 'seeds'?"),
        ("seeds", "'seeds' is not a setting"),
        ("temperature=0", "temperature: Input should be greater than 0, but 0 was given"),
        ("temperature=.nan", "temperature: Input should be a finite number"),
        ("larger=[2]", "larger lattices need at least 6 sites along an edge"),
        ("linear_shells=[10]", "linear models have 1 to 9 shells"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, change, line):
    with pytest.raises(UserError) as found:
        plan(NAME, [change], tmp_path, scaled=False)
    assert line in str(found.value) and "\n" not in str(found.value)


def test_unknown_and_damaged_studies_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no study 'slmc'"):
        plan("slmc", [], tmp_path, scaled=False)
    with pytest.raises(UserError, match=r"holds no study: it has no study\.json"):
        resume(tmp_path, [])
    (tmp_path / "study.json").write_text('{"study": "slmc-double-exchange"}')
    with pytest.raises(UserError, match="is damaged"):
        resume(tmp_path, [])


@pytest.mark.parametrize("interrupted", [False, True])
def test_command_runs_a_study_and_says_how_to_resume_it(counted, monkeypatch, tmp_path, interrupted):
    if interrupted:

        def stopped(folder, settings, progress):
            raise KeyboardInterrupt
            yield

        recipe = StudyRecipe(Sizes, (), stopped, "a paper", ("an hour", "a minute"))
        monkeypatch.setattr(studies, "find_study", lambda name: recipe)
    alone = typer.Typer(cls=Application)
    alone.callback()(lambda debug=False: None)
    alone.command("run")(run_recipe)
    done = CliRunner().invoke(alone, ["run", NAME, "parts=2", "-o", str(tmp_path / "study")])
    if interrupted:
        assert done.exit_code != 0 and f"resume with: equiform recipe run --resume {tmp_path / 'study'}" in done.stderr
    else:
        assert done.exit_code == 0 and "up to 2" in done.stdout and "  parts=2" in done.stdout


def test_scaled_form_is_smaller_and_valid():
    full, scaled = StudyConfig(), StudyConfig().scaled()
    assert scaled != full and StudyConfig.model_validate(scaled.model_dump()) == scaled
    assert scaled.exact_sweeps < full.exact_sweeps and len(scaled.larger) < len(full.larger)


@pytest.mark.slow
def test_study_of_spins_reports_every_claim_and_grows(tmp_path):
    tiny = ["train_chains=2", "test_chains=2", "exact_sweeps=24", "keep=1", "linear_shells=[1,9]", "num_layers=1", "seeds=1"]
    tiny += ["fit_steps=2", "rounds=1", "round_steps=1", "round_proposals=5", "effective_sweeps=1", "chains=2", "proposals=10"]
    tiny += ["larger=[8]", "larger_chains=2", "larger_burn_in=2", "larger_proposals=2", "larger_sweeps=1"]
    text = run(plan(NAME, tiny, tmp_path, scaled=False), lambda done, total, note: None)
    for part in ("acceptance ± binomial", "MSE ∝ parameters^", "diagonalisations per independent F", "| local |", "8 × 8"):
        assert part in text
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert [row["model"] for row in numbers["models"]][-1] == "transformer, L = 1" and len(numbers["larger"]) == 4
    assert {row["proposals"] for row in numbers["models"]} == {18}  # of two chains, a tenth left out
    assert (tmp_path / "study.png").exists() and (tmp_path / "larger.png").exists()
    run(resume(tmp_path, ["proposals=20", "larger=[]"]), lambda done, total, note: None)
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert {row["proposals"] for row in numbers["models"]} == {36}
