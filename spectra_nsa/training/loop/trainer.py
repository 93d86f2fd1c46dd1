"""sentence-transformers' trainer with whole-or-absent checkpoints under the names of this house."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from spectra_nsa.core import processes
from spectra_nsa.core.checksums import damage, write_manifest
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.losses.stack import LossStack, NotFiniteError
from spectra_nsa.training.data.batch_groups import GroupedBatchSampler
from spectra_nsa.training.loop.callbacks import Patience
from spectra_nsa.training.loop.schedules import budgeted_schedule
from spectra_nsa.training.loop.sharding import ShardingTrainer
from spectra_nsa.training.monitor.progress import Progress
from spectra_nsa.training.monitor.watch import Watch
from spectra_nsa.training.runs.checkpoints import publish, rotate
from spectra_nsa.training.runs.resume import load_running, refit_schedule, save_running

_SCRATCH = ".writing"
PATIENCE = 10  # skipped steps in a row


class RunTrainer(Trainer):
    """Goes on exactly where a checkpoint was written, skips steps that are no numbers, and shares gradients.

    Writes each checkpoint into a scratch folder and renames it to `step-N` when it is complete. What is trained, and
    on what, is for its subclasses to say.
    """

    _writing = False
    gate_lr = 50.0
    skipped = 0
    skipped_in_a_row = 0
    evaluator: Any = None  # what gives the dev metric; ``None`` for none
    watch: Watch  # what looks on
    progress: Progress  # what is shown
    patience: Patience | None = None  # what may stop the run early
    deadline: float | None = None  # a `time.monotonic()`: the learning rate has fallen to 0 by then
    facts: dict[str, Any] = {}  # what decides which rows a step sees; kept in each manifest
    held: Callable[[], Collection[Path]] = staticmethod(tuple)  # checkpoints that somebody reads: not to be deleted
    _running: dict[str, Any] | None = None  # of the checkpoint that this run goes on from
    _epoch, _batches = 0, 1  # the epoch at hand, and the batches in one

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if processes.count() > 1:
            # No DistributedDataParallel around the model: one step runs it many times, and terms use weights beside
            # it, which its reducer cannot follow. `training_step` averages the gradients instead.
            self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        spectra = getattr(self.model, "spectra", None)
        gates = {id(weight) for weight in spectra.gates()} if spectra is not None else set()
        if gates and not any(group.get("gates") for group in optimizer.param_groups):
            held = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) in gates]
            for group in optimizer.param_groups:
                group["params"] = [weight for weight in group["params"] if id(weight) not in gates]
            first = optimizer.param_groups[0]
            group = {key: value for key, value in first.items() if key not in ("params", "initial_lr")}
            group |= {"params": held, "lr": self.args.learning_rate * self.gate_lr, "weight_decay": 0.0, "gates": True}
            optimizer.add_param_group(group)
        return optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """One batch; where the loss is not a number the step is skipped, counted and, after many, refused.

        Every process sees the same loss, so that all of them skip, and then have no gradient to average.
        """
        try:
            loss = self.batch_step(model, inputs, num_items_in_batch)
        except NotFiniteError as error:
            self.skip(str(error))
            model.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=self.args.device)
        if self.accelerator.sync_gradients:
            processes.mean_gradients(model.parameters())
        return loss

    def batch_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        """The loss of a batch, whose gradient is in the weights then.

        Raises:
            NotFiniteError: something is not a number.
        """
        return super().training_step(model, inputs, num_items_in_batch)

    def step_passed(self) -> None:
        """Ends a row of skipped steps."""
        self.skipped_in_a_row = 0

    def skip(self, reason: str) -> None:
        """Counts a step that changes nothing.

        Raises:
            SpectraError: too many in a row.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        if processes.is_first():
            print(f"spectra: step {self.state.global_step + 1} skipped: {reason}", file=sys.stderr, flush=True)
        if self.skipped_in_a_row >= PATIENCE:
            raise SpectraError(
                f"{PATIENCE} steps in a row were skipped: {reason}. Start again from an earlier checkpoint with a "
                "lower train.lr, or train.precision=fp32; a checkpoint that gives this at once is damaged."
            )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.deadline is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = budgeted_schedule(
            optimizer, num_training_steps, self.args.get_warmup_steps(num_training_steps), self.deadline
        )
        return self.lr_scheduler

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        """Where in the data to go on: as the checkpoint counted it, since an epoch may be short of batches."""
        epoch, batches = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # transformers keeps the checkpoint's, and ignores a new recipe
        if self._running is not None:
            epoch, batches = self._running["epoch"], self._running["batches"]
            if batches >= self._running["batches_in_epoch"]:
                epoch, batches = epoch + 1, 0
            self._find_best()
        return epoch, batches

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._epoch, self._batches = kwargs["epoch"], kwargs["steps_in_epoch"]
        if self.state.global_step >= self.state.max_steps:  # a run that had ended: transformers would add a step
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        assert self.optimizer is not None
        fresh = [dict(group) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.deadline is None:
            refit_schedule(self.optimizer, self.lr_scheduler, fresh)

    def go_on(self, checkpoint: Path | None) -> None:
        """Trains from a checkpoint, or from the beginning."""
        self._running = load_running(checkpoint) if checkpoint is not None else None
        self.args.eval_on_start = checkpoint is None and self.evaluator is not None  # what training has to beat
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)

    def restore(self) -> None:
        """Takes up the sums of the unfinished line of the log; to be called where training begins."""
        if self._running is None:
            return
        self.skipped, self.skipped_in_a_row = self._running["skipped"], self._running["skipped_in_a_row"]
        self._tr_loss = self._running["loss"].to(self.args.device)
        self._globalstep_last_logged = self._running["logged"]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # A step without a checkpoint cannot become the model; that of Ctrl-C is none that the recipe asks for.
        step, state = self.state.global_step, self.state
        asked = step % state.save_steps == 0 or step >= state.max_steps or self.deadline is not None
        return asked and self.control.should_save and super()._determine_best_metric(metrics, trial)

    def _find_best(self) -> None:
        """The best checkpoint under this folder's name: the run may have been moved, or that checkpoint be gone."""
        step = self.state.best_global_step
        if not step:
            return
        best = Path(self._get_output_dir(None)) / f"step-{step}"
        if (problem := damage(best)) is None:
            self.state.best_model_checkpoint = str(best)
            return
        print(f"spectra: the best checkpoint so far, {best}, cannot be used: {problem}", file=sys.stderr, flush=True)
        self.state.best_model_checkpoint = self.state.best_metric = self.state.best_global_step = None

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and (problem := damage(Path(best))):
            print(f"spectra: {best} is damaged: {problem}; model/ is the last step's", file=sys.stderr, flush=True)
            self.state.best_metric = None
            return
        super()._load_best_model()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / _SCRATCH) if self._writing else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        root = Path(super()._get_output_dir(trial))
        scratch = root / _SCRATCH
        step = self.state.global_step
        best_before = self.state.best_model_checkpoint
        if self.args.should_save:
            shutil.rmtree(scratch, ignore_errors=True)
        processes.barrier()  # each process writes its random state into the scratch folder
        self._writing = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing = False
        final = root / f"step-{step}"
        self.state.best_model_checkpoint = str(final) if self.state.best_global_step == step else best_before
        processes.barrier()
        if self.args.should_save:
            self._finish_checkpoint(scratch, final)
        processes.barrier()

    def _finish_checkpoint(self, scratch: Path, final: Path) -> None:
        step = self.state.global_step
        written = scratch / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        (written / "training_args.bin").unlink(missing_ok=True)  # a pickle, and nothing reads it
        self.state.save_to_json(str(written / "trainer_state.json"))
        save_running(written, self._sums())
        write_manifest(written, step=step, best=self.state.best_global_step, run=self.facts)
        publish(written, final)
        shutil.rmtree(scratch, ignore_errors=True)
        best = self.state.best_model_checkpoint
        protected = [*self.held(), *([Path(best)] if best else [])]
        rotate(final.parent.parent, keep=self.args.save_total_limit or 1, protected=protected)

    def _sums(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "batches": round((self.state.epoch - self._epoch) * self._batches),
            "batches_in_epoch": self._batches,
            "loss": self._tr_loss.cpu(),
            "logged": self._globalstep_last_logged,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }


