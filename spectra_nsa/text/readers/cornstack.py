"""CoRNStack (Suresh et al. 2025, arXiv 2412.01007): questions about code, functions, and mined negatives.

Each language is a dataset of its own on the Hub, far larger than memory, so it is streamed. In these datasets a
`document_rank` of -1 says that the consistency filter did not find the document for its query: such rows are dropped.
The same rows also circulate in other shapes (negatives in columns, pairs, a folder of shards). Those are read like any
other source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.text.readers import hub
from spectra_nsa.text.rows import Problem, Record
from spectra_nsa.text.values import BadValue, score_value

PREFIX = "cornstack:"
PUBLISHED = ("python", "java", "javascript", "go", "php", "ruby")
DESCRIBED = ("typescript", "rust", "cpp")  # in descriptions, not among the public datasets
_RANK, _FORM = "document_rank", {"query", "document", "document_rank"}


def parse_languages(source: str) -> list[str]:
    """Returns the languages of ``cornstack:LANGUAGE,LANGUAGE``.

    Raises:
        UsageError: there is none, or an unknown one.
    """
    names = list(dict.fromkeys(name.strip() for name in source.removeprefix(PREFIX).split(",") if name.strip()))
    known = (*PUBLISHED, *DESCRIBED)
    for name in names:
        if name not in known:
            raise unknown_name("language of CoRNStack", name, known)
    if not names:
        raise UsageError(f"{source} names no language: {PREFIX}python, or several as in {PREFIX}python,go.")
    return names


def cornstack_records(languages: Sequence[str]) -> Iterator[Record]:
    """Opens the dataset of each language, and then yields their rows in turn as they arrive from the Hub.

    Rows of several languages have a column `language`.

    Raises:
        SpectraError: a language cannot be opened; the message names it and the source without it.
    """
    streams = {language: _open(language, languages) for language in languages}
    return streams[languages[0]] if len(languages) == 1 else _in_turn(streams)


def _open(language: str, languages: Sequence[str]) -> Iterator[Record]:
    name = hub.HubName(path=f"nomic-ai/cornstack-{language}-v1", split="train")
    try:
        return hub.hub_records(name, None, stream=True)[0]
    except SpectraError as error:
        described = "CoRNStack is described with it, but no public dataset of it is known. " * (language in DESCRIBED)
        rest = ",".join(other for other in languages if other != language)
        remedy = f"To read the others without it: {PREFIX}{rest}" if rest else "Leave it out, or name a folder with it."
        raise SpectraError(f"CoRNStack's {language} cannot be opened. {described}{error} {remedy}") from error


def _in_turn(streams: dict[str, Iterator[Record]]) -> Iterator[Record]:
    """Yields a row of each language in turn; one that has ended is passed over."""
    while streams:
        for language, records in list(streams.items()):
            record = next(records, None)
            if record is None:
                del streams[language]
            else:
                yield record._replace(values={**record.values, "language": language})


class RankedRows:
    """The records of a source without those that CoRNStack marks as unranked. Other records pass unchanged."""

    def __init__(self, records: Iterable[Record | Problem], source: str) -> None:
        self._records, self._source = records, source
        self.dropped = self.kept = 0

    def __iter__(self) -> Iterator[Record | Problem]:
        for item in self._records:
            if isinstance(item, Record) and _is_unranked(item):
                self.dropped += 1
            else:
                self.kept += 1
                yield item
        if self.dropped and not self.kept:
            raise SpectraError(
                f"{self._source}: {counted(self.dropped, 'row')}, and {_RANK} is -1 in all of them: no row is left."
            )

    def notes(self) -> tuple[str, ...]:
        """Returns a note on the dropped rows; call it once the records are read."""
        return (f"{counted(self.dropped, 'row')} with {_RANK} -1 dropped",) if self.dropped else ()


def _is_unranked(record: Record) -> bool:
    if not record.values.keys() >= _FORM:
        return False
    try:
        return score_value(record.values[_RANK], _RANK) < 0
    except BadValue:  # no rank at all
        return False
