"""Sentiment Reasoning for healthcare: the paper's own data, as its spreadsheets or as its Hub dataset.

The path of a file gives its language and split (`train_eng.xlsx`, `French/test-0000.parquet`). A row with the
same number in another language is a translation, and neighbouring rows are from the same recording. So the
manifest has the translations of a row side by side: a split by contiguous blocks leaks neither.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from mmsr.data.corpora.source import SENTIMENTS, SPLIT_OF, Corpus, CorpusError, Protocol, Source, Utterance
from mmsr.data.manifest.manifest import ManifestError, examine_manifest
from mmsr.data.manifest.tables import column_names
from mmsr.languages import guess_language

_LANGUAGES = ("vi", "en", "zh", "de", "fr")
_SPLITS = ("train", "dev", "test")
_COLUMNS = {"text": "text", "asr_text": "asr", "rationale": "human_justification", "label": "label"}
_TABLES = frozenset({".xlsx", ".csv", ".tsv"})
_LABEL_OF = {key: label for index, label in enumerate(SENTIMENTS) for key in (str(index), label)}


def _read_sentiment_reasoning(source: Source) -> Iterator[Utterance]:
    """Rows of the Hub dataset's parquet files (with audio) where there are any, else of the spreadsheets."""
    tables = _hub_tables(source) or _spreadsheets(source)
    if not tables:
        raise source.wrong_layout("no .xlsx, .csv, .tsv or .parquet file in it or below")
    for split in _SPLITS:
        translations = [tables[key] for key in sorted(tables) if key[0] == split]
        for position in itertools.zip_longest(*translations):
            yield from (utterance for utterance in position if utterance is not None)


def _split_and_language(source: Source, path: Path) -> tuple[str, str]:
    """Split and language in a file's path; Vietnamese if it names no language."""
    words = re.findall(r"[a-z]+", source.name(path.with_suffix("")).lower())
    splits = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    languages = {language for word in words if (language := guess_language(word)) in _LANGUAGES}
    if len(splits) != 1 or len(languages) > 1:
        found = ", ".join(sorted(splits | languages)) or "neither"
        raise source.wrong_layout(
            f"{source.name(path)} names no single split and language (found: {found}); accepted: train, dev"
            f" or test in its path, and at most one of {', '.join(_LANGUAGES)}"
        )
    return splits.pop(), languages.pop() if languages else "vi"


# ---------------------------------------------------------------------- spreadsheets


def _spreadsheets(source: Source) -> dict[tuple[str, str], Iterable[Utterance]]:
    """Rows by split and language; ASR transcripts are joined to the rows of the same text."""
    human: dict[tuple[str, str], list[Utterance]] = {}
    recognised: dict[tuple[str, str], list[Utterance]] = {}
    for path in source.paths(_TABLES):
        split, language = _split_and_language(source, path)
        rows = _read_table(source, path, split=split, language=language)
        group = recognised if any(row.asr_text for row in rows) else human
        if (split, language) in group:
            raise source.wrong_layout(f"{source.name(path)} is a second {split} table in {language!r}")
        group[split, language] = rows
    for key, rows in recognised.items():
        human[key] = _joined(source, human[key], rows) if key in human else rows
    return dict(human)


def _read_table(source: Source, path: Path, *, split: str, language: str) -> list[Utterance]:
    """A spreadsheet's rows, read as a manifest."""
    place = source.name(path)
    try:
        header = column_names(path)
        columns = {ours: theirs for ours, theirs in _COLUMNS.items() if theirs in header}
        table = examine_manifest(path, labels=SENTIMENTS, columns=columns, require=("text", "label"))
    except ManifestError as error:
        raise CorpusError(str(error)) from error
    source.read[place] += len(table.rows)
    for issue in table.issues:  # the file's name may be followed by a sheet's
        source.issues.append(dataclasses.replace(issue, file=place + issue.file.removeprefix(path.name)))
    return [
        Utterance(
            id=f"{language}-{split}-{number}",
            where=f"{place}, row {number}",
            language=language,
            split=split,
            **{column: row[column] for column in _COLUMNS},
        )
        for number, row in zip(table.numbers.tolist(), table.rows, strict=True)
    ]


