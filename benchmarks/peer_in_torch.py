"""The two programs of a PyTorch peer, with the same loss and optimiser for all, and a model with given parameters."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from peer_protocol import CLIP_NORM, FORCE_WEIGHT, LEARNING_RATE

Outputs = tuple[torch.Tensor, torch.Tensor | None]
"""Energies of the molecules, and the forces on all atoms if there are any."""


def torch_programs(
    evaluate: Callable[[], Outputs], train: Callable[[], Outputs], parameters: Iterable[Any], forces: bool
) -> dict[str, Callable[[], torch.Tensor]]:
    """Inference and training step.

    Args:
        evaluate: The model for inference, its parameters frozen.
        train: The model for training.
        parameters: Parameters of the latter.
        forces: Whether there are forces.
    """
    weights = list(parameters)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)

    def inference() -> torch.Tensor:
        with torch.set_grad_enabled(forces):
            energy, force = evaluate()
        return (energy.mean() if force is None else energy.mean() + force.abs().mean()).detach()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        energy, force = train()
        loss = energy.abs().mean()
        if force is not None:
            loss = loss + FORCE_WEIGHT * force.norm(dim=1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        optimizer.step()
        return loss.detach()

    return {"inference": inference, "step": step}


def size(model: torch.nn.Module) -> int:
    """Number of trainable parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def load(model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Give a model all of its parameters, by their names.

    Raises:
        ValueError: A name or a shape does not match.
    """
    ours = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    given = {name: tuple(array.shape) for name, array in state.items()}
    if ours != given:
        odd = sorted(name for name in ours.keys() | given.keys() if ours.get(name) != given.get(name))
        raise ValueError(f"{len(odd)} parameters do not match: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(state[name]))
