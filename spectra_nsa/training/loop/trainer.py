"""transformers' trainer with atomic checkpoints, exact resuming and steps that are skipped when they are not finite."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from spectra_nsa.core import processes
from spectra_nsa.core.checksums import damage, write_manifest
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.losses.finite import NotFiniteError
from spectra_nsa.training.loop.plan import Learner, TrainerPlan
from spectra_nsa.training.loop.rates import split_group
from spectra_nsa.training.loop.schedules import budgeted_schedule
from spectra_nsa.training.loop.step_callbacks import (
    BackUpCheckpoints,
    FiniteGradients,
    RestoreSums,
    StopAtDeadline,
    TrimMemory,
)
from spectra_nsa.training.runs.checkpoints import delete_old_checkpoints, finalize_checkpoint
from spectra_nsa.training.runs.resume import load_running_sums, refit_schedule, save_running_sums, set_epoch

_SCRATCH = ".writing"
MAX_SKIPPED = 10  # skipped steps in a row


class RunTrainer(Trainer):
    """Resumes bit for bit, skips steps that are not finite, and averages gradients over the processes.

    Each checkpoint is written into a scratch folder and renamed to `step-N` once it is complete. Subclasses say what
    is trained, and on what.

    Args:
        learner: the Hugging Face model that learns, inside whatever `model` wraps around it.
        plan: the run.
        kwargs: see `Trainer`.
    """

    def __init__(self, learner: Learner, plan: TrainerPlan, **kwargs: Any) -> None:
        self.learner, self.plan = learner, plan
        self.skipped = self.skipped_in_a_row = 0
        self._writing = False
        self._resumed: dict[str, Any] | None = None  # the running sums of the checkpoint that this run resumes
        self._epoch, self._batches = 0, 1  # the current epoch, and the batches in one
        super().__init__(**kwargs)
        for callback in self._callbacks():
            self.add_callback(callback)
        for unwanted in (ProgressCallback, PrinterCallback):
            self.remove_callback(unwanted)

    def _callbacks(self) -> Iterator[TrainerCallback]:
        """Yields the run's callbacks; in its log each sees what those before it have added."""
        plan = self.plan
        yield from plan.callbacks
        if plan.backup is not None:
            yield BackUpCheckpoints(plan.backup)
        yield RestoreSums(self.restore)
        yield FiniteGradients(self.skip, self.step_passed)
        yield from plan.observers.callbacks(self.log, self.gathered)
        for kind in get_reporting_integration_callbacks(self.args.report_to):
            reporter: Any = self.pop_callback(kind)  # transformers has put it first
            if getattr(reporter, "logging_dir", "") is None:  # TensorBoard's, which would be among the checkpoints
                reporter.logging_dir = str(plan.observers.folder / "tensorboard")
            yield reporter
        if not torch.cuda.is_available():
            yield TrimMemory()
        if plan.deadline is not None:
            yield StopAtDeadline(plan.deadline)
        if plan.interrupt is not None:
            yield plan.interrupt

    def gathered(self) -> AbstractContextManager[None]:
        """Returns the context in which one process may use the model without the others; all must enter it."""
        return nullcontext()

    @property
    def best_dev(self) -> dict[str, float]:
        """The best dev metric by name; empty without a dev set."""
        name = self.args.metric_for_best_model
        if self.state.best_metric is None or name is None:
            return {}
        return {name.removeprefix("eval_"): float(self.state.best_metric)}

    @property
    def start_dev(self) -> dict[str, float]:
        """The dev metric before the first step by name; empty without a dev set and in a resumed run."""
        name = self.args.metric_for_best_model
        measured = [row[name] for row in self.state.log_history if name in row and row["step"] == 0]
        return {name.removeprefix("eval_"): float(measured[0])} if measured and name is not None else {}

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if processes.count() > 1:
            # Keeps DistributedDataParallel off the model: one step runs it many times, and loss terms read weights
            # outside its forward pass, which DDP's reducer cannot follow. `training_step` averages the gradients.
            # accelerate has no option for that: `Trainer` calls `Accelerator.prepare` with a model and an optimizer,
            # and only `prepare_model`'s own argument `evaluation_mode` leaves the wrapper out.
            self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Gives gates, routers and experts groups of their own, if their learning rates differ."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if not any(group.get(kind) for group in optimizer.param_groups for kind in self.plan.lr_factors):
            for kind, weights in self.learner.weight_groups().items():
                split_group(optimizer, kind, weights, self.plan.lr_factors[kind], decay=kind == "experts")
        return optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Runs one batch; a step whose loss is not finite is skipped and counted.

        Every process sees the same loss, so all of them skip, and then have no gradient to average.

        Raises:
            SpectraError: too many steps in a row were skipped.
        """
        try:
            loss = self.batch_step(model, inputs, num_items_in_batch)
        except NotFiniteError as error:
            self.skip(str(error))
            model.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=self.args.device)
        if self.accelerator.sync_gradients:
            processes.average_gradients(model.parameters())
        return loss

    def batch_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        """Returns the loss of a batch and leaves its gradient in the weights.

        Raises:
            NotFiniteError: a value is NaN or infinite.
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
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise SpectraError(
                f"{MAX_SKIPPED} steps in a row were skipped: {reason}. Resume from an earlier checkpoint with a lower "
                "train.lr, or with train.precision=fp32. If a checkpoint fails at once, it is damaged."
            )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.plan.deadline is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = budgeted_schedule(
            optimizer, num_training_steps, self.args.get_warmup_steps(num_training_steps), self.plan.deadline
        )
        return self.lr_scheduler

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        """Returns the epoch and batch to resume at: as the checkpoint counted, since an epoch may lack batches."""
        epoch, batches = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # transformers keeps the checkpoint's, and ignores a new recipe
        if self._resumed is not None:
            epoch, batches = self._resumed["epoch"], self._resumed["batches"]
            if batches >= self._resumed["batches_in_epoch"]:
                epoch, batches = epoch + 1, 0
            self._locate_best()
        return epoch, batches

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._epoch, self._batches = kwargs["epoch"], kwargs["steps_in_epoch"]
        if self.state.global_step >= self.state.max_steps:  # the run has ended: transformers would add a step
            self.control.should_training_stop = True
            return
        set_epoch(kwargs["train_dataloader"], self._epoch)
        super()._run_epoch(*args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        assert self.optimizer is not None
        fresh = [dict(group) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.plan.deadline is None:
            refit_schedule(self.optimizer, self.lr_scheduler, fresh)

    def train_from(self, checkpoint: Path | None) -> None:
        """Trains from a checkpoint; ``None`` trains from the start."""
        self._resumed = load_running_sums(checkpoint) if checkpoint is not None else None
        self.args.eval_on_start = checkpoint is None and self.plan.evaluator is not None  # the figure to improve on
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)

    def restore(self) -> None:
        """Restores the sums of the unfinished log line; to be called as training begins."""
        if self._resumed is None:
            return
        self.skipped, self.skipped_in_a_row = self._resumed["skipped"], self._resumed["skipped_in_a_row"]
        self._tr_loss = self._resumed["loss"].to(self.args.device)
        self._globalstep_last_logged = self._resumed["logged"]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # A step without a checkpoint cannot become the model, and Ctrl-C's is not one that the recipe asks for.
        step, state = self.state.global_step, self.state
        planned = step % state.save_steps == 0 or step >= state.max_steps or self.plan.deadline is not None
        return planned and self.control.should_save and super()._determine_best_metric(metrics, trial)

    def _locate_best(self) -> None:
        """Finds the best checkpoint in this folder: the run may have been moved, or the checkpoint deleted."""
        step = self.state.best_global_step
        if not step:
            return
        best = Path(self._get_output_dir(None)) / f"step-{step}"
        problem = processes.run_on_first(lambda: damage(best))
        if problem is None:
            self.state.best_model_checkpoint = str(best)
            return
        if processes.is_first():
            print(f"spectra: cannot use the best checkpoint so far, {best}: {problem}", file=sys.stderr, flush=True)
        self.state.best_model_checkpoint = self.state.best_metric = self.state.best_global_step = None

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        problem = processes.run_on_first(lambda: damage(Path(best))) if best is not None else None
        if problem is not None:
            if processes.is_first():
                line = f"spectra: {best} is damaged: {problem}; model/ holds the weights of the last step"
                print(line, file=sys.stderr, flush=True)
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
        (written / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        self.state.save_to_json(str(written / "trainer_state.json"))
        save_running_sums(written, self._running_sums())
        write_manifest(written, step=step, best=self.state.best_global_step, run=self.plan.facts)
        finalize_checkpoint(written, final)
        shutil.rmtree(scratch, ignore_errors=True)
        best = self.state.best_model_checkpoint
        in_use = self.plan.backup.pending() if self.plan.backup is not None else []
        protected = [*in_use, *([Path(best)] if best else [])]
        delete_old_checkpoints(final.parent.parent, keep=self.args.save_total_limit or 1, protected=protected)

    def _running_sums(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "batches": round((self.state.epoch - self._epoch) * self._batches),
            "batches_in_epoch": self._batches,
            "loss": self._tr_loss.cpu(),
            "logged": self._globalstep_last_logged,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }
