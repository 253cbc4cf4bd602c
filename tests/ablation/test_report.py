"""The paragraph and the table."""

import json

from mmsr.ablation.report import paragraph, table


def test_the_paragraph_is_made_of_the_numbers(finished):
    results = json.loads(json.dumps(finished[1]))
    results["variants"]["text_only"]["difference"] |= {
        "mean": -0.25,
        "interval": [-0.4, -0.1],
        "p_holm": 0.004,
    }
    results["variants"]["text_only"]["seconds_an_epoch"] = 0.25
    text = paragraph(results)
    assert (
        "1 of 1 differ from it beyond a Holm-corrected 0.05: `text_only` -0.250 [-0.400, -0.100], p .004"
        in text
    )
    assert "Cheapest is `text_only` with 0.2 s an epoch" in text
    results["variants"]["text_only"]["difference"]["p_holm"] = 0.05
    assert "0 of 1 differ from it beyond a Holm-corrected 0.05." in paragraph(results)
    assert "| reference |" in table(results) and "-0.250" in table(results)
    assert "another seed may differ" not in text
    assert "by which alone one may choose, `" in text
    results["variants"]["text_only"]["settings"]["data.train_languages"] = ["de"]
    assert "by which alone" not in paragraph(results)
    assert "development rows differ (data.train_languages)" in paragraph(results)
    for figures in results["variants"].values():
        figures["runs"] = figures["runs"][:1]
    assert "There is one run of each" in paragraph(results)


def test_captions_say_what_is_shown_and_columns_are_chosen(finished):
    results = json.loads(json.dumps(finished[1]))
    caption = table(results).splitlines()[0]
    seeds = ", ".join(map(str, results["seeds"]))
    assert caption.startswith("macro-F1 of each variant on test rows, ") and seeds in caption
    difference = results["variants"]["text_only"]["difference"]
    assert (
        f"Difference: from concat on the same {difference['n']} rows, paired; interval and p over" in caption
    )
    assert caption.endswith(f" Data {results['data_fingerprints'][0]}.")
    latex = table(results, "latex")
    assert r"\label{tab:test}" in latex and "reads" not in latex and "difference" in latex
    latex = table(results, "latex", ["trained", "difference"])
    assert r"variant & trained & {difference} \\" in latex or r"variant & trained & difference \\" in latex


def test_columns_of_words_are_set_to_the_left(finished):
    names, sides = (line.split(" | ") for line in table(finished[1]).splitlines()[2:4])
    assert names[1] == "reads" and sides[1] == "---"
    assert names[2] == "macro-F1 (test)" and sides[2] == "---:"
