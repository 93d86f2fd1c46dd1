"""`spectra eval`: measures models on your data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import Columns, Precision, shared_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.evaluation.hybrid import Judged
    from spectra_nsa.evaluation.run import Evaluation
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.report.panels import Panel
    from spectra_nsa.text.shared_columns import SharedColumns

_KINDS = (
    "sts=FILE, retrieval=BEIR_DIR, pairs=SOURCE, knn=TRAIN_FILE,TEST_FILE, statistics=SOURCE, sparsity=SOURCE, "
    "performance=SOURCE, token-importance=SOURCE, beir=DIR|NAME, nanobeir=DIR|NAME, custom=SOURCE, "
    "csn-graphcodebert=DIR, csn-original-999=DIR, csn-mteb=DIR, cosqa-coir=DIR, cosqa-distinct=DIR"
)


def evaluate_command(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub name, bm25, or hybrid:A+B.")],
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help=f"{_KINDS}. Repeatable.")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", "-b", help="Another model, bm25, or hybrid:A+B. Repeatable.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Write the results to this JSON file; - for standard output.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this Markdown file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML report: tables, distributions, examples.")] = None,
    dim: Annotated[int | None, typer.Option(help="Use only this many leading dimensions of MODEL.", min=1)] = None,
    query_active: Annotated[
        int | None, typer.Option(help="Keep only this many largest weights of each query (sparse MODEL).", min=1)
    ] = None,
    document_active: Annotated[int | None, typer.Option(help="The same for documents.", min=1)] = None,
    limit: Annotated[
        int | None, typer.Option(help="Read at most this many rows per source (ignored for retrieval).", min=1)
    ] = None,
    fusion_dev: Annotated[
        str | None,
        typer.Option(help="Fit the weights of hybrid systems on these pairs or this retrieval set (not the test set)."),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Print every metric. The files always hold every metric.")
    ] = False,
    columns: Columns = None,
    precision: Precision = "fp32",
) -> None:
    """Measure a model on your data, and compare it with other models and BM25.

    Figures have 95 % intervals, except those that describe a collection or a machine. The model is compared with each
    baseline on the same queries, so the intervals of the differences are paired.

    Example: spectra eval runs/first/model --task sts=dev.jsonl --task retrieval=beir/scifact --baseline bm25
    """
    if not task:
        raise UsageError(f"eval needs at least one --task: {_KINDS}.")
    _check_writable(json, markdown, html)
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.evaluation.run import evaluate
    from spectra_nsa.evaluation.tasks import tasks_from

    mapping = shared_columns(columns)
    tasks, notes = tasks_from(task, limit=limit, columns=mapping)
    judged = _judged(fusion_dev, [model, *(baseline or [])], mapping)
    mapping.check()
    limits = {"dim": dim, "query_active": query_active, "document_active": document_active}
    systems = _systems(model, baseline or [], limits, precision)
    evaluation = evaluate(systems, tasks, notes=[*notes, *_fitted(systems, judged)])
    if not evaluation.results:
        raise SpectraError(f"nothing was measured. {'. '.join(evaluation.notes)}.")
    document = evaluation.document(model, precision=resolve_precision(precision))
    if json == "-":
        print_json(document, indent=2)
    else:
        _show(evaluation, show_all)
    _write_files(evaluation, document, None if json == "-" else json, markdown, html)


def _check_writable(json: str | None, markdown: Path | None, html: Path | None) -> None:
    """Checks that no output file is a folder."""
    for path in (None if json in (None, "-") else Path(str(json)), markdown, html):
        if path is not None and path.is_dir():
            raise UsageError(f"{path} is a folder: name a file to write.")


def _systems(model: str, baselines: list[str], limits: dict[str, int | None], precision: str) -> list[System]:
    """Opens the systems; `limits` are the model's. If two folders share a short name, the later one has its path."""
    from spectra_nsa.evaluation.open import open_hybrid, open_system

    names = [model, *baselines]
    chosen = {key: value for key, value in limits.items() if value is not None}
    opened: dict[int, System] = {}
    whole: dict[str, System] = {}  # without limits, by the user's name
    for at, name in sorted(enumerate(names), key=lambda item: item[1].startswith("hybrid:")):  # after their parts
        limited = chosen if at == 0 else {}
        if name.startswith("hybrid:") and limited:
            raise UsageError(f"{name}: --dim, --query-active and --document-active are not for hybrid systems.")
        system: System
        if name in whole and not limited:
            system = whole[name]
        elif name.startswith("hybrid:"):
            system = open_hybrid(name, whole, precision=precision)
        else:
            system = open_system(name, **limited, precision=precision)
        if any(system.name == other.name and system is not other for other in opened.values()):
            system.name = name
        opened[at] = system
        if not limited:
            whole[name] = system
    return [opened[at] for at in range(len(names))]


