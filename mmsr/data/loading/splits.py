"""Splits of a manifest: which rows are train, dev and test, or in which fold they are.

    rows ─► groups, which are never cut ─┐
                                         ├─► split or fold of each row ─► a copy of the file, and its recipe
    rows ─► strata, which are kept even ─┘

A group is a speaker, a block of consecutive rows (one recording), or a single row; groups that share a
sentence can be merged. The same rows, settings and seed give the same splits.
"""

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np

from mmsr.data.manifest.manifest import (
    Issue,
    ManifestError,
    column_of,
    distinct,
    examine_manifest,
    rows_with,
)
from mmsr.data.manifest.sentences import codes, telling_sentences
from mmsr.data.manifest.tables import check_table_output, is_blank, read_table, write_table
from mmsr.data.storage import digest
from mmsr.extras import needed_for
from mmsr.files import check_output, write_file
from mmsr.languages import unified

logger = logging.getLogger(__name__)

Split = Literal["train", "dev", "test"]
By = Literal["speaker", "block", "stratified", "leave-one-speaker-out"]

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
BLOCK_ROWS = 50
STRATIFY = ("label",)
_COLUMNS = ("label", "language", "speaker", "kind")  # that rows can be stratified by


def select_rows(
    rows: datasets.Dataset,
    *,
    split: str = "test",
    train_split: str = "train",
    dev_split: str = "dev",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    required: Collection[Split] = (),
    source: str | os.PathLike[str] = "manifest",
) -> dict[Split, datasets.Dataset]:
    """The training, development and test rows of a manifest: its splits, or those of a speaker fold.

    Args:
        rows: The rows of a manifest.
        split: Value of the column `split` in the test rows.
        train_split: Value in the training rows.
        dev_split: Value in the development rows.
        fold: Select by this fold of the speakers (see `speaker_fold`) instead of the column `split`.
        folds: Number of folds.
        dev_speakers: Number of speakers in the development rows of a fold.
        required: Splits that must have rows. If `test` is required and no row has a split, all rows are test
            rows, which is logged.
        source: The manifest, for messages.

    Returns:
        The rows of `train`, `dev` and `test`; a split that is not required may be empty.

    Raises:
        ManifestError: A row has no speaker, or there are too few speakers for the folds.
        ValueError: There is no such fold, or a required split is empty.
    """
    values: dict[Split, str] = {"train": train_split, "dev": dev_split, "test": split}
    if fold is not None:
        name = Path(source).name
        parts = speaker_fold(rows, fold=fold, folds=folds, dev_speakers=dev_speakers, source=name)
        return {part: rows.select(parts[part]) for part in values}
    numbers = {part: rows_with(rows, "split", [value]) for part, value in values.items()}
    if "test" in required and not has_splits(rows):
        logger.warning("%s: no row has a split, so all %d rows are taken", Path(source).name, len(rows))
        numbers["test"] = np.arange(len(rows))
    for part in required:
        if not len(numbers[part]):
            found = ", ".join(distinct(rows, "split")) or "none"
            raise ValueError(f"{source}, column split: no row is in {values[part]!r}; found: {found}")
    return {part: rows.select(chosen) for part, chosen in numbers.items()}


def has_splits(rows: datasets.Dataset) -> bool:
    """Whether a row has a value in the column `split`."""
    return column_of(rows, "split").null_count < len(rows)


