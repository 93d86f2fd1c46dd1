"""What the model card of a trained model says of its origin, beyond what sentence-transformers knows."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.counts import counted

_BASE = "<!-- - **Base model:** [Unknown](https://huggingface.co/unknown) -->"
_DATASET = "<!-- - **Training Dataset:** Unknown -->"


def complete_card(folder: Path, recipe: Recipe, rows: int) -> None:
    """Writes base model and training dataset into the card of a saved model, where they are unknown.

    Local files are named without their folders.

    Args:
        folder: the model; one without a card stays as it is.
        recipe: the run.
        rows: the number of training rows.
    """
    sets = recipe.data.sets or {}
    sources = [source for source in (recipe.data.train, *(part.train for part in sets.values())) if source is not None]
    names = ", ".join(public_name(source) for source in sources)
    write_origin(folder, base_model(recipe), f"{names} ({counted(rows, 'row')})" if sources else None)


def write_origin(folder: Path, base: str, dataset: str | None = None) -> None:
    """Writes base model and training dataset into the card of a saved model, where they are unknown.

    Args:
        folder: the model; one without a card stays as it is.
        base, dataset: as the card is to say it; ``None`` leaves the dataset unknown.
    """
    card = folder / "README.md"
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8").replace(_BASE, f"- **Base model:** {base}")
    if dataset is not None:
        text = text.replace(_DATASET, f"- **Training Dataset:** {dataset}")
    card.write_text(text, encoding="utf-8")


def base_model(recipe: Recipe) -> str:
    """Returns what the recipe starts from, with a link to the Hub if it is from there."""
    from spectra_nsa.models.sparse.names import HUB_NAMES, default_start

    start, size = recipe.model.start, recipe.model.size
    if start is None:
        return default_start()[1] if recipe.sparse is not None and size is None else f"none, {size} from scratch"
    if recipe.sparse is not None and not Path(start).exists():
        start = HUB_NAMES.get(start, start)
    is_hub_name = start.count("/") == 1 and not start.startswith((".", "/", "~")) and not Path(start).exists()
    return f"[{start}](https://huggingface.co/{start})" if is_hub_name else public_name(start)


def public_name(source: str) -> str:
    """Returns a source without the folders of a local path; the model of a run has the run's name."""
    path = Path(source).expanduser()
    if not path.exists():
        return source
    path = path.resolve()
    return path.parent.name if path.name == "model" and (path.parent / "recipe.yaml").is_file() else path.name
