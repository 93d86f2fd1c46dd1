"""What a task shows besides its figures: histograms, curves, bars, texts; as HTML, Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spectra_nsa.report.format import escaped, number
from spectra_nsa.report.html import Report
from spectra_nsa.report.svg import Bar, Point

_LINE = 8  # bars in a line of the terminal


class Panel(Protocol):
    """A part of a report on one system and one task; `caption` names both. Panels of one title are shown together."""

    @property
    def title(self) -> str: ...

    def add_to(self, report: Report, caption: str) -> None:
        """Adds it to an HTML report."""
        ...

    def markdown(self, caption: str) -> str:
        """Returns it as Markdown that ends with a line break; ``""`` if it is only a picture."""
        ...

    def line(self) -> str:
        """Returns it as a line for the terminal; ``""`` if it is only a picture."""
        ...


class _Picture:
    def markdown(self, caption: str) -> str:
        """Returns nothing."""
        return ""

    def line(self) -> str:
        """Returns nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class HistogramPanel(_Picture):
    """Overlaid histograms: group → values."""

    title: str
    groups: Mapping[str, Iterable[float]]
    x_label: str

    def add_to(self, report: Report, caption: str) -> None:
        """Adds it to an HTML report."""
        report.add_histogram(self.groups, x_label=self.x_label, title=self.title, caption=caption)


@dataclass(frozen=True, kw_only=True)
class CurvePanel(_Picture):
    """One curve."""

    title: str
    points: Sequence[Point]
    x_label: str
    log_x: bool = False

    def add_to(self, report: Report, caption: str) -> None:
        """Adds it to an HTML report."""
        charts = {caption: {caption: self.points}}
        report.add_lines(charts, title=self.title, x_label=self.x_label, log_x=self.log_x)


@dataclass(frozen=True, kw_only=True)
class BarsPanel:
    """Bars of two colors, from the longest to the shortest.

    Attributes:
        title: the section's heading.
        label: what this chart is about, after the caption; ``""`` for nothing.
        bars: the bars.
        x_label: what their lengths are.
        names: what the two colors stand for; empty for no legend.
        sign: what stands before names of the second color in the terminal.
        columns: heading of the names and of the hover texts in Markdown.
    """

    title: str
    bars: Sequence[Bar]
    x_label: str
    label: str = ""
    names: Sequence[str] = ()
    sign: str = ""
    columns: tuple[str, str] = ("term", "")

    def add_to(self, report: Report, caption: str) -> None:
        """Adds it to an HTML report."""
        report.add_bars(
            self.bars, x_label=self.x_label, title=self.title, caption=_joined(caption, self.label), names=self.names
        )

    def markdown(self, caption: str) -> str:
        """Returns a table of the bars."""
        if not self.bars:
            return ""
        first, last = self.columns
        lines = [
            f"**{escaped(_joined(f'{self.title} · {caption}', self.label))}**",
            "",
            f"| {first} | {self.x_label} |" + (f" {last} |" if last else ""),
            "|---|---:|" + ("---|" if last else ""),
        ]
        for bar in self.bars:
            cells = [escaped(bar.name), number(bar.value), *([escaped(bar.title)] if last else [])]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def line(self) -> str:
        """Returns the first bars in one line."""
        shown = ", ".join(
            f"{self.sign if bar.marked else ''}{bar.name} {number(bar.value)}" for bar in self.bars[:_LINE]
        )
        return f"{self.label or self.title}: {shown}" if shown else ""


@dataclass(frozen=True, kw_only=True)
class TextPanel:
    """A text with a number for each of its pieces, and bars about it.

    Attributes:
        bars: the bars; their title and label are the panel's.
        pieces: see `Report.add_heat`.
    """

    bars: BarsPanel
    pieces: Sequence[tuple[str, float, str]]

    @property
    def title(self) -> str:
        """The section's heading."""
        return self.bars.title

    def add_to(self, report: Report, caption: str) -> None:
        """Adds the text, and the bars below it, to an HTML report."""
        report.add_heat(self.pieces, title=self.title, caption=_joined(caption, self.bars.label))
        report.add_bars(self.bars.bars, x_label=self.bars.x_label, title=self.title, names=self.bars.names)

    def markdown(self, caption: str) -> str:
        """Returns a table of the bars."""
        return self.bars.markdown(caption)

    def line(self) -> str:
        """Returns the first bars in one line."""
        return self.bars.line()


def _joined(caption: str, label: str) -> str:
    return f"{caption} · {label}" if caption and label else caption or label
