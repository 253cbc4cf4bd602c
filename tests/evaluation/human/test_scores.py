"""Scores of ratings, and their report."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mmsr.cli.main import main
from mmsr.evaluation.human.ratings import read_key, read_ratings
from mmsr.evaluation.human.scores import crossed_standard_error, items_needed, score
from mmsr.evaluation.human.sheet import CRITERIA
from mmsr.evaluation.report.pictures import draw_ratings, rendered
from mmsr.evaluation.significance import minimum_detectable_difference


def test_an_error_over_items_and_raters_is_that_of_the_variance_components() -> None:
    generator = np.random.default_rng(0)
    raters, items = 12, 60
    effects = generator.normal(size=raters)[:, None] + 0.5 * generator.normal(size=items)
    values = effects + 0.5 * generator.normal(size=(raters, items))
    rater, item = np.indices(values.shape)
    crossed = crossed_standard_error(values.ravel(), items=item.ravel(), raters=rater.ravel())
    of_rater, of_item = values.mean(axis=1).var(ddof=1) / raters, values.mean(axis=0).var(ddof=1) / items
    assert crossed == pytest.approx(np.sqrt(of_rater + of_item), rel=0.05)
    with pytest.raises(ValueError, match="60 items and 1 raters; accepted: two or more of each"):
        crossed_standard_error(values[0], items=item[0], raters=rater[0])


def test_items_needed_are_the_fewest_that_suffice() -> None:
    for error, units, target in ((0.2, 30, 0.5), (0.2, 30, 0.1), (0.001, 30, 0.5)):
        needed = items_needed(error, units=units, difference=target)
        detectable = [
            minimum_detectable_difference(error * np.sqrt(units / n), units=n)
            for n in (needed, needed - 1)
            if n > 1
        ]
        assert detectable[0] <= target and all(value > target for value in detectable[1:])


def test_scores_say_who_is_better(
    make, filled, write, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _ = make(corpus, "kit", *"--items 12 --raters 3 --repeats 2".split())
    files = [
        write(corpus / f"{n}.json", filled(key, sheet, f"rater {n}", noise=n))
        for n, sheet in enumerate(key["sheets"])
    ]
    capsys.readouterr()
    where = ["--key", str(corpus / "kit" / "key.json")]
    main(["human", "score", *files, *where, "--json", "--out", str(corpus / "scores")])
    found = json.loads(capsys.readouterr().out)
    means = {(one["system"], one["criterion"]): one for one in found["figures"]}
    by_hand: dict[tuple[str, str], list[int]] = {}
    for file, sheet in zip(files, key["sheets"].values(), strict=True):
        for one, given in zip(sheet["items"], json.loads(Path(file).read_text())["items"], strict=True):
            for side in ("left", "right") if not one["repeat"] else ():
                for name, value in given[side].items():
                    by_hand.setdefault((one[side], name), []).append(value)
    each = {(system, name) for system in ("fused", "worded") for name in CRITERIA}
    assert set(means) == set(by_hand) == each
    for which, values in by_hand.items():
        assert means[which]["mean"] == pytest.approx(np.mean(values))
        assert (means[which]["items"], means[which]["ratings"]) == (12, 36)
    contrasts = {one["measure"]: one for one in found["contrasts"]}
    assert list(contrasts) == [*CRITERIA, "preference"]
    for name in CRITERIA:
        one = contrasts[name]
        assert one["difference"] == pytest.approx(
            np.mean(by_hand["fused", name]) - np.mean(by_hand["worded", name])
        )
        assert one["interval"][0] < one["difference"] < one["interval"][1]
        assert one["interval_raters"][0] < one["interval"][0]  # two degrees of freedom
        assert -4 <= one["interval_raters"][0] and one["interval_raters"][1] <= 4
        assert one["p_value"] <= one["p_holm"] and one["wins"] + one["ties"] + one["losses"] == 12
        assert one["items_needed"]["0.5"] < one["items_needed"]["0.25"]
    preference = contrasts["preference"]
    assert (preference["wins"], preference["losses"], preference["test"]) == (12, 0, "sign")
    assert preference["p_value"] == pytest.approx(stats.binomtest(12, 12).pvalue)
    assert preference["p_holm"] == pytest.approx(4 * preference["p_value"])
    assert found["agreement"]["preference"] == {"alpha": None, "interval": None, "units": 12}
    assert found["agreement"]["clarity"]["units"] == 24
    sides = [
        one["left"] == "fused"
        for sheet in key["sheets"].values()
        for one in sheet["items"]
        if not one["repeat"]
    ]
    assert (found["sides"]["left"], found["sides"]["right"]) == (sum(sides), 36 - sum(sides))
    steady, unsteady, _ = found["raters"]
    assert (steady["repeats"], steady["same_preference"], steady["mean_change"]) == (2, 1.0, 0.0)
    assert unsteady["mean_change"] > 0 and steady["seconds"] == 9.5 and steady["unheard"] == 0
    text = (corpus / "scores" / "report.md").read_text("utf-8")
    assert "| fused - worded | preference | 1.00 | 0.00 | +1.00 [+1.00, +1.00] |" in text
    assert "12 / 0 / 0" in text and "tells nothing" not in text
    assert (corpus / "scores" / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_two_raters_tell_nothing_of_others(
    make, filled, write, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _ = make(corpus, "kit", *"--items 12 --raters 2 --differing".split())
    ratings = [filled(key, sheet, f"rater {n}") for n, sheet in enumerate(key["sheets"])]
    for one in ratings[1]["items"]:  # who disagrees with the first in everything
        one["left"], one["right"] = one["right"], one["left"]
        one["preference"] = {"left": "right", "right": "left"}[one["preference"]]
    files = [write(corpus / f"{n}.json", content) for n, content in enumerate(ratings)]
    capsys.readouterr()
    where = ["--key", str(corpus / "kit" / "key.json"), "--out", str(corpus / "scores")]
    main(["human", "score", *files, *where])
    told = capsys.readouterr().out
    found = json.loads((corpus / "scores" / "scores.json").read_text("utf-8"))
    assert all(one["interval_raters"] is None and one["raters"] == 2 for one in found["contrasts"])
    assert all(one["interval"] for one in found["contrasts"])
    for text in (told, (corpus / "scores" / "report.md").read_text("utf-8")):
        assert "What 2 raters said tells nothing of what other raters would say" in text
        assert "The items were drawn among those whose rationales are different" in text


def test_an_interval_over_raters_stays_on_the_scale(make, filled, write, corpus: Path) -> None:
    made, _ = make(corpus, "kit", *"--items 12 --raters 3".split())
    favours = ("fused", "fused", "worded")
    sheets = zip(made["sheets"], favours, strict=True)
    files = [
        write(corpus / f"{n}.json", filled(made, sheet, f"{n}", favour=favour, noise=n))
        for n, (sheet, favour) in enumerate(sheets)
    ]
    ratings, _ = read_ratings(files, read_key(corpus / "kit" / "key.json"))
    scores = score(ratings, read_key(corpus / "kit" / "key.json"), resamples=200)
    preference = scores.contrasts[-1]
    assert preference.measure == "preference" and preference.interval_raters == (-1, 1)


def test_scores_say_where_they_come_from(
    make, filled, write, refused, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"seed": 3, "training_seed": 5, "data_fingerprint": "abc", "command": "mmsr evaluate x"}
    (corpus / "metrics.json").write_text(json.dumps(metrics))
    key, _ = make(corpus, "kit", "--items", "8")
    (sheet,) = key["sheets"]
    file = write(corpus / "r.json", filled(key, sheet, "An"))
    asked = ["score", file, "--key", str(corpus / "kit" / "key.json"), "--out"]
    out = corpus / "scores"
    main(["human", *asked, str(out)])
    found = json.loads((out / "scores.json").read_text("utf-8"))
    assert {"machine", "versions", "command", "seed", "seconds"} <= set(found)
    assert re.fullmatch("[0-9a-f]{16}", found["ratings_fingerprint"])
    assert re.fullmatch("[0-9a-f]{16}", found["data_fingerprint"])
    for page in ("report.html", "report.md"):
        text = (out / page).read_text("utf-8")
        for said in (
            "0 (intervals), 0 (sheets)",
            f"{found['data_fingerprint']} (manifest), {found['ratings_fingerprint']} (ratings)",
            "95 % over 8 items",
            found["command"].split()[0],
            found["machine"]["cpu"],
            "5 (training), 3 (evaluation)",
        ):
            assert said in text, (page, said)
    html = (out / "report.html").read_text("utf-8")
    assert "data:image/svg+xml" in html and "What one rater said tells nothing" in html
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.html", "report.md", "scores.json", "scores.png")
    ]
    line = refused(capsys, *asked, str(corpus))
    assert f"--out {corpus} has metrics.json, whose report.html would be lost; accepted: another" in line


def test_the_picture_shows_what_it_is_given(make, filled, write, corpus: Path) -> None:
    made, _ = make(corpus, "kit", "--items", "8")
    key = read_key(corpus / "kit" / "key.json")
    (sheet,) = made["sheets"]
    pictures = set()
    for favour in ("fused", "worded"):
        file = write(corpus / f"{favour}.json", filled(made, sheet, "An", favour=favour))
        ratings, _ = read_ratings([file], key)
        scores = score(ratings, key, resamples=200)
        assert all(one.interval_raters is None for one in scores.contrasts)  # one rater
        pictures.add(rendered(partial(draw_ratings, scores)).png)
    assert len(pictures) == 2
