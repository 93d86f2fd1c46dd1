"""What a corpus is encoded to: the plan in `corpus.json`, on which every process agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user, read_json_object, write_json

PLAN = "corpus.json"
VOCABULARY = "vocabulary.json"  # the terms of sparse rows, by id
SCHEMA = 1
DTYPES = ("float32", "float16", "int8", "bits", "sparse")
FORMATS = ("npy", "npz", "safetensors", "parquet")
SHARD_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class CorpusJob:
    """All that the vectors depend on.

    Attributes:
        model: its folder or Hub name.
        checksum: the SHA-256 of its files.
        source: of the texts, as `load_source` reads it.
        columns: role → column; empty if the roles are detected.
        digest: the SHA-256 of the texts.
        rows: their number.
        quarantined: rows of the source that were dropped.
        role: ``"query"`` or ``"document"``.
        outputs: the names of the outputs.
        dim: leading dimensions of `embedding` and `semantic`; ``None`` keeps all.
        active: the most terms of a text, of a sparse encoder; ``None`` for all.
        precision: the number format to compute in.
        dtype: of the vectors in the files, one of `DTYPES`.
        format: of the files, one of `FORMATS`.
        shard_rows: rows of a shard.
        keep_text: whether the texts are written beside the vectors.
    """

    model: str
    checksum: str
    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    digest: str
    rows: int
    quarantined: int = 0
    role: str = "document"
    outputs: tuple[str, ...] = ("embedding",)
    dim: int | None = None
    active: int | None = None
    precision: str = "fp32"
    dtype: str = "float32"
    format: str = "npy"
    shard_rows: int = SHARD_ROWS
    keep_text: bool = False

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.rows // self.shard_rows)

    def range(self, shard: int) -> range:
        """Returns the rows of a shard."""
        return range(shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows))

    def file(self, shard: int) -> str:
        """Returns the name of a shard's vectors."""
        return f"{shard_name(shard)}.{self.format}"


def shard_name(shard: int) -> str:
    """Returns the name of a shard's files without their ending."""
    return f"part-{shard:05d}"


def check_job(dtype: str, file_format: str | None, outputs: int) -> str:
    """Returns the format of the files.

    Args:
        dtype: of the vectors.
        file_format: as requested; ``None`` for one that fits.
        outputs: the number of outputs.

    Raises:
        UsageError: the format cannot hold them.
    """
    if dtype == "sparse":
        if file_format not in (None, "npz"):
            raise UsageError(f"--format {file_format}: sparse rows are written as npz, which scipy reads.")
        return "npz"
    if file_format == "npy" and outputs > 1:
        raise UsageError(f"--format npy holds a single array, and --outputs names {outputs}. Choose npz or parquet.")
    return file_format or ("npy" if outputs == 1 else "npz")


def write_plan(folder: str | Path, job: CorpusJob, *, overwrite: bool = False) -> None:
    """Writes the plan of a folder, or checks that the one in it is the same.

    Args:
        folder: is created.
        job: the plan.
        overwrite: whether another plan is replaced, with its vectors. Those of the same plan are kept.

    Raises:
        UsageError: the folder has another plan.
        SpectraError: its plan is damaged.
    """
    folder = expand_user(folder)
    if (folder / PLAN).is_file():
        difference = _difference_from(folder, job, damaged=overwrite)
        if difference is None:
            return
        if not overwrite:
            name, then, now = difference
            raise UsageError(
                f"{folder} holds vectors with another {name}: {then!r} instead of {now!r}. Name another folder, or "
                "replace them with --overwrite."
            )
        for file in (*folder.glob("part-*"), *folder.glob(VOCABULARY)):
            file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, {"schema": SCHEMA} | asdict(job))


def read_plan(folder: str | Path) -> CorpusJob:
    """Reads the plan of a folder.

    Raises:
        SpectraError: there is none, or it is damaged.
    """
    path = expand_user(folder) / PLAN
    facts = read_json_object(path)
    names = {f.name for f in fields(CorpusJob)}
    try:
        if facts.pop("schema") != SCHEMA or facts.keys() != names:
            raise ValueError
        if facts["format"] not in FORMATS or facts["dtype"] not in DTYPES or not facts["outputs"]:
            raise ValueError
        if not all(type(facts[name]) is int and 1 <= facts[name] < 2**63 for name in ("rows", "shard_rows")):
            raise ValueError
        return CorpusJob(**facts | {"outputs": tuple(facts["outputs"])})
    except (KeyError, TypeError, ValueError):
        raise SpectraError(f"{path} is not what `spectra encode` writes. Encode into another folder.") from None


def _difference_from(folder: Path, job: CorpusJob, *, damaged: bool) -> tuple[str, Any, Any] | None:
    """Returns the first field in which the plan of a folder differs, with both values.

    Names of the same model and texts do not count. A damaged plan raises, or differs if `damaged` is true.
    """
    try:
        before = asdict(read_plan(folder))
    except SpectraError:
        if damaged:
            return "plan", None, None
        raise
    for name, value in asdict(job).items():
        if name not in ("model", "source", "quarantined") and before[name] != value:
            return name.replace("_", " ").replace("checksum", "model").replace("digest", "texts"), before[name], value
    return None