def _judged(source: str | None, names: list[str], columns: SharedColumns) -> Judged | None:
    """Reads the development queries of hybrid systems, if there are any, before a model is loaded."""
    if source is None:
        return None
    from spectra_nsa.evaluation.hybrid import PREFIX, read_judged

    if not any(name.startswith(PREFIX) for name in names):
        raise UsageError("--fusion-dev fits hybrid systems, but none is given: name one as hybrid:MODEL+bm25.")
    return read_judged(source, columns)


def _fitted(systems: list[System], judged: Judged | None) -> list[str]:
    """Fits the hybrid systems, if asked to, and returns notes on how they are fused."""
    from spectra_nsa.evaluation.hybrid import HybridSystem, fit_on

    hybrids = [system for system in systems if isinstance(system, HybridSystem)]
    return [system.note for system in hybrids] if judged is None else fit_on(hybrids, judged)


def _show(evaluation: Evaluation, show_all: bool) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.report.tables import main_metrics
    from spectra_nsa.report.terminal import difference_lines, terminal_tables

    out = console()
    shown = evaluation.results if show_all else main_metrics(evaluation.results)
    for table in terminal_tables(shown, width=out.width):
        out.print(table)
    for line in difference_lines([vars(difference) for difference in evaluation.differences]):
        out.print(line, markup=False, soft_wrap=True)
    for (_, name, system), panel in _panels(evaluation):
        if line := panel.line():
            out.print(f"{name} · {system} · {line}", markup=False, soft_wrap=True)
    hidden = list(dict.fromkeys(result.metric for result in evaluation.results if result not in shown))
    if hidden:
        out.print(f"Not shown without --all: {', '.join(hidden)}.", markup=False, style="dim", soft_wrap=True)
    for note in evaluation.notes:
        out.print(f"Note: {note}.", markup=False, style="dim", soft_wrap=True)


def _write_files(
    evaluation: Evaluation, document: dict[str, Any], json: str | None, markdown: Path | None, html: Path | None
) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.core.files import atomic_write, write_json

    written: list[str | Path] = []
    if json is not None:
        write_json(json, document)
        written.append(json)
    if markdown is not None:
        from spectra_nsa.report.markdown import results_table

        with atomic_write(markdown) as file:
            tables = [results_table(evaluation.results, document["differences"])]
            tables += [panel.markdown(f"{name} · {system}") for (_, name, system), panel in _panels(evaluation)]
            file.write("\n".join(table for table in tables if table))
        written.append(markdown)
    if html is not None:
        written.append(_page(evaluation, document, html))
    for path in written:
        console(stderr=True).print(f"wrote {path}", markup=False)


def _panels(evaluation: Evaluation) -> list[tuple[tuple[str, str, str], Panel]]:
    """Returns the panels of all outcomes, those of one heading together."""
    panels = [(key, panel) for key, outcome in evaluation.outcomes.items() for panel in outcome.panels]
    titles = list(dict.fromkeys(panel.title for _, panel in panels))
    return sorted(panels, key=lambda item: titles.index(item[1].title))


def _page(evaluation: Evaluation, document: dict[str, Any], path: Path) -> Path:
    from spectra_nsa.report.html import Report

    report = Report("Evaluation", lead=f"{document['model']}, measured {document['created'][:10]}.")
    report.add_table(evaluation.results, differences=document["differences"])
    for (kind, name, system), outcome in evaluation.outcomes.items():
        report.add_histogram(
            outcome.distributions, title="Cosines", caption=f"{kind} · {name} · {system}", x_label="cosine"
        )
    for (_, name, system), panel in _panels(evaluation):
        panel.add_to(report, f"{name} · {system}")
    for kind, name in dict.fromkeys(key[:2] for key in evaluation.outcomes):
        queries = {
            key[2]: outcome.queries
            for key, outcome in evaluation.outcomes.items()
            if key[:2] == (kind, name) and outcome.queries
        }
        report.add_examples(queries, title=f"Examples: {name}")
    report.add_text(*(f"{note}." for note in evaluation.notes), title="Notes")
    report.add_settings(document["environment"], title="Environment")
    return report.write(path)
