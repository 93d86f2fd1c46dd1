"""`spectra encode` with a folder as output: a corpus of any size, in files that are written one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spectra_nsa.cli.texts import warn_quarantined
from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError

DType = Annotated[
    Literal["float32", "float16", "int8", "bits", "sparse"] | None,
    typer.Option(
        help="How numbers are stored: int8 with a scale for each text, bits for signs; sparse for the terms of a "
        "sparse encoder, the default for one."
    ),
]
Role = Annotated[
    Literal["query", "document"] | None,
    typer.Option(help="Encode with the prompt of this role (default: document in a folder, else no role)."),
]
FileFormat = Annotated[
    Literal["npy", "npz", "safetensors", "parquet"] | None,
    typer.Option("--format", help="Of the files in an output folder (default: npy, npz for several outputs)."),
]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Texts per file of an output folder.")]
KeepText = Annotated[bool, typer.Option("--keep-text", help="Write texts beside the vectors (folder).")]
Workers = Annotated[int, typer.Option(min=1, help="Processes (folder).")]
Devices = Annotated[
    str | None, typer.Option(help="Comma-separated devices for the workers, such as cuda:0,cuda:1 (folder).")
]
Engine = Annotated[
    Literal["local", "ray"], typer.Option(help="What runs the workers: this machine, or a Ray cluster (folder).")
]
Part = Annotated[
    str | None, typer.Option(help="K/N: encode the K-th of N parts, for N machines that share the folder.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the vectors of another plan.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan of a folder and write nothing.")]
_FILES = (".npz", ".npy")
_OTHER_FILES = (".parquet", ".safetensors", ".json", ".jsonl", ".csv", ".tsv", ".txt")


def to_folder(output: Path | None, *, sparse: bool, used: str | None) -> bool:
    """Returns whether the output is a folder of shards.

    Args:
        output: as requested.
        sparse: whether the model is a sparse encoder, whose rows go into one folder unless shards are asked for.
        used: an option that needs a folder; ``None`` if there is none.

    Raises:
        UsageError: an option needs a folder and there is none, or the output has the name of another kind of file.
    """
    if output is None or output.suffix in _FILES:
        if used is not None:
            raise UsageError(f"{used} is for a corpus: name a folder with --output, such as --output vectors.")
        return False
    if output.suffix in _OTHER_FILES:
        stem, wanted = output.with_suffix(""), output.suffix[1:]
        format_ = f" --format {wanted}" if wanted in ("parquet", "safetensors") else ""
        raise UsageError(f"--output {output}: name a file such as {stem}.npz, or a folder: --output {stem}{format_}.")
    return not sparse or used is not None


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Options of `spectra encode` that only a folder has; the fields are named as the options are."""

    format: str | None
    shard_rows: int | None
    keep_text: bool
    workers: int
    devices: str | None
    engine: str
    part: str | None
    overwrite: bool
    dry_run: bool

    def used(self) -> str | None:
        """Returns the first option that is not at its default; ``None`` for none."""
        plain = FolderOptions(
            format=None, shard_rows=None, keep_text=False, workers=1, devices=None, engine="local", part=None,
            overwrite=False, dry_run=False,
        )  # fmt: skip
        changed = (name for name, value in asdict(self).items() if value != getattr(plain, name))
        return next((f"--{name.replace('_', '-')}" for name in changed), None)


def encode_to_folder(
    model: str,
    source: str | None,
    output: Path,
    outputs: Sequence[str],
    folder: FolderOptions,
    *,
    sparse: bool,
    dtype: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Plans the encoding of a corpus, and runs it.

    Args:
        options: `columns`, `role`, `dim`, `active` and `precision` of `plan_corpus`.

    Raises:
        UsageError: the options do not fit a folder.
        SpectraError: the model or the source cannot be read, or a shard cannot be encoded.
    """
    from spectra_nsa.workflows.corpus.job import DTYPES, SHARD_ROWS
    from spectra_nsa.workflows.corpus.run import encode_corpus, parse_part, plan_corpus

    if source is None:
        raise UsageError(f"--output {output} is a folder, for a corpus: give it with --input SOURCE, without --texts.")
    kind = dtype or ("sparse" if sparse else DTYPES[0])
    if kind != "sparse" and (sparse or options["active"] is not None):
        raise UsageError(f"--dtype {kind} and --active do not fit {model}: a sparse encoder has sparse rows.")
    if kind == "sparse" and (list(outputs) != ["embedding"] or options["dim"] is not None):
        raise UsageError("a sparse encoder has a single output and no --dim. Keep the largest weights with --active N.")
    part = parse_part(folder.part)
    if not sparse:
        _check_dense(model, outputs, options["dim"])
    job = plan_corpus(
        model, source, outputs=outputs, dtype=kind, file_format=folder.format, keep_text=folder.keep_text,
        shard_rows=folder.shard_rows or SHARD_ROWS, **options,
    )  # fmt: skip
    if job.quarantined:
        warn_quarantined(job.quarantined, source)
    plan = {"schema": 1, "output": str(output), "shards": job.shards} | asdict(job)
    if folder.dry_run:
        print_json(plan, indent=2) if as_json else _show(plan)
        return
    devices = [name.strip() for name in folder.devices.split(",") if name.strip()] if folder.devices else None
    done = encode_corpus(
        job, output, workers=folder.workers, devices=devices, engine=folder.engine, part=part,
        overwrite=folder.overwrite,
    )  # fmt: skip
    print_json(plan | done) if as_json else _say_done(plan, done)


def _say_done(plan: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    rows = done["encoded_rows"]
    rate = f" ({rows / max(done['seconds'], 0.1):,.0f}/s)" if rows else ""
    kind = f"{plan['dtype']} as {plan['format']}"
    print(f"{', '.join(plan['outputs'])}: {rows:,} texts encoded{rate}, {kind} → {plan['output']}")
    if not done["complete"]:
        print("  other parts are missing: run them, or this command without --part")


def _check_dense(model: str, outputs: Sequence[str], dim: int | None) -> None:
    """Checks that the model has the outputs and dimensions, before the corpus is read."""
    from spectra_nsa.cli.texts import check_dim
    from spectra_nsa.heads.kinds import check_outputs
    from spectra_nsa.models.open import find_model
    from spectra_nsa.models.size import model_spec

    spec = model_spec(find_model(model))
    check_outputs(spec, outputs)
    if dim is not None:
        check_dim(spec, dim)


def _show(plan: Mapping[str, Any]) -> None:
    """Prints the plan."""
    print(f"{plan['rows']:,} texts of {plan['source']} in {plan['shards']:,} files of {plan['shard_rows']:,}")
    print(f"  as {', '.join(plan['outputs'])} in {plan['dtype']} ({plan['format']}), computed in {plan['precision']}")
    print(f"  → {plan['output']} (nothing written)")
