from collections import Counter
from pathlib import Path

import datasets
import pytest

from mmsr.data.loading.controls import control_rationales
from mmsr.data.loading.datamodule import MmsrDataModule


@pytest.fixture
def rows() -> datasets.Dataset:
    """60 rows of two languages and two labels; every fifth lacks a rationale, one is frequent."""
    cells = [(("en", "de")[n % 2], ("negative", "positive")[n // 2 % 2]) for n in range(60)]
    return datasets.Dataset.from_list(
        [
            {
                "id": f"u{n}",
                "language": language,
                "label": label,
                "rationale": None if n % 5 == 0 else f"{language} {label} {'often' if n % 3 else n}",
            }
            for n, (language, label) in enumerate(cells)
        ]
    )


def test_given_changes_nothing(rows):
    assert control_rationales(rows, "given", seed=0) is rows


@pytest.mark.parametrize("kind", ["permuted", "permuted_within_label"])
def test_permuted_rationales_are_those_of_other_rows(rows, kind):
    rows = rows.map(lambda row: {"rationale": row["rationale"] and row["rationale"] + " " + row["id"]})
    found = control_rationales(rows, kind, seed=0)
    assert found["id"] == rows["id"] and found["label"] == rows["label"]
    assert Counter(found["rationale"]) == Counter(rows["rationale"])
    for row, old in zip(found, rows, strict=True):
        assert (row["rationale"] is None) == (old["rationale"] is None)
        if row["rationale"] is not None:
            language, label, *_, owner = row["rationale"].split()
            assert language == row["language"] and owner != row["id"]
            if kind == "permuted_within_label":
                assert label == row["label"]
    crossed = sum(r["label"] not in r["rationale"] for r in found if r["rationale"])
    assert (crossed > 10) == (kind == "permuted")
    assert control_rationales(rows, kind, seed=0)["rationale"] == found["rationale"]
    assert control_rationales(rows, kind, seed=1)["rationale"] != found["rationale"]


def test_a_template_is_the_most_frequent_of_label_and_language(rows):
    found = control_rationales(rows, "template", seed=0)
    for row, old in zip(found, rows, strict=True):
        expected = f"{row['language']} {row['label']} often"
        assert row["rationale"] == (None if old["rationale"] is None else expected)


def test_the_data_module_replaces_those_of_training_and_development_rows_alone(tmp_path: Path):
    path = tmp_path / "m.csv"
    lines = [f"u{n},hello,negative,because {n},{('train', 'dev', 'test')[n % 3]}" for n in range(30)]
    path.write_text("\n".join(["id,text,label,rationale,split", *lines]) + "\n")
    data = MmsrDataModule(str(path), rationales="permuted")
    for split in (data.train_rows, data.dev_rows):
        owners = [int(rationale.split()[1]) for rationale in split["rationale"]]
        ids = [int(name[1:]) for name in split["id"]]
        assert sorted(owners) == sorted(ids) and not any(a == b for a, b in zip(owners, ids, strict=True))
    assert all(row["rationale"] == f"because {row['id'][1:]}" for row in data.test_rows)
    assert MmsrDataModule(str(path)).train_rows[0]["rationale"] == "because 0"


def test_unknown_controls_and_those_that_need_a_table_are_refused(rows):
    with pytest.raises(ValueError, match="rationales is 'shuffled'; accepted: given, permuted"):
        MmsrDataModule("m.csv", rationales="shuffled")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rationales is 'mixed'; accepted: given, permuted"):
        control_rationales(rows, "mixed", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="and rationales needs them all"):
        MmsrDataModule("m.csv", rationales="template", streaming=True)


def test_a_language_is_one_however_it_is_written(rows):
    mixed = rows.map(
        lambda row, n: {"language": ("German", "deu")[n // 4 % 2] if n % 2 else "en"}, with_indices=True
    )
    for kind in ("template", "permuted"):
        found = control_rationales(mixed, kind, seed=0)["rationale"]
        assert found == control_rationales(rows, kind, seed=0)["rationale"]
