"""The sections of a recipe: every key, what it means, and its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from spectra_nsa.config.terms import TERM_FACTS, TermFacts
from spectra_nsa.core.errors import UsageError


class Section(BaseModel):
    """A part of a recipe: closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Where the model comes from."""

    start: str | None = Field(None, description="warm start: a folder or a Hub name of a BERT-architecture checkpoint")
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="of the start keep these layers alone, 0 the lowest; none keeps all"
    )
    size: str | None = Field(None, description="a size preset, for training from scratch")
    words: str | None = Field(
        None, description="from scratch: a model whose vector of each piece of the vocabulary it begins with"
    )
    tokenizer: str | None = Field(None, description="a folder or Hub name; none: the checkpoint's, or BERT's uncased")
    max_length: int | None = Field(None, gt=2, description="longest text in tokens; none keeps the checkpoint's")
    pooling: Literal["mean", "cls", "max", "mean_max", "attention", "entropy"] | None = Field(
        None, description="none keeps the checkpoint's"
    )
    semantic_dims: list[Annotated[int, Field(gt=0)]] | None = Field(
        None, min_length=1, description="Matryoshka sizes, largest first"
    )
    position: Literal["absolute", "rope"] | None = Field(
        None, description="from scratch: learned places or rotary ones; none keeps the preset's"
    )
    spectral: bool | None = Field(None, description="the entropy-gated second path; none keeps the model's")
    mixer: Literal["spectral", "conv"] | None = Field(None, description="what that path is; none keeps the model's")
    spectral_dim: int | None = Field(None, gt=0, description="its width; none keeps the model's")
    entropy_every: int | None = Field(None, gt=0, description="attention entropy in every so-many-th layer")
    depth_mix: bool | None = Field(None, description="states of dyadic depths in the last; none keeps the model's")
    entity: bool | None = Field(
        None, description="the entity vector in `embedding`; none keeps the model's; off trains no entity head either"
    )
    matryoshka: bool = Field(True, description="train the smaller sizes in semantic_dims too")
    anchor: bool = Field(True, description="train the anchors")
    bridge: bool = Field(True, description="train the hash")
    ranking: bool = Field(True, description="train the ranking vector, where there are hard negatives")
    anomaly: bool = Field(True, description="train the anomaly head's prototypes")
    dropout: float | None = Field(0.0, ge=0, lt=1, description="hidden and attention dropout; none keeps the model's")


class DataSection(Section):
    """What it learns from."""

    train: str | None = Field(None, description="a source: a file, a Hub set, or python:installed")
    columns: dict[str, str] | None = Field(None, description="role: column, where the names are not recognised")
    split: str | None = Field(None, description="the split of a Hub set")
    limit: int | None = Field(None, gt=0, description="at most so many rows")
    group: str | None = Field(None, description="a column: batches are filled from rows that share it")
    dev: str | None = Field(None, description="a source for the dev metric; none holds rows of `train` out")
    dev_rows: int = Field(200, ge=0, description="rows of the dev set; 0 for no dev metric")

    @property
    def source(self) -> str:
        """The source of the training rows.

        Raises:
            UsageError: none is named.
        """
        if self.train is None:
            raise UsageError("nothing to train on: give --data SOURCE (a file, a Hub set, or python:installed).")
        return self.train


class TermSection(Section):
    """One term of the loss."""

    weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="factor of the term; 0 turns it off")
    start: int = Field(0, ge=0, description="first step at which the term counts")
    ramp: int = Field(0, ge=0, description="steps over which the weight rises from 0")
    joined: bool = Field(True, description="false: a head's term trains only the head, not the encoder")


class MarginTermSection(TermSection):
    """A term with a margin."""

    margin: float = Field(gt=0, allow_inf_nan=False, description="how far apart texts that do not match have to be")


class _TermsBase(Section):
    """The terms by name (docs/model.md, section 7)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_defaults(cls, values: Any) -> Any:
        """Completes a term's entry from that term's own defaults: setting a weight does not join a head."""
        if not isinstance(values, Mapping):
            return values
        defaults = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**defaults[name], **term} if name in defaults and isinstance(term, Mapping) else term
            for name, term in values.items()
        }

    def __getitem__(self, name: str) -> TermSection:
        """Returns a term's settings."""
        term: TermSection = getattr(self, name)
        return term


def _term_field(facts: TermFacts) -> tuple[type[TermSection], Any]:
    values: dict[str, Any] = {"weight": facts.weight, "joined": facts.joined}
    if facts.margin is None:
        return TermSection, Field(TermSection(**values), description=facts.about)
    return MarginTermSection, Field(MarginTermSection(**values, margin=facts.margin), description=facts.about)


if TYPE_CHECKING:

    class TermsSection(_TermsBase):
        def __getattr__(self, name: str) -> TermSection: ...

