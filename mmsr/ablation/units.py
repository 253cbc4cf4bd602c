"""The units of an ablation's intervals and tests: which test rows are drawn together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mmsr.ablation.runs import Evaluation
from mmsr.ablation.spec import AblationError, Settings
from mmsr.data.manifest.manifest import COLUMNS, ManifestError, column_of, distinct, load_manifest


@dataclass(frozen=True)
class Units:
    """Which test rows are drawn as a whole in intervals and tests.

    Attributes:
        name: What a unit is called, in the plural.
        of: The number of each row's unit, by the row's id.
    """

    name: str
    of: Mapping[str, int]


def units_of(evaluation: Evaluation, data: Settings) -> Units | None:
    """The units that the evaluation asks for, of a run's manifest; None where it asks for none.

    They are no part of a run, so finished runs can be compared by other units.

    Raises:
        AblationError: The column is not there, or has not two values.
    """
    column, size = evaluation.cluster, evaluation.block_rows
    if column is None and size is None:
        return None
    columns, carrier = dict(data.get("columns") or {}), column
    if column is not None and column not in COLUMNS:
        carrier, columns = "kind", {**columns, "kind": column}  # in place of a column that is not needed
    try:
        rows = load_manifest(
            data["manifest"], columns=columns, label_map=data.get("label_map"), check_audio=False
        )
    except ManifestError as error:  # the rest of it has been read before
        reason = f"{error.issues[0].file}: {error.issues[0].problem}"
        raise AblationError(f"evaluation cluster {column!r}: {reason}; accepted: one of these") from error
    if size is not None:
        return Units(f"blocks of {size} rows", {id_: row // size for row, id_ in enumerate(rows["id"])})
    assert column is not None and carrier is not None
    if len(distinct(rows, carrier)) < 2:
        _refuse_cluster(column, data["manifest"], rows)
    numbers: dict[Any, int] = {}
    values = column_of(rows, carrier).to_pylist()
    keys = [(row,) if value is None else value for row, value in enumerate(values)]
    known = [numbers.setdefault(key, len(numbers)) for key in keys]
    return Units(f"values of {column}", dict(zip(rows["id"], known, strict=True)))


def _refuse_cluster(column: str, manifest: str, rows: Any) -> NoReturn:
    several = [name for name in COLUMNS if len(distinct(rows, name)) > 1]
    raise AblationError(
        f"evaluation cluster {column!r}: {Path(manifest).name} has not two values there; accepted: a column "
        f"that has, such as {', '.join(several)}"
    )
