"""Units: the test rows that an ablation's intervals and tests draw together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.ablation.spec import AblationError, Evaluation, Settings
from mmsr.data.manifest.manifest import COLUMNS, ManifestError, column_of, distinct, load_manifest


@dataclass(frozen=True)
class Units:
    """Groups of test rows that are drawn as wholes."""

    name: str  # in the plural
    of: Mapping[str, int]  # the number of each row's unit, by the row's id


def units_of(evaluation: Evaluation, data: Settings) -> Units | None:
    """Read the units of an evaluation from a run's manifest; None if it names none.

    They are no part of a run, so finished runs can be compared by other units.

    Raises:
        AblationError: The manifest lacks the column, or the column has fewer than two values.
    """
    column, size = evaluation.cluster, evaluation.block_rows
    if column is None and size is None:
        return None
    columns, carrier = dict(data.get("columns") or {}), column
    if column is not None and column not in COLUMNS:
        carrier, columns = "kind", {**columns, "kind": column}  # in place of another column
    try:
        rows = load_manifest(
            data["manifest"], columns=columns, label_map=data.get("label_map"), check_audio=False
        )
    except ManifestError as error:  # the other columns were read before
        reason = f"{error.issues[0].file}: {error.issues[0].problem}"
        raise AblationError(f"evaluation cluster {column!r}: {reason}; accepted: one of these") from error
    if size is not None:
        return Units(f"blocks of {size} rows", {id_: row // size for row, id_ in enumerate(rows["id"])})
    assert column is not None and carrier is not None
    if len(distinct(rows, carrier)) < 2:
        several = [name for name in COLUMNS if len(distinct(rows, name)) > 1]
        raise AblationError(
            f"evaluation cluster {column!r}: {Path(data['manifest']).name} has not two values there; "
            f"accepted: a column that has, such as {', '.join(several)}"
        )
    numbers: dict[Any, int] = {}
    values = column_of(rows, carrier).to_pylist()
    keys = [(row,) if value is None else value for row, value in enumerate(values)]
    known = [numbers.setdefault(key, len(numbers)) for key in keys]
    return Units(f"values of {column}", dict(zip(rows["id"], known, strict=True)))
