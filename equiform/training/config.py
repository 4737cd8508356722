"""The training configuration: small frozen types, validated before anything is computed."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LossKind = Literal["l1", "l2norm", "huber", "mse"]


def _listed(value: object) -> object:
    """`a,b` as a list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class LossConfig(BaseModel):
    """How the error of one target enters the loss.

    Attributes:
        weight: Factor of this term; the units of the target cancel here (1 per eV, 1 per eV/Å, ...).
        kind: "l1" mean |error|, "l2norm" mean Euclidean norm of the error of a row (an atom's force),
            "huber" quadratic below `delta` and linear above, "mse" mean squared error.
        delta: Where "huber" switches from quadratic to linear, in the unit of the target.
        final_weight: Weight at the end of the run, reached linearly over its steps; None keeps `weight`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float = Field(default=1.0, ge=0)
    kind: LossKind = "l1"
    delta: float = Field(default=0.01, gt=0)
    final_weight: float | None = Field(default=None, ge=0)


class EnergyLoss(LossConfig):
    """The energy term; per atom, structures of different sizes have equal weight.

    Attributes:
        per_atom: Divide the error of a structure by its number of atoms.
    """

    per_atom: bool = True


class ForcesLoss(LossConfig):
    """The force term."""

    weight: float = Field(default=10.0, ge=0)
    kind: LossKind = "l2norm"


class Losses(BaseModel):
    """The terms of the loss. A term without any label in the training data is dropped, with a message.

    Attributes:
        energy: Energy of a structure.
        forces: Forces on atoms.
        stress: Stress of a periodic structure; off unless given.
        other: Further readouts of the model by name (null switches one off), each with a label field of that name (per atom or
            per graph; a readout per atom with a label per graph is summed over atoms first).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    energy: EnergyLoss | None = EnergyLoss()
    forces: ForcesLoss | None = ForcesLoss()
    stress: LossConfig | None = None
    other: dict[str, LossConfig | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> "Losses":
        double = {"energy", "forces", "stress"} & set(self.other)
        if double:
            raise ValueError(f"{', '.join(sorted(double))} is a key of the losses themselves, not of 'other'")
        return self

    def terms(self) -> dict[str, LossConfig]:
        """The terms that are switched on, by target."""
        named = {"energy": self.energy, "forces": self.forces, "stress": self.stress, **self.other}
        return {name: term for name, term in named.items() if term is not None}


class Normalization(BaseModel):
    """How a model's output becomes the quantity: quantity = std · output + mean.

    Attributes:
        mean: In the unit of the quantity.
        std: In the unit of the quantity.
        readouts: Scale of each further readout, by name (OC20: `{displacement: 0.877}`, Å).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    readouts: dict[str, float] = Field(default_factory=dict)


class TrainingConfig(BaseModel):
    """The `training:` section of a recipe.

    The tightest of `epochs`, `max_steps`, `max_minutes` and `max_minutes_in_all` sets the length of the run; without any of
    them it is 300 epochs.

    Attributes:
        batch_size: Average number of structures per batch; batches are packed by atoms and edges.
        evaluation_batch_size: The same for validation; None means `batch_size`.
        epochs: Passes over the training set.
        max_steps: Number of optimizer steps.
        max_minutes: Time for training and validation, without compilation. The speed is measured after compilation, then the
            number of steps is fixed and stored; five times on the way it is corrected if the machine has become faster or
            slower.
        max_minutes_in_all: Wall time from the start, compilation included; at least a tenth of it is spent training.
        optimizer: "adam" (AdamW), or "muon": AdamW with orthogonalised directions for linear maps, which needs fewer steps.
        learning_rate: Peak of the schedule.
        learning_rate_steps: Longest run, in steps, that has this peak; one of n steps has √(learning_rate_steps / n) of it.
            None: runs of any length have it.
        schedule: Whether the learning rate changes every "step" or every "epoch" (as in the published
            recipes).
        warmup_fraction: Fraction of the run over which the learning rate rises linearly.
        warmup_epochs: The same in epochs; takes precedence if given.
        initial_learning_rate: Learning rate at the start of the warm-up.
        final_learning_rate: Learning rate at the end of the cosine.
        weight_decay: Decoupled decay (AdamW) of the leaves in the model's decay mask.
        beta1: Decay rate of Adam's first moment.
        beta2: Decay rate of Adam's second moment.
        epsilon: Added to Adam's denominator.
        clip: Maximum global norm of the gradient; None switches clipping off.
        ema: Decay of the EMA of the weights, which is validated and saved; None switches it off.
        freeze: Parts of the model that are not trained, such as `embedding`, `blocks[:4]`, `readout`, or the beginning of a
            parameter's name.
        adapters: Rank of low-rank adapters, with which fine-tuning trains few numbers instead of all parameters; None: all.
        members: Number of models that are trained side by side and become one committee, with the initial weights of the seeds
            `seed`, `seed` + 1, ….
        losses: The terms of the loss.
        normalization: How the model's output becomes the quantity: "anchored" (isolated atoms at their reference energy,
            scaled by the forces), "mean-std" (of the training structures, as most papers standardise), "none", or numbers.
        standardized_losses: Compute the loss on errors divided by the normalisation's std, as published.
        early_stopping: Patience: stop after this many validations without a better loss; None never stops.
        random_rotations: Apply a random rotation to every structure each time it is used; for models that are not equivariant.
        seed: Seed of the data order, of dropout and of random rotations.
        dtype: Precision of weights and arithmetic.
        devices: Number of local devices over which each batch is sharded; None: all, but at most one per structure of a batch.
        validate_every: Steps between validations; None means every epoch, but at most 100 times in a run.
        log_every: Steps between entries of the metrics log.
        checkpoint_minutes: Wall time between checkpoints.
        checkpoint_every: Steps between checkpoints, in addition.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch_size: int = Field(default=16, ge=1)
    evaluation_batch_size: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)
    max_minutes_in_all: float | None = Field(default=None, gt=0)
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = Field(default=5e-4, gt=0)
    learning_rate_steps: int | None = Field(default=None, ge=1)
    schedule: Literal["step", "epoch"] = "step"
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    warmup_epochs: float | None = Field(default=None, ge=0)
    initial_learning_rate: float = Field(default=1e-6, ge=0)
    final_learning_rate: float = Field(default=1e-6, ge=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    clip: float | None = Field(default=10.0, gt=0)
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    freeze: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    adapters: int | None = Field(default=None, ge=1)
    members: int = Field(default=1, ge=1, le=64)
    losses: Losses = Field(default_factory=Losses)
    normalization: Literal["anchored", "mean-std", "none"] | Normalization = "anchored"
    standardized_losses: bool = False
    early_stopping: int | None = Field(default=None, ge=1)
    random_rotations: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)
    dtype: Literal["float32", "float64"] = "float32"
    devices: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=50, ge=1)
    checkpoint_minutes: float = Field(default=2.0, gt=0)
    checkpoint_every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_optimizer(self) -> "TrainingConfig":
        if self.optimizer == "muon" and self.adapters is not None:
            raise ValueError("optimizer=muon is for whole linear maps, not for adapters; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _check_losses(self) -> "TrainingConfig":
        terms = self.losses.terms().values()
        if not any(term.weight > 0 or (term.final_weight or 0) > 0 for term in terms):
            raise ValueError("every term of the loss is off or has weight 0; set losses.energy.weight=1, for example")
        return self
