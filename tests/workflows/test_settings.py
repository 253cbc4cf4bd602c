"""Settings that workflows and commands share."""

import subprocess
import sys

import pytest

from mmsr.workflows.settings import ComparisonSettings, Measures


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conformal": 90}, "--conformal 90; accepted: above 0 and below 1"),
        ({"bertscore_layer": 2}, "--bertscore-layer is a layer of an encoder; accepted: with --bertscore"),
        ({"slice_table": "t.csv"}, "--slice-table t.csv; accepted: with --slices COLUMN"),
    ],
)
def test_measures_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Measures(**settings)


@pytest.mark.parametrize("cluster", [None, "none"])
def test_a_table_of_clusters_needs_a_column(cluster):
    with pytest.raises(
        ValueError, match="--cluster-table has a column of clusters; accepted: with --cluster"
    ):
        ComparisonSettings(cluster=cluster, cluster_table="t.csv")


def test_reading_the_settings_imports_nothing_heavy():
    code = "import sys, mmsr.workflows.settings; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
