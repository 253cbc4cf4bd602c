"""Settings of the workflows, which are flags of their commands: nothing heavy is imported here.

The text of an attribute is the help of its flag.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsr.data.loading.splits import Split


@dataclass(frozen=True)
class Rows:
    """Which rows of which manifest: those of a split, or those of a speaker fold.

    Attributes:
        manifest: Table of utterances with labels.
        split: Rows to test, by the manifest's column `split`; all rows if it has no values.
        train_split: Rows that baselines and judges learn from.
        dev_split: Rows that label sets and temperatures are fitted to.
        fold: Take the rows of this speaker fold instead of a split, as in training with --data.fold.
        folds: Number of folds.
        dev_speakers: Number of speakers in the development rows of a fold, as in training.
        columns: Names that columns have in this manifest, such as text=transcript.
        label_map: Names that labels have in this manifest, such as pos=positive.
    """

    manifest: str | Path
    _: KW_ONLY
    split: str = "test"
    train_split: str = "train"
    dev_split: str = "dev"
    fold: int | None = None
    folds: int = 4
    dev_speakers: int = 2
    columns: Mapping[str, str] | None = None
    label_map: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What an evaluation measures, beside the metrics that it always has.

    Attributes:
        conditions: Inputs to try, such as audio+text text; by default all that the rows allow.
        conformal: Make label sets too, which hold the true label in this share of rows, such as 0.9.
        bertscore: Judge rationales by BERTScore too, with this text encoder: folder or Hub id.
        bertscore_layer: Layer of the encoder, from 1; by default the one that BERTScore's authors chose for a
            model of that name, and the last layer of any other.
        slices: Slice the metrics by these columns of the manifest too, such as gender age, beside language,
            kind, speaker and the lengths of audio and transcript.
        slice_table: Table with id and these columns, where the manifest does not have them.
        slice_rows: Number of rows that a slice needs to be named as the worst.

    Raises:
        ValueError: `conformal` is not between 0 and 1, or a setting lacks the one that it belongs to.
    """

    conditions: Sequence[str] | None = None
    conformal: float | None = None
    bertscore: str | None = None
    bertscore_layer: int | None = None
    slices: Sequence[str] | None = None
    slice_table: str | Path | None = None
    slice_rows: int = 30

    @property
    def splits(self) -> list["Split"]:
        """The splits that must have rows."""
        return ["test"] if self.conformal is None else ["test", "dev"]

    def __post_init__(self) -> None:
        if self.conformal is not None and not 0 < self.conformal < 1:
            raise ValueError(f"--conformal {self.conformal:g}; accepted: above 0 and below 1, such as 0.9")
        if self.bertscore_layer is not None and self.bertscore is None:
            raise ValueError("--bertscore-layer is a layer of an encoder; accepted: with --bertscore ENCODER")
        if self.slice_table is not None and not self.slices:
            raise ValueError(f"--slice-table {self.slice_table}; accepted: with --slices COLUMN ...")


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How rows are made worse.

    Attributes:
        kinds: Perturbations to try; by default all that the rows allow.
        severities: Other severities than the usual ones, such as noise=20,0 codec=gsm.
        confusions: Errors of a recogniser, for wer: a manifest with asr_text beside text, or a
            confusions.json of `mmsr data degrade`; by default words are replaced by others of the manifest in
            their language.
        noise: Folder of recorded noise; by default pink noise is made.
    """

    kinds: Sequence[str] | None = None
    severities: Mapping[str, Sequence[str]] | None = None
    confusions: str | Path | None = None
    noise: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How runs are compared.

    Attributes:
        metric: accuracy, macro_f1, macro_f1_present (over the labels that are true in some row), weighted_f1,
            uar; or of rationales rouge1, rouge2, rougeL, rougeLsum, each with _ascii too, rationale_exact,
            chrf (the mean over rows), length.
        condition: Condition of the rows, such as audio+text; by default the first that all runs have.
        cluster: Column whose values are resampled and swapped whole, or none for rows; by default speaker
            where every row has one and there are more than five.
        cluster_table: Table with columns id and the one of --cluster, where predictions do not have it, such
            as the manifest, or segments.csv of `mmsr data segment` for recording.
        common: Leave out rows that a run has no answer to, instead of refusing them.
        all_pairs: Compare each run with each other.
        resamples: Resamples of the bootstrap and of the permutation test.
        seed: Seed of both.

    Raises:
        ValueError: `cluster_table` without `cluster`.
    """

    metric: str = "macro_f1"
    condition: str | None = None
    cluster: str | None = None
    cluster_table: str | Path | None = None
    common: bool = False
    all_pairs: bool = False
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cluster_table is not None and self.cluster in (None, "none"):
            raise ValueError("--cluster-table has a column of clusters; accepted: with --cluster COLUMN")
