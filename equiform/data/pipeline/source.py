"""Lazy sources of a data set: graphs that are built on access."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Int

from equiform.graph import Graph


class GraphSource(Sequence[Graph]):
    """Host graphs whose sizes, elements and labels per structure are known without building them."""

    @overload
    def __getitem__(self, index: int) -> Graph: ...
    @overload
    def __getitem__(self, index: slice) -> "GraphSource": ...
    @abstractmethod
    def __getitem__(self, index: int | slice) -> Any: ...

    @abstractmethod
    def drawn(self, index: int, seed: int, epoch: int) -> Graph:
        """The graph to train on in an epoch: a pure function of the seed, the epoch and the structure."""

    @abstractmethod
    def gathered(self, indices: Sequence[int], draw: tuple[int, int] | None = None) -> list[Graph]:
        """The graphs of a batch in order, some or all of them put together already.

        Args:
            indices: Which.
            draw: Seed and epoch, to redraw them for training; None takes them as they are.
        """

    @property
    @abstractmethod
    def noised(self) -> bool:
        """Whether that differs from epoch to epoch."""

    @property
    @abstractmethod
    def num_atoms(self) -> Int[np.ndarray, "structures"]:
        """Nodes of each graph."""

    @property
    @abstractmethod
    def num_edges(self) -> Int[np.ndarray, "structures"]:
        """Edges of each graph."""

    @property
    @abstractmethod
    def elements(self) -> tuple[int, ...]:
        """Node types that occur, ascending."""

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, np.ndarray]:
        """Labels with one number per structure."""

    @property
    @abstractmethod
    def node_labels(self) -> tuple[str, ...]:
        """Names of the node fields."""
