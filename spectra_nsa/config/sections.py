"""The sections of a recipe beside data and loss: every key, its default and what it means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spectra_nsa.config.data_section import DataSection as DataSection
from spectra_nsa.config.experts_section import ExpertsSection
from spectra_nsa.config.section import Section
from spectra_nsa.config.shape_options import ShapeOption, shape_options


class ModelSection(Section):
    """The model: where it starts from, and its parts."""

    start: str | None = Field(
        None, description="warm start: a folder or Hub name of a BERT-architecture checkpoint or a saved model"
    )
    keep_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="layers of the start to keep, 0 the lowest; null keeps all"
    )
    size: str | None = Field(None, description="train from scratch: a size preset")
    token_vectors: str | None = Field(
        None,
        description=(
            "from scratch: a folder or Hub name of a model that encodes each vocabulary piece; the token "
            "embedding starts from these vectors"
        ),
    )
    tokenizer: str | None = Field(
        None,
        description=(
            "folder or Hub name of a fast tokenizer; in a warm start it replaces the vocabulary; null keeps "
            "the checkpoint's, or BERT's uncased one from scratch"
        ),
    )
    max_length: int | None = Field(
        None,
        gt=2,
        description=(
            "tokens after which texts are cut, in training and in the saved model; null keeps the limit of the "
            "checkpoint or preset"
        ),
    )
    pooling: Annotated[Literal["mean", "cls", "max", "mean_max", "attention", "entropy"] | None, ShapeOption()] = Field(
        None, description="how token states become one vector; null keeps the checkpoint's or the preset's"
    )
    pooling_kinds: Annotated[list[Literal["mean", "cls", "max", "attention", "entropy"]] | None, ShapeOption()] = Field(
        None, min_length=1, description="further poolings that each text mixes in by a gate; null keeps the model's"
    )
    adapters: Annotated[int | None, ShapeOption()] = Field(
        None, gt=0, description="small networks on the pooled vector that each text mixes; null keeps the model's"
    )
    adapter_size: Annotated[int | None, ShapeOption()] = Field(
        None, gt=0, description="their inner width; null keeps the model's, or takes 64"
    )
    semantic_dims: Annotated[list[Annotated[int, Field(gt=0)]] | None, ShapeOption()] = Field(
        None, min_length=1, description="Matryoshka sizes, largest first; null derives them from the width"
    )
    position: Annotated[Literal["absolute", "rope"] | None, ShapeOption(warm_start=False)] = Field(
        None, description="from scratch: learned or rotary positions; null keeps the preset's; a start has its own"
    )
    ffn: Annotated[Literal["moe"] | None, ShapeOption()] = Field(
        None,
        description="moe: experts instead of one feed-forward network, copies of a start's; null keeps the model's",
    )
    experts: Annotated[ExpertsSection, ShapeOption()] = ExpertsSection()
    spectral: Annotated[bool | None, ShapeOption(field="attention", values={True: "spectral", False: "plain"})] = Field(
        None, description="the entropy-gated second path beside attention; null keeps the model's"
    )
    mixer: Annotated[Literal["spectral", "conv"] | None, ShapeOption()] = Field(
        None, description="what the second path computes; null keeps the model's"
    )
    spectral_dim: Annotated[int | None, ShapeOption()] = Field(
        None, gt=0, description="width of the second path; null keeps the model's"
    )
    entropy_every: Annotated[int | None, ShapeOption()] = Field(
        None,
        gt=0,
        description=(
            "measure attention entropy in the top layer and in every N-th layer below it; null keeps the model's"
        ),
    )
    depth_mix: Annotated[bool | None, ShapeOption(part="states of dyadic depths, gated into the last")] = Field(
        None, description="mix states of lower layers into the last; null keeps the model's"
    )
    layer_routing: Annotated[bool | None, ShapeOption(part="depths, gated into the last layer by each text")] = Field(
        None, description="each text mixes the states of lower layers by a gate of its own; null keeps the model's"
    )
    entity: Annotated[bool | None, ShapeOption(part="the entity vector, gated into `embedding`")] = Field(
        None,
        description=(
            "add the entity vector to `embedding`; null keeps the model's and trains the head beside it; "
            "false trains no entity head"
        ),
    )
    matryoshka: bool = Field(True, description="train the smaller sizes of `model.semantic_dims` too")
    anchor: bool = Field(True, description="train the spectral anchors (output anchor64)")
    bridge: bool = Field(True, description="train the binary codes (output fast)")
    ranking: bool = Field(True, description="train the ranking vector; needs rows with hard negatives")
    anomaly: bool = Field(True, description="train the prototypes of the anomaly head")
    dropout: float | None = Field(
        0.0, ge=0, lt=1, description="hidden and attention dropout; null keeps the checkpoint's"
    )


SHAPE_OPTIONS = shape_options(ModelSection.model_fields)


class TrainSection(Section):
    """The optimization: steps, batches, precision, checkpoints."""

    epochs: float = Field(1, gt=0, description="passes over the data; fractions are fine")
    max_steps: int | None = Field(
        None, gt=0, description="stop after this many steps, whatever `train.epochs` says; null trains all epochs"
    )
    batch: int = Field(
        64,
        gt=1,
        description="pairs in a batch, over all processes: an anchor's negatives are the other pairs' positives",
    )
    max_length: int | None = Field(
        None, gt=2, description="tokens after which texts are cut in training only; null takes `model.max_length`"
    )
    accumulation: int = Field(
        1, gt=0, description="batches per step; they do not see each other, so this adds no negatives"
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate (AdamW)")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    warmup: float = Field(0.08, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    gate_lr_factor: float = Field(
        50.0, gt=0, description="learning rate of the zero-start gates, as a multiple of `train.lr`"
    )
    router_lr_factor: float = Field(
        10.0, gt=0, description="learning rate of the routers of experts, as a multiple of `train.lr`"
    )
    expert_lr_factor: float = Field(1.0, gt=0, description="learning rate of experts, as a multiple of `train.lr`")
    parts: list[Literal["embeddings", "attention", "ffn", "norms", "heads"]] | None = Field(
        None,
        min_length=1,
        description="the parts of the model that are trained and fitted; the others stay; null takes all",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="largest gradient norm; larger gradients are scaled down to it")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="number format of the computation; auto takes bf16 if the hardware computes it fast"
    )
    passes_per_batch: int | None = Field(
        None,
        gt=0,
        description=(
            "forward passes per batch, each with texts of similar length; null takes about one per 16 texts, "
            "1 pads the batch as usual"
        ),
    )
    cached_pass_tokens: int | None = Field(
        None,
        gt=0,
        description=(
            "tokens per forward pass; each pass runs twice (GradCache), so a batch of any size needs the memory "
            "of one pass; null turns it off"
        ),
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    shard: bool = Field(
        False, description="shard the encoder's weights, gradients and optimizer state over the processes (FSDP)"
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    log_every: int = Field(10, gt=0, description="steps between lines of `metrics.jsonl`; the last step has one too")
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    evaluate_every: int = Field(
        500, gt=0, description="steps between dev metrics; must divide `train.checkpoint_every`"
    )
    keep_checkpoints: int = Field(2, gt=0, description="checkpoints that stay; the best always stays")
    patience: int | None = Field(
        None, gt=0, description="stop after this many dev metrics in a row without a new best; null trains to the end"
    )
    interpolate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the change of the encoder's weights that is kept at the end (WiSE-FT); 1 keeps all",
    )
    fit_heads: int = Field(
        4000,
        ge=0,
        description=(
            "training texts that binary codes and spectral anchors are fitted to at the end; 0 leaves them as trained"
        ),
    )
    report_to: list[Literal["tensorboard", "wandb"]] = Field([], description="other places to log to")

    @model_validator(mode="after")
    def _evaluate_before_each_checkpoint(self) -> TrainSection:
        # The best checkpoint is known only if every checkpoint has a dev metric.
        if self.checkpoint_every % self.evaluate_every:
            raise ValueError(
                f"evaluate_every ({self.evaluate_every}) must divide checkpoint_every ({self.checkpoint_every})"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_split_a_batch(self) -> TrainSection:
        if self.cached_pass_tokens is not None and self.passes_per_batch is not None:
            raise ValueError("passes_per_batch and cached_pass_tokens both say how a batch is split: give one of them")
        return self


class MonitorSection(Section):
    """The health measures and warnings."""

    every: int | None = Field(
        None, gt=0, description="steps between health measures; null takes `train.evaluate_every`"
    )
    rows: int = Field(128, ge=0, description="pairs on which health is measured; 0 turns the measures off")
    warmup: int = Field(5000, ge=0, description="steps before the first warning, at most a fifth of the run")


class BackupSection(Section):
    """Copies of the run in another place."""

    to: str | None = Field(None, description="a folder or fsspec address for copies of the run; null makes none")
    every: int = Field(6, gt=0, description="checkpoints between copies")
    keep: int = Field(2, gt=0, description="checkpoints that stay there, in addition to the best")
    wait_seconds: float = Field(600, ge=0, description="seconds to wait at the end for the last copy")


class PretrainSection(Section):
    """Masked-LM pretraining; a recipe with this section is one for `spectra pretrain`."""

    mask_rate: float = Field(0.15, gt=0, lt=1, description="share of the words that are masked")
    extra_sources: list[str] = Field([], description="sources beside `data.train`")
    batch_tokens: int | None = Field(
        None, gt=0, description="tokens per step, instead of `train.batch`; null counts sequences"
    )
    router_balance: float = Field(0.01, ge=0, description="with experts: weight of the balance of their load")
    router_z: float = Field(0.001, ge=0, description="with experts: weight of the size of the gate's logits")