def _joined(source: Source, human: list[Utterance], recognised: list[Utterance]) -> list[Utterance]:
    """ASR transcripts in the rows with their text; in a split of their own if the rows differ."""
    place = recognised[0].where.rpartition(",")[0]
    pairs = list(zip(human, recognised, strict=False))
    differing = next((asr.where for row, asr in pairs if row.text != asr.text), None)
    if differing is None and len(human) == len(recognised):
        del source.read[place]  # these rows are counted already
        source.notes.append(f"{place}: {len(recognised)} ASR transcripts joined the rows of the same text")
        return [dataclasses.replace(row, asr_text=asr.asr_text) for row, asr in pairs]
    why = differing or f"{len(recognised)} rows, not {len(human)}"
    source.notes.append(f"{place} has other rows than the human transcripts ({why}): split test_asr")
    return human + [
        dataclasses.replace(row, id=row.id.replace("-test-", "-test_asr-"), split=f"{row.split}_asr")
        for row in recognised
    ]


# ---------------------------------------------------------------------- Hub dataset


def _hub_tables(source: Source) -> dict[tuple[str, str], Iterable[Utterance]]:
    """Rows by split and language, read one at a time, since audio is large."""
    files: dict[tuple[str, str], list[Path]] = {}
    for path in source.paths({".parquet"}):
        files.setdefault(_split_and_language(source, path), []).append(path)
    return {
        (split, language): _read_shards(source, paths, split=split, language=language)
        for (split, language), paths in files.items()
    }


def _read_shards(source: Source, paths: list[Path], *, split: str, language: str) -> Iterator[Utterance]:
    number = 0
    for path in paths:
        place = source.name(path)
        for row, values in enumerate(_parquet_rows(path), start=1):
            number += 1
            source.read[place] += 1
            label = _LABEL_OF.get(str(values["label"]).lower())
            if label is None:
                accepted = f"{', '.join(SENTIMENTS)}, or their indices 0 to 2"
                problem = f"{values['label']!r} is unknown; accepted: {accepted}"
                source.issue(place, problem, row=row, column="label")
            audio = values.get("audio")
            if audio is not None:
                audio = path.parent / audio["path"] if audio["bytes"] is None else audio["bytes"]
            yield Utterance(
                id=f"{language}-{split}-{number}",
                where=f"{place}, row {row}",
                audio=audio,
                text=values["text"],
                asr_text=values.get("asr"),
                label=label,
                rationale=values.get("human_justification"),
                language=language,
                split=split,
            )


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows with class labels by name and audio as encoded bytes.

    Raises:
        CorpusError: The file is no parquet, or lacks a column.
    """
    try:
        table = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        features = table.features or {}
        if absent := [column for column in ("text", "label") if column not in features]:
            raise CorpusError(
                f"{path}: no column {', '.join(absent)}; found: {', '.join(features)};"
                f" accepted: {', '.join(_COLUMNS.values())}, audio"
            )
        if "audio" in features:
            table = table.cast_column("audio", datasets.Audio(decode=False))
        names: Sequence[str] = getattr(features["label"], "names", ())
        for row in table:
            named = isinstance(row["label"], int) and 0 <= row["label"] < len(names)
            yield {**row, "label": names[row["label"]] if named else row["label"]}
    except CorpusError:
        raise
    except Exception as error:  # a broken file shows as almost any exception
        raise CorpusError(
            f"{path}: cannot be read ({error}); accepted: a parquet file of the dataset"
        ) from error


SENTIMENT_REASONING = Corpus(
    name="sentiment-reasoning",
    read=_read_sentiment_reasoning,
    layout="spreadsheets as train.xlsx, train_eng.xlsx, test.xlsx (text, label, human_justification, asr), or"
    " the Hub dataset's parquet files, with split and language in their paths",
    home="https://huggingface.co/datasets/leduckhai/Sentiment-Reasoning",
    licence="none stated",
    protocols={
        "sentiment": Protocol(
            name="Sentiment Reasoning",
            labels=SENTIMENTS,
            # No development split is published: take contiguous blocks of the training rows.
            metrics=("macro_f1", "accuracy", "rouge1", "rouge2", "rougeL", "rougeLsum"),
            splits=("train", "test"),
            source="arXiv:2407.21054",
        )
    },
    text_alone=True,
)
