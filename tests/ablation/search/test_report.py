"""The sentences and the table of a search."""

from mmsr.ablation.search.report import paragraph, table

CONFIRMED = {
    "metric": "macro_f1",
    "seeds": [1, 2],
    "variants": {"default": {"mean": 0.5}, "best": {"mean": 0.6}},
    "difference": {
        "mean": 0.1,
        "interval": [0.02, 0.18],
        "p_value": 0.01,
        "n": 40,
        "over": "speakers and seeds",
        "seeds": [1, 2],
    },
    "failed": [],
    "held_back": False,
}


def test_the_gain_is_real_where_the_interval_says_so(reported):
    _, results = reported
    said = paragraph({**results, "confirmation": CONFIRMED})
    assert "On 40 test rows, which chose nothing, with 2 new seeds: macro-F1 0.600 against" in said
    assert "difference +0.100 [+0.020, +0.180] (95 % over speakers and seeds), p .010." in said
    assert "The gain is real" in said
    difference = {**CONFIRMED["difference"], "interval": [-0.02, 0.22]}
    assert "not shown to be real" in paragraph(
        {**results, "confirmation": {**CONFIRMED, "difference": difference}}
    )
    difference = {**CONFIRMED["difference"], "interval": [-0.2, -0.02]}
    assert "The default is better there" in paragraph(
        {**results, "confirmation": {**CONFIRMED, "difference": difference}}
    )
    held = {**results, "confirmation": {**CONFIRMED, "held_back": True}}
    assert "On 40 held-back development rows" in paragraph(held)


def test_the_table_has_the_best_first_and_always_the_default(reported):
    _, results = reported
    lines = table(results, shown=3).splitlines()[2:]
    ranked = sorted(results["trials"], key=lambda one: -one["value"])
    assert lines[2].startswith(f"| {ranked[0]['number']} | {ranked[0]['value']:.4f} |")
    default = next(line for line in lines if line.startswith("| 0 (default) |"))
    assert "| 0.8000 | – | 0.001 | – |" in default
    assert len(lines) == 2 + 3 + (results["trials"][0] not in ranked[:3])
    assert len(table(results).splitlines()) == 2 + 2 + 12
