"""Every private or undocumented name of a library that the package relies on.

An upgrade may change them without notice. `tests/training/loop/test_library_hooks.py` compares this list with the
installed versions, and fails on a private name of a library that is used and not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAINER = "transformers.trainer.Trainer"
MODEL = "transformers.modeling_utils.PreTrainedModel"
CONFIG = "transformers.configuration_utils.PreTrainedConfig"
BASE_TRAINER = "sentence_transformers.base.trainer.BaseTrainer"
ACCELERATOR = "accelerate.accelerator.Accelerator"
BASE_MODEL = "sentence_transformers.base.model.BaseModel"
FSDP = "torch.distributed.fsdp.FSDPModule"


@dataclass(frozen=True)
class LibraryHook:
    """A name of a library that we call, override or assign.

    Attributes:
        owner: the module or class that has it.
        name: the attribute.
        reason: what it is needed for.
        parameters: of a function, without `self`; `=` follows those with a default. ``None`` for other values.
    """

    owner: str
    name: str
    reason: str
    parameters: str | None = None


HOOKS = (
    LibraryHook(
        TRAINER,
        "_init_training_state",
        "resumes at the epoch and batch that the checkpoint counted",
        "max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial",
    ),
    LibraryHook(
        TRAINER,
        "_run_epoch",
        "knows the epoch and its batches; a run that has ended takes no step",
        "model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, ignore_keys_for_eval, "
        "start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch",
    ),
    LibraryHook(
        TRAINER,
        "_load_optimizer_and_scheduler",
        "applies a changed recipe after loading; loads a shard of the optimizer's state",
        "checkpoint",
    ),
    LibraryHook(
        TRAINER, "_save_optimizer_and_scheduler", "saves the unsharded state of a sharded optimizer", "output_dir"
    ),
    LibraryHook(
        TRAINER, "_determine_best_metric", "only a step with a checkpoint can become the best", "metrics, trial"
    ),
    LibraryHook(TRAINER, "_save_checkpoint", "writes checkpoints atomically", "model, trial"),
    LibraryHook(TRAINER, "_get_output_dir", "writes a checkpoint into a scratch folder first", "trial"),
    LibraryHook(TRAINER, "_load_best_model", "skips a damaged checkpoint", ""),
    LibraryHook(TRAINER, "_get_train_sampler", "orders sequences by seed and epoch", "train_dataset="),
    LibraryHook(
        TRAINER,
        "_save",
        "saves a masked LM beside its sentence model, and a sharded model unsharded",
        "output_dir=, state_dict=",
    ),
    LibraryHook(BASE_TRAINER, "_save", "saves a sharded model unsharded", "output_dir=, state_dict="),
    LibraryHook(
        TRAINER, "_load_from_checkpoint", "loads a shard of the checkpoint's weights", "resume_from_checkpoint, model="
    ),
    LibraryHook(BASE_TRAINER, "_load_from_checkpoint", "loads a shard of the checkpoint's weights", "checkpoint_path"),
    LibraryHook(TRAINER, "_mixed_mesh_grad_norm", "a skipped step has no gradients to clip", "model, max_norm"),
    LibraryHook(TRAINER, "_mixed_mesh_grads", "set when the model is sharded: the first step may be skipped"),
    LibraryHook(TRAINER, "_tr_loss", "the loss since the last log line, kept in checkpoints"),
    LibraryHook(TRAINER, "_globalstep_last_logged", "the step of the last log line, kept in checkpoints"),
    LibraryHook(TRAINER, "create_accelerator_and_postprocess", "keeps DistributedDataParallel off the model", ""),
    LibraryHook(
        TRAINER, "create_optimizer", "gives gates, routers and experts parameter groups of their own", "model="
    ),
    LibraryHook(
        TRAINER, "create_scheduler", "replaces the schedule of a run with a deadline", "num_training_steps, optimizer="
    ),
    LibraryHook(TRAINER, "training_step", "skips steps that are not finite", "model, inputs, num_items_in_batch="),
    LibraryHook(TRAINER, "pop_callback", "moves the trackers behind our own callbacks", "callback"),
    LibraryHook(
        "transformers.trainer_callback.TrainerState",
        "compute_steps",
        "applies a changed recipe to a resumed run",
        "args, max_steps",
    ),
    LibraryHook(
        "transformers.trainer_utils", "PREFIX_CHECKPOINT_DIR", "the name that transformers gives a checkpoint's folder"
    ),
    LibraryHook("transformers.trainer", "OPTIMIZER_NAME", "the optimizer's file in a checkpoint"),
    LibraryHook("transformers.trainer", "SCHEDULER_NAME", "the schedule's file in a checkpoint"),
    LibraryHook(
        "transformers.integrations.integration_utils",
        "get_reporting_integration_callbacks",
        "the callbacks of the trackers in `train.report_to`",
        "report_to",
    ),
    LibraryHook("torch.nn.Module", "_apply", "keeps the routers of experts in fp32 if a model is cast", "fn, recurse="),
    LibraryHook(
        ACCELERATOR,
        "prepare_model",
        "`evaluation_mode` leaves DistributedDataParallel out",
        "model, device_placement=, evaluation_mode=",
    ),
    LibraryHook(
        ACCELERATOR,
        "unwrap_model",
        "`keep_fp32_wrapper` takes autocast off a trained model",
        "model, keep_fp32_wrapper=, keep_torch_compile=",
    ),
    LibraryHook(MODEL, "_init_weights", "initializes our own modules", "module"),
    LibraryHook(MODEL, "_supports_sdpa", "says that our attention uses PyTorch's kernel"),
    LibraryHook(CONFIG, "_attn_implementation", "tells which attention kernel a library model uses"),
    LibraryHook(MODEL, "_no_split_modules", "blocks that must stay on one device"),
    LibraryHook(MODEL, "_keys_to_ignore_on_load_unexpected", "opens a masked LM as a sentence model"),
    LibraryHook(MODEL, "_tied_weights_keys", "ties the masked LM's decoder to the token embedding"),
    LibraryHook(
        MODEL,
        "_set_gradient_checkpointing",
        "sets `_gradient_checkpointing_func` on modules with a `gradient_checkpointing`",
        "enable=, gradient_checkpointing_func=, every_n_layers=",
    ),
    LibraryHook(BASE_TRAINER, "accum_loss_components", "the loss terms since the last log line, kept in checkpoints"),
    LibraryHook(
        BASE_TRAINER, "add_model_card_callback", "would encode examples before the first step", "default_args_dict"
    ),
    LibraryHook(
        BASE_TRAINER,
        "get_batch_sampler",
        "fills batches from one group, and compares texts where rows are token ids",
        "dataset, batch_size, drop_last, valid_label_columns=, generator=, seed=",
    ),
    LibraryHook(
        BASE_TRAINER,
        "compute_loss",
        "adds up the terms that the loss stack returns",
        "model, inputs, return_outputs=, num_items_in_batch=",
    ),
    LibraryHook(BASE_TRAINER, "track_loss_components", "adds up the loss of each of several datasets", "loss"),
    LibraryHook(BASE_TRAINER, "get_train_dataloader", "fills each batch from one of several datasets", ""),
    LibraryHook(ACCELERATOR, "even_batches", "no process repeats rows to fill its last batch"),
    LibraryHook(BASE_MODEL, "_resolve_prompt", "prompts of our own encode methods", "prompt, prompt_name"),
    LibraryHook(
        "sentence_transformers.sentence_transformer.model.SentenceTransformer",
        "_resolve_prompt",
        "prompts of our own encode methods",
        "prompt, prompt_name",
    ),
    LibraryHook(
        "sentence_transformers.sentence_transformer.model.SentenceTransformer",
        "_distributed_inference",
        "the library's own loop over several processes is left to it",
    ),
    LibraryHook(
        "torch.ops.mkldnn",
        "_reorder_linear_weight",
        "packs a matrix once, in the order that the CPU's kernels prefer",
        "self, batch_size=",
    ),
    LibraryHook(
        "torch.ops.mkldnn",
        "_linear_pointwise",
        "multiplies by a packed matrix",
        "X, W, B, attr, scalars, algorithm",
    ),
    LibraryHook("torch.nn.Module", "_modules", "the children of a module whose linear layers are packed"),
    LibraryHook("torch.nn.Module", "_forward_hooks", "a layer with hooks is not packed"),
    LibraryHook("torch.nn.Module", "_forward_pre_hooks", "a layer with hooks is not packed"),
    LibraryHook("torch.Tensor", "_version", "tells that a packed matrix is out of date"),
    LibraryHook(BASE_MODEL, "_model_card_text", "a trained model does not keep the card of its start"),
    LibraryHook(
        "sentence_transformers.base.data_collator.BaseDataCollator",
        "__init__",
        "our collators build on its `preprocess_fn`, `prompts` and `max_length`",
        "preprocess_fn, valid_label_columns=, router_mapping=, prompts=, max_length=",
    ),
    LibraryHook(
        "sentence_transformers.base.losses.gradcache.RandContext",
        "__init__",
        "repeats dropout in the second pass of a cached batch",
        "*tensors",
    ),
    LibraryHook("torch", "_foreach_norm", "the norms of all gradients at once"),
    LibraryHook(
        "torch.optim.lr_scheduler.LRScheduler", "_last_lr", "the learning rate that is logged after a changed recipe"
    ),
    LibraryHook(
        "torch.ops.aten",
        "_scaled_dot_product_flash_attention_for_cpu",
        "the CPU kernel that attention with dropout off calls directly",
        "query, key, value, dropout_p=, is_causal=, attn_mask=, scale=",
    ),
    LibraryHook(
        FSDP,
        "set_reshard_after_forward",
        "keeps gathered weights while one process uses the model",
        "reshard_after_forward, recurse=",
    ),
    LibraryHook(FSDP, "set_unshard_in_backward", "a lookup's gradient does not need the table", "unshard_in_backward"),
    LibraryHook(FSDP, "reset_iter_state", "drops forward passes without a backward pass", ""),
    LibraryHook("atexit", "_run_exitfuncs", "trackers send their last lines before a process leaves without teardown"),
)