else:  # one field for each term
    TermsSection = create_model(
        "TermsSection",
        __base__=_TermsBase,
        __doc__=_TermsBase.__doc__,
        __module__=__name__,
        **{name: _term_field(facts) for name, facts in TERM_FACTS.items()},
    )


class LossSection(Section):
    """The loss stack."""

    temperature: float = Field(0.05, gt=0)
    temperature_start: float | None = Field(None, gt=0, description="falls from here on a half cosine; none: constant")
    terms: TermsSection = TermsSection()
    both_directions: bool = Field(True, description="also from document to query")


class DistillSection(Section):
    """What it learns from besides: the vectors of other models."""

    teachers: list[str] = Field([], description="model folders or Hub names; none: the distillation terms are silent")
    weights: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
        None, description="of each teacher's cosines in their mean; none: all alike"
    )
    temperature: float = Field(0.05, gt=0, description="of the similarity distributions that are compared")
    scores: list[str] | None = Field(
        None, min_length=1, description="columns of scores, or one of lists: the positive's first; none: the teachers'"
    )

    @model_validator(mode="after")
    def _a_weight_each(self) -> DistillSection:
        if self.weights is not None and len(self.weights) != len(self.teachers):
            raise ValueError(f"{len(self.weights)} weights for {len(self.teachers)} teachers: give one for each")
        return self


class TrainSection(Section):
    """How it learns."""

    epochs: float = Field(1, gt=0, allow_inf_nan=False)
    max_steps: int | None = Field(None, gt=0, description="stop after so many steps; overrides epochs")
    batch: int = Field(64, gt=1, description="pairs a step: each text's negatives are the other pairs' texts")
    max_length: int | None = Field(None, gt=2, description="cut texts to so many tokens in training only")
    accumulation: int = Field(1, gt=0, description="batches a step; does not add negatives")
    lr: float = Field(1e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = Field(0.08, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0)
    gate_lr: float = Field(50.0, gt=0, description="learning rate of the zero-start gates, as a multiple of lr")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 where it is fast")
    length_groups: int | None = Field(
        None, gt=0, description="forward passes a batch, texts of like length together; none takes about 16 texts each"
    )
    cached_batch: int | None = Field(
        None, gt=0, description="tokens a forward pass, run twice: a batch of any size in the memory of one pass"
    )
    gradient_checkpointing: bool = False
    shard: bool = Field(False, description="several processes share the encoder's weights and optimiser out (FSDP)")
    seed: int = Field(0, ge=0)
    log_every: int = Field(10, gt=0)
    checkpoint_every: int = Field(500, gt=0, description="steps between checkpoints")
    evaluate_every: int = Field(500, gt=0, description="steps between dev evaluations; divides checkpoint_every")
    keep_checkpoints: int = Field(2, gt=0)
    patience: int | None = Field(None, gt=0, description="stop after so many dev evaluations without a new best")
    interpolate: float = Field(
        1.0, gt=0, le=1, description="share of what the encoder learned that is kept; the rest is the start (WiSE-FT)"
    )
    fit_codes: int = Field(
        4000, ge=0, description="training texts codes and anchors are fitted to at the end; 0: as trained"
    )
    report_to: list[Literal["tensorboard", "wandb"]] = Field([], description="also log there")

    @model_validator(mode="after")
    def _evaluate_before_each_checkpoint(self) -> TrainSection:
        # The best checkpoint is known only where every checkpoint has its dev figure.
        if self.checkpoint_every % self.evaluate_every:
            raise ValueError(
                f"evaluate_every ({self.evaluate_every}) must divide checkpoint_every ({self.checkpoint_every})"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_split_a_batch(self) -> TrainSection:
        if self.cached_batch is not None and self.length_groups is not None:
            raise ValueError("length_groups and cached_batch both say how a batch is split: give one of them")
        return self


class WatchSection(Section):
    """How its health is watched."""

    every: int | None = Field(None, gt=0, description="steps between health measures; none: train.evaluate_every")
    rows: int = Field(128, ge=0, description="pairs that they look at; 0 for no measures")
    warmup: int = Field(5000, ge=0, description="steps before anything is warned of; at most a fifth of the run")


class BackupSection(Section):
    """Copies of the run elsewhere."""

    to: str | None = Field(None, description="a folder or an fsspec address; none makes no copies")
    every: int = Field(6, gt=0, description="checkpoints between copies")
    keep: int = Field(2, gt=0, description="checkpoints that stay there, the best besides")
    wait: float = Field(600, ge=0, allow_inf_nan=False, description="seconds to wait for the last copy at the end")


class PretrainSection(Section):
    """Masked-LM pretraining; a recipe with this section is one for `spectra pretrain`."""

    mask_rate: float = Field(0.15, gt=0, lt=1, description="share of the words whose tokens are guessed")
    also: list[str] = Field([], description="sources beside data.train")
    batch_tokens: int | None = Field(None, gt=0, description="tokens a step; takes the place of train.batch")
