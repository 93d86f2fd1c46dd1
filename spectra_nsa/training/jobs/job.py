"""What one kind of run does its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from spectra_nsa.config.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.loop.plan import RunSetup
    from spectra_nsa.training.loop.trainer import RunTrainer


class Job(ABC):
    """One run of one kind. `training.run` calls the methods once each, in the order in which they stand here.

    Args:
        recipe: the run's recipe, which `check_recipe` has accepted.
        data: rows already loaded, for jobs on rows of texts; ``None`` loads the recipe's.

    Attributes:
        command: the command that starts and resumes such runs.
        shards: whether processes can shard the model.
        has_pairs: whether its rows are pairs, so that `pairs_per_second` says something.
        model: what is trained, after `open_model`.
        quarantined: the number of quarantined rows, after `load_rows`.
    """

    command: ClassVar[str]
    shards: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = False
    model: nn.Module
    quarantined: int = 0

    def __init__(self, recipe: Recipe, data: TrainingData | None = None) -> None:
        self.recipe, self.preloaded = recipe, data

    @staticmethod
    @abstractmethod
    def applies_to(recipe: Recipe) -> bool:
        """Returns whether a recipe describes a run of this kind."""

    @staticmethod
    @abstractmethod
    def check_recipe(recipe: Recipe) -> None:
        """Checks the recipe before anything loads.

        Raises:
            UsageError: it contradicts itself, or asks for something that this kind of run does not do.
            SpectraError: something that it names is not installed.
        """

    @abstractmethod
    def load_rows(self, quarantine: Path | None) -> None:
        """Loads what the run learns from.

        Args:
            quarantine: the folder for quarantined rows; ``None`` only counts them.
        """

    @property
    @abstractmethod
    def rows(self) -> int:
        """The number of training rows, which must be the same in every process."""

    @abstractmethod
    def check_rows(self) -> None:
        """Checks that the recipe can be carried out on the loaded rows.

        Raises:
            UsageError: it asks for something that they do not allow.
            SpectraError: they hold unusable values.
        """

    @abstractmethod
    def open_model(self) -> None:
        """Opens the model that the recipe starts from."""

    @abstractmethod
    def check_checkpoint(self, checkpoint: Path) -> None:
        """Checks that a checkpoint is of the same model and data.

        Raises:
            UsageError: the message names what differs.
        """

    @abstractmethod
    def prepare(self, *, resumed: bool) -> None:
        """Initializes what depends on both rows and model, before the first step.

        Args:
            resumed: whether a checkpoint's weights are loaded afterwards.
        """

    @abstractmethod
    def start_line(self, folder: Path, first_step: int) -> str:
        """Returns the line that a run prints as it starts (see `runs.start_line`)."""

    @abstractmethod
    def build_trainer(self, setup: RunSetup) -> RunTrainer:
        """Builds the trainer; nothing has run yet, and every process holds the same weights."""

    @abstractmethod
    def finish(self, trainer: RunTrainer, *, interrupted: bool, steps: int) -> None:
        """Completes the trained model in memory; every process calls it.

        Args:
            trainer: after its last step.
            interrupted: whether Ctrl-C ended the run.
            steps: the steps trained by this call; 0 if a finished run was resumed.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Saves the trained model; the first process calls it."""
