"""`spectra encode` with a folder as output: a corpus of any size, in files that are written one by one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError

_FILES = (".npz", ".npy")
_OTHER_FILES = (".parquet", ".safetensors", ".json", ".jsonl", ".csv", ".tsv", ".txt")


def to_folder(output: Path | None, *, sparse: bool, options: Mapping[str, Any]) -> bool:
    """Returns whether the output is a folder of shards.

    Args:
        output: as requested.
        sparse: whether the model is a sparse encoder, whose rows go into one folder unless shards are asked for.
        options: those that need a folder: name → value, false if not used.

    Raises:
        UsageError: an option needs a folder and there is none, or the output has the name of another kind of file.
    """
    used = next((name for name, value in options.items() if value), None)
    if output is None or output.suffix in _FILES:
        if used is not None:
            raise UsageError(f"{used} is for a corpus: name a folder with --output, such as --output vectors.")
        return False
    if output.suffix in _OTHER_FILES:
        stem, wanted = output.with_suffix(""), output.suffix[1:]
        format_ = f" --format {wanted}" if wanted in ("parquet", "safetensors") else ""
        raise UsageError(f"--output {output}: name an .npz file, or a folder: --output {stem}{format_}.")
    return not sparse or used is not None


def encode_to_folder(
    model: str,
    source: str | None,
    output: Path | None,
    texts: Sequence[str],
    outputs: Sequence[str],
    *,
    columns: Mapping[str, str],
    sparse: bool,
    dtype: str | None,
    role: str | None,
    batch: int | None,
    workers: int,
    devices: str | None,
    engine: str,
    part: str | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    shard_rows: int | None,
    **options: Any,
) -> None:
    """Plans the encoding of a corpus, and runs it.

    Args:
        options: `dim`, `active`, `precision`, `file_format` and `keep_text` of `plan_corpus`.

    Raises:
        UsageError: the options do not fit a folder.
        SpectraError: the model or the source cannot be read, or a shard cannot be encoded.
    """
    from spectra_nsa.workflows.corpus.job import DTYPES, SHARD_ROWS
    from spectra_nsa.workflows.corpus.run import encode_corpus, parse_part, plan_corpus

    assert output is not None
    if source is None or texts:
        raise UsageError(f"--output {output} is a folder, for a corpus: give it with --input SOURCE, without --texts.")
    if batch is not None:
        raise UsageError("--batch does not apply to a folder, whose vectors may not depend on it.")
    kind = dtype or ("sparse" if sparse else DTYPES[0])
    if kind != "sparse" and (sparse or options["active"] is not None):
        raise UsageError(f"--dtype {kind} and --active do not fit {model}: a sparse encoder has sparse rows.")
    if kind == "sparse" and (list(outputs) != ["embedding"] or options["dim"] is not None):
        raise UsageError("a sparse encoder has a single output and no --dim. Keep the largest weights with --active N.")
    chosen_part = parse_part(part)
    if not sparse:
        _check_dense(model, outputs, options["dim"])
    job = plan_corpus(
        model, source, columns=columns, role=role or "document", outputs=outputs, dtype=kind,
        shard_rows=shard_rows or SHARD_ROWS, **options,
    )  # fmt: skip
    if job.quarantined:
        print(f"spectra: warning: {counted(job.quarantined, 'row')} of {source} quarantined.", file=sys.stderr)
    plan = {"schema": 1, "output": str(output), "shards": job.shards} | asdict(job)
    if dry_run:
        print_json(plan, indent=2) if as_json else _show(plan)
        return
    devices_ = [name.strip() for name in devices.split(",") if name.strip()] if devices else None
    done = encode_corpus(
        job, output, workers=workers, devices=devices_, engine=engine, part=chosen_part, overwrite=overwrite
    )
    if as_json:
        print_json(plan | done)
        return
    rate = f" ({done['encoded_rows'] / max(done['seconds'], 0.1):,.0f}/s)" if done["encoded_rows"] else ""
    print(f"{', '.join(outputs)}: {done['encoded_rows']:,} texts encoded{rate}, {job.dtype} as {job.format} → {output}")
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