def speaker_fold(
    rows: datasets.Dataset, *, fold: int, folds: int = 4, dev_speakers: int = 2, source: str = "manifest"
) -> dict[str, list[int]]:
    """Split rows by speaker: the sorted speakers are cut into `folds` runs, and one run is the test split.

    The next `dev_speakers` speakers, cyclically, are the development split; the others are the training
    split.

    Returns:
        Row numbers of `train`, `dev` and `test`.

    Raises:
        ManifestError: A row has no speaker, or there are too few speakers.
        ValueError: There is no such fold.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold is {fold}; accepted: 0 to {folds - 1}, since folds is {folds}")
    if nameless := column_of(rows, "speaker").null_count:
        problem = f"is missing in {nameless:,} of {len(rows):,} rows; accepted: a speaker in each, for folds"
        raise ManifestError([Issue(source, None, "speaker", problem)])
    speakers = distinct(rows, "speaker")
    start, stop = (len(speakers) * part // folds for part in (fold, fold + 1))
    others = speakers[stop:] + speakers[:start]
    if len(speakers) < folds or len(others) <= dev_speakers:
        problem = (
            f"has {len(speakers)} speakers; accepted: enough for {folds} folds,"
            f" {dev_speakers} development speakers and one to train on"
        )
        raise ManifestError([Issue(source, None, "speaker", problem)])
    chosen = {"train": others[dev_speakers:], "dev": others[:dev_speakers], "test": speakers[start:stop]}
    return {split: rows_with(rows, "speaker", names).tolist() for split, names in chosen.items()}


def split_rows(
    rows: datasets.Dataset,
    *,
    by: By,
    shares: Mapping[str, float] | None = None,
    stratify: Sequence[str] = STRATIFY,
    block_rows: int = BLOCK_ROWS,
    keep_texts: bool = False,
    seed: int = 0,
    source: str = "manifest",
) -> np.ndarray:
    """Assign rows to splits.

    Single rows are sampled systematically, so that every stratum is within a row or two of its share. Groups
    are assigned roughly from the largest to the smallest, each to the split where the counts of all strata
    come nearest to their shares (as in scikit-learn's StratifiedGroupKFold, for unequal shares). No split
    stays empty.

    Args:
        rows: A manifest's rows, in the file's order.
        by: The groups that are never cut.
        shares: Name and share of each split, any positive numbers; SHARES by default.
        stratify: Columns whose values have equal shares in all splits, as far as the groups allow.
        block_rows: Rows of a block.
        keep_texts: Whether to merge groups that share a sentence.
        seed: Seed of the order of the groups.
        source: The manifest's name in errors.

    Returns:
        Name `[n]` of each row's split.

    Raises:
        ManifestError: A row has no speaker, or there are fewer groups than splits.
        ValueError: A share is not positive, a column cannot be stratified by, or `by` makes folds.
    """
    if by == "leave-one-speaker-out":
        raise ValueError("--by leave-one-speaker-out makes folds; accepted: --by speaker for splits")
    shares = dict(SHARES if shares is None else shares)
    if wrong := [name for name, share in shares.items() if not share > 0]:
        raise ValueError(f"--shares {wrong[0]}={shares[wrong[0]]}; accepted: a positive number")
    groups = _groups(rows, by=by, block_rows=block_rows, keep_texts=keep_texts, source=source)
    _, groups = np.unique(groups, return_inverse=True)
    _enough(groups, len(shares), f"the {len(shares)} splits {', '.join(shares)}", by=by, source=source)
    parts = np.array(list(shares.values())) / sum(shares.values())
    rng = np.random.default_rng(seed)
    strata = _strata(rows, stratify)
    single = len(rows) == groups.max() + 1
    dealt = _deal_rows(strata, parts, rng) if single else _deal_groups(groups, strata, parts, rng)
    return np.array(list(shares))[dealt]


def fold_rows(
    rows: datasets.Dataset,
    *,
    by: By,
    folds: int | None = None,
    stratify: Sequence[str] = STRATIFY,
    block_rows: int = BLOCK_ROWS,
    keep_texts: bool = False,
    seed: int = 0,
    source: str = "manifest",
) -> np.ndarray:
    """Assign rows to folds of similar size and strata, by scikit-learn.

    By speaker and without strata, the folds are those of `mmsr fit --data.fold` (`speaker_fold`). The
    arguments are those of `split_rows`, except `folds`, which leave-one-speaker-out counts itself.

    Returns:
        Number `[n]` of each row's fold.

    Raises:
        ManifestError: A row has no speaker, or there are fewer groups than folds.
        ValueError: There are fewer than two folds, or a column cannot be stratified by.
    """
    if by == "leave-one-speaker-out":
        groups = _groups(rows, by="speaker", block_rows=block_rows, keep_texts=False, source=source)
        _enough(groups, 2, "folds", by=by, source=source)
        return np.unique(column_of(rows, "speaker").to_pylist(), return_inverse=True)[1]
    if folds is None or folds < 2:
        raise ValueError(f"--folds is {folds}; accepted: 2 or more")
    groups = _groups(rows, by=by, block_rows=block_rows, keep_texts=keep_texts, source=source)
    _enough(groups, folds, f"{folds} folds", by=by, source=source)
    numbers = np.zeros(len(rows), dtype=np.int64)
    if by == "speaker" and not stratify and not keep_texts:
        for fold in range(folds):
            parts = speaker_fold(rows, fold=fold, folds=folds, dev_speakers=0, source=source)
            numbers[parts["test"]] = fold
        return numbers
    with needed_for("--folds"):
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    single = by == "stratified" and not keep_texts
    cut = (StratifiedKFold if single else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    strata = _strata(rows, stratify)
    if np.bincount(strata).max() < folds:
        raise ValueError(
            f"no value of {', '.join(stratify)} has {folds} rows;"
            " accepted: fewer --folds or --stratify columns"
        )
    for fold, (_, test) in enumerate(cut.split(np.zeros(len(rows)), strata, None if single else groups)):
        numbers[test] = fold
    return numbers


def splits_of_fold(folds: np.ndarray, fold: int) -> np.ndarray:
    """Name `[n]` of each row's split: a fold is test, the next one, cyclically, is dev, the others are train.

    Raises:
        ValueError: There is no such fold, or there are fewer than three.
    """
    count = int(folds.max()) + 1
    if not 0 <= fold < count or count < 3:
        raise ValueError(f"--fold is {fold} of {count}; accepted: 0 to {count - 1}, of three folds or more")
    return np.select([folds == fold, folds == (fold + 1) % count], ["test", "dev"], "train")


def split_manifest(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    by: By,
    shares: Mapping[str, float] | None = None,
    folds: int | None = None,
    fold: int | None = None,
    replace_column: bool = False,
    columns: Mapping[str, str] | None = None,
    command: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write a copy of a manifest with a new column `split` or `fold`, and a recipe beside it.

    All other columns stay as they were; audio paths are relative to the copy. The recipe is the file
    `<out's stem>.split.json`.

    Args:
        source: A csv, tsv, jsonl, parquet or xlsx file without issues.
        out: The copy, in any of these formats.
        by: The groups that are never cut.
        shares: As for `split_rows`; not with `folds`.
        folds: Make folds, and write their numbers into the column `fold`.
        fold: Write the splits of this fold into the column `split` (see `splits_of_fold`).
        replace_column: Whether to replace values that the column has.
        columns: Names of columns in the file, if they differ.
        command: The command line, for the recipe.
        **settings: `stratify`, `block_rows`, `keep_texts` and `seed` of `split_rows`.

    Returns:
        The recipe: settings, seed, digests of source and copy, rows, speakers, labels and languages of each
        split.

    Raises:
        ManifestError: The manifest has issues (audio files are not opened), too few groups, or values in the
            column.
        ValueError: Settings do not go together, or an ending is unknown.
    """
    source, out = Path(source), Path(out)
    check_table_output(out)
    check_output(out.with_suffix(".split.json"), inputs=[source])
    making_folds = folds is not None or by == "leave-one-speaker-out"
    if making_folds and shares is not None:
        raise ValueError("--shares and folds do not go together; accepted: one of the two")
    if fold is not None and not making_folds:
        raise ValueError("--fold needs --folds, or --by leave-one-speaker-out")
    examined = examine_manifest(source, columns=columns, check_audio=False)
    if examined.issues:
        raise ManifestError(examined.issues)
    options: dict[str, Any] = {"by": by, "source": source.name, **settings}
    if making_folds:
        numbers = fold_rows(examined.rows, folds=folds, **options)
        made = numbers if fold is None else splits_of_fold(numbers, fold)
    else:
        made = split_rows(examined.rows, shares=shares, **options)
    column = "split" if not making_folds or fold is not None else "fold"
    name = (columns or {}).get(column, column)
    values = made.astype(str).tolist()
    table = read_table(source)
    there = sum(not is_blank(row.get(name)) for row in table.rows)
    if there and not replace_column:
        problem = f"has values in {there:,} rows already; accepted: --replace, and the copy loses them"
        raise ManifestError([Issue(source.name, None, name, problem)])
    if not np.array_equal(table.numbers, examined.numbers):
        raise ValueError(f"{source}: its blank rows cannot be distinguished; accepted: a file without them")
    before = digest(str(source)).hex()  # the copy may replace it
    copy = table.filled(name, dict(zip(table.numbers, values, strict=True)))
    if source.parent.resolve() != out.parent.resolve():
        copy = copy.moved((columns or {}).get("audio", "audio"), source.parent, out.parent)
    if copy.schema is not None and name in copy.schema.names:  # its type may be a number
        copy = replace(copy, schema=copy.schema.remove(copy.schema.get_field_index(name)))
    write_table(out, copy)
    recipe = {
        "manifest": out.name,
        "column": column,
        "by": by,
        **({} if making_folds else {"shares": dict(shares or SHARES)}),
        **({"folds": int(numbers.max()) + 1, "fold": fold} if making_folds else {}),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "counts": _counts(examined.rows, values),
        "sha256": digest(str(out)).hex(),
        "source": {"manifest": os.path.relpath(source, out.parent), "sha256": before},
        "command": command,
    }
    text = json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
    write_file(out.with_suffix(".split.json"), text.encode())
    return recipe


# ---------------------------------------------------------------------- groups and strata


_NEEDS_SPEAKERS = "accepted: a speaker in each; or, where a voice may be in two splits, --by block"


def _groups(rows: datasets.Dataset, *, by: By, block_rows: int, keep_texts: bool, source: str) -> np.ndarray:
    """Number `[n]` of each row's group."""
    if block_rows < 1:
        raise ValueError(f"--block-rows is {block_rows}; accepted: 1 or more")
    if by == "speaker":
        groups, _ = codes(column_of(rows, "speaker"))
        if nameless := int((groups < 0).sum()):
            first = int(np.flatnonzero(groups < 0)[0]) + 1
            missing = f"is missing in {nameless:,} of {len(rows):,} rows, first in row {first:,}"
            problem = f"{missing}; {_NEEDS_SPEAKERS}"
            raise ManifestError([Issue(source, None, "speaker", problem, code="value-missing")])
    else:
        groups = np.arange(len(rows)) // (block_rows if by == "block" else 1)
    return _united(groups, codes(telling_sentences(column_of(rows, "text")))[0]) if keep_texts else groups


def _united(groups: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """Groups `[n]`, merged if their rows share a sentence (-1: none): connected components of a graph."""
    with needed_for("--keep-texts"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    known = sentences >= 0
    size = int(groups.max()) + 1
    nodes = size + int(sentences.max(initial=-1)) + 1
    edges = (groups[known], size + sentences[known])
    graph = coo_array((np.ones(known.sum()), edges), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][groups]


def _enough(groups: np.ndarray, wanted: int, what: str, *, by: By, source: str) -> None:
    if (count := len(np.unique(groups))) < wanted:
        kind = {"block": "blocks of rows", "stratified": "rows"}.get(by, "speakers")
        problem = f"has {count} {kind} that can be parted; accepted: enough for {what}"
        raise ManifestError([Issue(source, None, None if kind != "speakers" else "speaker", problem)])


def _strata(rows: datasets.Dataset, columns: Sequence[str]) -> np.ndarray:
    """Number `[n]` of each row's stratum, its values in the columns; a missing value is one too."""
    strata = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        if column not in _COLUMNS:
            raise ValueError(f"--stratify {column}; accepted: {', '.join(_COLUMNS)}")
        values, names = codes(column_of(rows, column))
        if column == "language":  # by its first name, -1 without one
            first = [names.index(name) for name in unified(names) if name is not None]
            values = np.array([*first, -1])[values]
        strata = np.unique(strata * (len(names) + 1) + values + 1, return_inverse=True)[1]
    return strata


def _deal_rows(strata: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number `[n]` of each row's split, by the shares `[k]`: systematic sampling of the rows by stratum."""
    split = np.full(len(strata), int(shares.argmax()))
    left = np.lexsort((rng.random(len(strata)), strata))  # by stratum, in random order within each
    quotas = _whole(shares * len(strata)).astype(int)
    for part in np.argsort(shares, kind="stable"):
        if part != shares.argmax():  # this one keeps the rest
            places = ((np.arange(quotas[part]) + 0.5) * len(left) / quotas[part]).astype(int)
            split[left[places]] = part
            left = np.delete(left, places)
    return split


def _deal_groups(
    groups: np.ndarray, strata: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Number `[n]` of each row's split, by the shares `[k]`: each group goes where it fits best."""
    counts = np.zeros((int(groups.max()) + 1, int(strata.max()) + 2))  # [groups, strata and all]
    np.add.at(counts, (groups, strata), 1)
    counts[:, -1] = counts.sum(axis=1)
    goal = shares[:, None] * counts.sum(axis=0)
    filled = np.zeros_like(goal)
    split = np.zeros(len(counts), dtype=np.int64)
    # the largest first, since small ones even out the rest; roughly, so that the seed matters
    order = np.argsort(-counts[:, -1] * rng.uniform(0.6, 1.4, len(counts)), kind="stable")
    for place, group in enumerate(order):
        own = counts[group]
        cost = (own * (2 * (filled - goal) + own) / goal).sum(axis=1)  # increase of the distance to the goal
        empty = filled[:, -1] == 0
        if len(order) - place <= empty.sum():
            cost[~empty] = np.inf
        split[group] = chosen = int(cost.argmin())
        filled[chosen] += own
    return split[groups]


def _whole(parts: np.ndarray) -> np.ndarray:
    """Integers of the same sum, by largest remainder; none is 0."""
    whole = np.floor(parts + 1e-9)
    remainders = np.argsort(whole - parts, kind="stable")
    whole[remainders[: round(parts.sum() - whole.sum())]] += 1
    while (whole == 0).any():
        whole[whole.argmax()] -= 1
        whole[whole.argmin()] += 1
    return whole


def _counts(rows: datasets.Dataset, values: Sequence[str]) -> dict[str, Any]:
    """Rows and speakers of each split, and its rows by label and language."""
    made = np.array(values)
    counts: dict[str, Any] = {}
    for split in sorted(set(values), key=lambda name: (int(name) if name.isdecimal() else 0, name)):
        entry: dict[str, Any] = {"rows": int((made == split).sum())}
        for column in ("speaker", "label", "language"):
            numbers, names = codes(column_of(rows, column))
            here = np.bincount(numbers[(made == split) & (numbers >= 0)], minlength=len(names))
            if column == "speaker":
                entry["speakers"] = int((here > 0).sum())
            else:
                entry[column] = {name: int(count) for name, count in sorted(zip(names, here, strict=True))}
        counts[split] = entry
    return counts