class SpectraTrainer(RunTrainer, ShardingTrainer):
    """The trainer of a loss stack on rows of texts."""

    groups: Sequence[str] | None = None  # of the training rows; batches are filled from one group each
    texts: Any = None  # the training rows as texts, where `train_dataset` holds their token ids

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No callback: it would encode examples for a web page before the first step."""

    def take_tokens(self, found: tuple[Any, Any] | None) -> None:
        """Trains on token ids that are there already; ``None`` leaves the texts."""
        if found is not None:
            self.texts = self.train_dataset
            self.train_dataset, self.data_collator = found

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if self.texts is not None and dataset is self.train_dataset:
            dataset = self.texts  # texts that are cut to the same ids are still two
        if self.groups is None or len(dataset) != len(self.groups):
            return super().get_batch_sampler(dataset, *args, **kwargs)
        return GroupedBatchSampler(dataset, *args, **kwargs, groups=self.groups)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        return self.split_groups(super().create_optimizer(*args, **kwargs))

    def batch_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        try:
            loss = super().batch_step(model, inputs, num_items_in_batch)
            if isinstance(self.loss, LossStack):
                self.loss.finish()
        except NotFiniteError:
            if self.shards is not None:
                self.shards.forget()
            raise
        return loss

    def restore(self) -> None:
        super().restore()
        if self._running is not None:
            self.accum_loss_components["train"] = {
                name: value.to(self.args.device) for name, value in self._running["terms"].items()
            }

    def _sums(self) -> dict[str, Any]:
        terms = {name: value.cpu() for name, value in self.accum_loss_components["train"].items()}
        return super()._sums() | {"terms": terms}
