"""Human evaluation as its people meet it: sheets are made, filled in with a real browser, and scored."""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import stats

from mmsr.cli.main import main
from mmsr.evaluation.human.agreement import ordinal_agreement
from mmsr.evaluation.human.scores import crossed_standard_error, items_needed
from mmsr.evaluation.human.sheet import CRITERIA, stratified
from mmsr.evaluation.report.pictures import draw_ratings, rendered
from mmsr.evaluation.significance import minimum_detectable_difference
from mmsr.records import Prediction

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def corpus(tmp_path: Path, prediction: Callable[..., Prediction]) -> Path:
    """A manifest of 24 rows, 20 of them with sound, and two systems' predictions, `fused` and `worded`."""
    (tmp_path / "audio").mkdir()
    lines = ["id,audio,text,label,language"]
    predictions = []
    for i in range(24):
        id, audio, label = f"secret-{i}", "", LABELS[i % 3]
        if i < 20:
            audio = f"audio/{i}.wav"
            tone = 0.3 * np.sin(np.arange(8000) * 2 * np.pi * (200 + 10 * i) / 8000)
            soundfile.write(tmp_path / audio, tone, 8000)
        lines.append(f"{id},{audio},</script> utterance {i} ü,{label},{'vi' if i % 2 else 'en'}")
        for condition, said in (("audio+text", f"real reason {i}"), ("text", f"real reason {i}, half")):
            said = "alike" if i >= 22 else said
            cells = {"label": label, "predicted_label": label, "predicted_rationale": said}
            predictions.append(json.dumps(prediction(id, condition=condition, **cells).to_row()))
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "predictions.jsonl").write_text("\n".join(predictions) + "\n", encoding="utf-8")
    return tmp_path


def make(corpus: Path, out: str, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make sheets through the command line; returns the key, and what each sheet holds."""
    runs = [f"fused={corpus}/predictions.jsonl:audio+text", f"worded={corpus}/predictions.jsonl:text"]
    where = ["--manifest", str(corpus / "manifest.csv"), "--out", str(corpus / out)]
    main(["human", "make", *runs, *where, *options])
    key = json.loads((corpus / out / "key.json").read_text(encoding="utf-8"))
    pages = [corpus / out / "sheets" / sheet["file"] for sheet in key["sheets"].values()]
    return key, [content_of(page) for page in pages]


def content_of(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script id="content" type="application/json">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    assert found
    return json.loads(found[1])


def filled(key: dict[str, Any], sheet: str, rater: str, *, favour: str = "fused", noise: int = 0) -> dict:
    """What the page would save of a rater who gives `favour` 4 and others 3, but for some noise."""
    generator = np.random.default_rng(noise)
    items = []
    for one in key["sheets"][sheet]["items"]:
        points = {
            side: {
                name: int(
                    np.clip((4 if one[side] == favour else 3) + generator.integers(-noise, noise + 1), 1, 5)
                )
                for name in key["criteria"]
            }
            for side in ("left", "right")
        }
        preferred = next((side for side in points if one[side] == favour), "same")
        items.append({"item": one["item"], **points, "preference": preferred, "seconds": 9.5, "plays": 1})
    return {"format": "mmsr-ratings-1", "sheet": sheet, "rater": rater, "complete": True, "items": items}


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["human", *arguments])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---------------------------------------------------------------------- making


def test_a_sheet_is_blind_and_holds_everything(corpus: Path) -> None:
    key, (sheet,) = make(corpus, "kit", "--items", "12")
    page = (corpus / "kit" / "sheets" / "sheet-1.html").read_text("utf-8")
    page = re.sub(r"base64,[\w+/=]+", "", page)
    assert not re.search(r"secret|fused|worded|audio\+text|predictions|manifest", page)
    assert not re.search(r"(src|href)=[\"']?(?!data:)\w|https?://", page)
    assert [path.name for path in (corpus / "kit" / "sheets").iterdir()] == ["sheet-1.html"]
    assert list(sheet["criteria"].items()) == list(CRITERIA.items())  # asked in their order
    showings = key["sheets"][sheet["sheet"]]["items"]
    assert Counter(one["left"] for one in showings) == {"fused": 6, "worded": 6}
    for one, item in zip(showings, sheet["items"], strict=True):
        number = int(one["id"].removeprefix("secret-"))
        assert item["text"] == f"</script> utterance {number} ü"
        said = {"fused": f"real reason {number}", "worded": f"real reason {number}, half"}
        if number < 22:
            assert {side: item[side]["rationale"] for side in ("left", "right")} == {
                side: said[one[side]] for side in ("left", "right")
            }
        if number < 20:
            sound, rate = soundfile.read(io.BytesIO(base64.b64decode(item["audio"].partition(",")[2])))
            assert (rate, sound.shape) == (16000, (16000,))
            assert np.abs(np.fft.rfft(sound)).argmax() == 200 + 10 * number  # this row's tone, in Hz
        else:
            assert item["audio"] is None


def test_every_label_and_language_has_its_share(corpus: Path) -> None:
    key, _ = make(corpus, "kit", "--items", "12")
    (sheet,) = key["sheets"].values()
    numbers = [int(one["id"].removeprefix("secret-")) for one in sheet["items"]]
    assert set(Counter(number % 6 for number in numbers).values()) == {2}  # 3 labels in 2 languages
    generator = np.random.default_rng(0)
    strata = ["a"] * 90 + ["b"] * 9 + ["c"]
    drawn = [stratified(strata, 10, generator) for _ in range(400)]
    assert all(len(set(one)) == 10 for one in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=100)
    assert abs(counts - 40).max() < 5 * np.sqrt(400 * 0.1 * 0.9)  # every row alike
    assert {sum(i < 90 for i in one) for one in drawn} == {9}


def test_raters_share_some_items(corpus: Path) -> None:
    key, _ = make(corpus, "kit", *"--items 8 --raters 3 --shared 4 --repeats 2 --differing".split())
    sheets = [sheet["items"] for sheet in key["sheets"].values()]
    assert len(sheets) == 3 and key["candidates"] == 22  # two rows have the same rationale in both
    ids = [{one["id"] for one in sheet} for sheet in sheets]
    assert [len(one) for one in ids] == [8, 8, 8] and len(set.union(*ids)) == 4 + 3 * 4
    assert all(len(a & b) == 4 for a, b in combinations(ids, 2))
    assert (
        len({tuple(one["id"] for one in sheet if one["id"] in set.intersection(*ids)) for sheet in sheets})
        > 1
    )
    for sheet in sheets:
        assert len(sheet) == 10
        again = [one for one in sheet if one["repeat"]]
        assert len(again) == 2
        for one in again:
            before = next(other for other in sheet[:4] if other["id"] == one["id"])
            assert (before["left"], before["right"]) == (one["right"], one["left"])


def test_the_same_seed_gives_the_same_bytes(corpus: Path) -> None:
    pages = []
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(corpus, out, "--items", "8", "--seed", seed)
        pages.append((corpus / out / "sheets" / "sheet-1.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_three_systems_meet_in_pairs(corpus: Path) -> None:
    run = f"{corpus}/predictions.jsonl:text"
    where = ["--manifest", str(corpus / "manifest.csv"), "--out", str(corpus / "kit"), "--items", "12"]
    asked = ["--criteria", "tone=It names the tone.", "plain=It is plain."]
    main(["human", "make", f"a={run}", f"b={run}", f"c={run}", *where, *asked])
    key = json.loads((corpus / "kit" / "key.json").read_text("utf-8"))
    ((sheet, entry),) = key["sheets"].items()
    pairs = Counter(frozenset((one["left"], one["right"])) for one in entry["items"])
    assert len(pairs) == 3 and set(pairs.values()) == {4}
    file = write(corpus / "r.json", filled(key, sheet, "An", favour="a"))
    main(["human", "score", file, "--key", str(corpus / "kit" / "key.json"), "--out", str(corpus / "scores")])
    found = json.loads((corpus / "scores" / "scores.json").read_text("utf-8"))
    preferences = {
        (one["a"], one["b"]): one["wins"] for one in found["contrasts"] if one["measure"] == "preference"
    }
    assert [one["criterion"] for one in found["figures"]] == ["tone", "plain"] * 3
    assert preferences == {("a", "b"): 4, ("a", "c"): 4, ("b", "c"): 0}


def test_what_no_sheet_can_be_made_of(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"{corpus}/predictions.jsonl"
    command = ["make", f"a={run}:text", f"b={run}:text", "--manifest", str(corpus / "manifest.csv")]
    command += ["--out", str(corpus / "kit")]
    assert "--items 40: 40 rows are wanted for 1 raters and 24 are there" in refused(
        capsys, *command, "--items", "40"
    )
    assert "0 with different rationales are there" in refused(capsys, *command, "--items", "4", "--differing")
    assert "--repeats 5; accepted: 0 to 4 with --items 8" in refused(
        capsys, *command, *"--items 8 --repeats 5".split()
    )
    assert "none called preference" in refused(capsys, *command, "--criteria", "preference=Which?")
    assert "1 run; accepted: two or more" in refused(capsys, "make", *command[2:])
    assert "two runs are called 'a'" in refused(capsys, "make", f"a={run}:text", *command[1:2], *command[3:])
    main(["human", *command, "--items", "4"])
    assert "kit is there" in refused(capsys, *command, "--items", "4")


# ---------------------------------------------------------------------- scoring


def test_alpha_is_the_published_one() -> None:
    missing = 0  # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", sections C and D
    said = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
            [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
        ]
    )
    counts = np.stack([(said == value).sum(axis=0) for value in range(1, 6)], axis=-1)
    found = ordinal_agreement(counts)
    assert found.alpha == pytest.approx(0.815, abs=5e-4) and found.units == 11
    assert found.interval is not None and found.interval[0] < 0.815 < found.interval[1]
    assert ordinal_agreement([[2, 0], [2, 0]]) == (None, None, 2)  # one value: nothing to tell apart
    assert ordinal_agreement([[1, 0], [0, 1]]) == (None, None, 0)
    # answers to one item drawn together: fewer units, a wider interval
    twice = np.concatenate([counts, counts])
    once, clustered = ordinal_agreement(twice), ordinal_agreement(twice, [*range(12), *range(12)])
    assert once.alpha == clustered.alpha
    assert np.ptp(clustered.interval) > 1.2 * np.ptp(once.interval)  # type: ignore[arg-type]


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


def test_scores_say_who_is_better(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_two_raters_tell_nothing_of_others(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_an_interval_over_raters_stays_on_the_scale(corpus: Path) -> None:
    from mmsr.evaluation.human.ratings import read_key, read_ratings
    from mmsr.evaluation.human.scores import score

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


def test_scores_say_where_they_come_from(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_picture_shows_what_it_is_given(corpus: Path) -> None:
    from mmsr.evaluation.human.ratings import read_key, read_ratings
    from mmsr.evaluation.human.scores import score

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


def test_ratings_that_cannot_be_used(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = make(corpus, "kit", *"--items 6 --raters 2".split())
    first, second = key["sheets"]
    file = corpus / "r.json"
    score = ["score", str(file), "--key", str(corpus / "kit" / "key.json")]

    def altered(change: Callable[[dict[str, Any]], Any]) -> str:
        content = filled(key, first, "An")
        change(content)
        write(file, content)
        return refused(capsys, *score)

    assert "r.json: sheet 'other' is not of this key; accepted: " in altered(
        lambda c: c.update(sheet="other")
    )
    assert "r.json: rater ' '; accepted: a name" in altered(lambda c: c.update(rater=" "))
    assert "r.json: format 'x'; accepted: 'mmsr-ratings-1'" in altered(lambda c: c.update(format="x"))
    assert "r.json: item 6 is there 0 times; accepted: once" in altered(lambda c: c["items"].pop())
    assert "r.json: item 1 is there 2 times" in altered(lambda c: c["items"].append(c["items"][0]))
    assert "r.json: item 9; accepted: 1 to 6" in altered(lambda c: c["items"].append({"item": 9}))
    line = altered(lambda c: c["items"][2]["right"].update(clarity=6))
    assert "r.json: item 3, answer B: clarity 6; accepted: 1 to 5" in line
    line = altered(lambda c: c["items"][2].update(preference="A"))
    assert "r.json: item 3: preference 'A'; accepted: left, right, same" in line
    line = altered(lambda c: (c["items"][2]["left"].pop("clarity"), c["items"][4].update(preference=None)))
    assert "r.json: 2 answers are missing (item 3, answer A: clarity; item 5: preference); accepted" in line
    main(["human", *score, "--partial"])
    assert "2 items left out" in capsys.readouterr().err
    file.write_text("[", encoding="utf-8")
    assert "r.json: no JSON" in refused(capsys, *score)
    assert "no such file" in refused(capsys, "score", str(corpus / "none.json"), *score[2:])
    write(file, filled(key, first, "An"))
    other = write(corpus / "s.json", filled(key, second, " An"))
    assert f"s.json: rater 'An' is in {file} too; accepted: one file a rater" in refused(
        capsys, "score", str(file), other, *score[2:]
    )
    write(corpus / "s.json", filled(key, first, "Bo"))  # another rater on the same sheet is one more rater
    main(["human", "score", str(file), other, *score[2:], "--json"])
    assert json.loads(capsys.readouterr().out)["agreement"]["clarity"]["units"] == 12
    assert "accepted: 'mmsr-human-key-1'" in refused(capsys, "score", str(file), "--key", str(file))


# ---------------------------------------------------------------------- in a browser


def until(page: Any, expression: str) -> None:
    """Wait for it; playwright's own way evaluates a string in the page, which the page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within ten seconds: {expression}")


def test_a_rater_fills_a_sheet_in_by_keyboard(
    corpus: Path, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    key, (content,) = make(corpus, "kit", *"--items 3 --differing".split())
    ((sheet, entry),) = key["sheets"].items()
    page = browser.new_page(accept_downloads=True, offline=True)
    page.set_default_timeout(30_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    dialogs: list[tuple[str, str]] = []
    agree = [False]

    def decide(dialog: Any) -> None:
        dialogs.append((dialog.type, dialog.message))
        dialog.accept() if agree[0] else dialog.dismiss()

    page.on("dialog", decide)
    page.goto((corpus / "kit" / "sheets" / "sheet-1.html").as_uri())
    page.focus("#rater")
    page.keyboard.type("Thị An")
    page.keyboard.press("Enter")
    assert page.inner_text("#where") == "Item 1 of 3 · 0 complete"
    assert page.inner_text("#text") == content["items"][0]["text"]
    for name in (
        "Answer A: " + CRITERIA["clarity"],
        "Answer B: " + CRITERIA["clarity"],
        "Which answer do you prefer?",
    ):
        assert page.get_by_role("group", name=name, exact=True).count() == 1, name

    # space plays, and answers nothing
    page.keyboard.press("Space")
    until(page, "!audio.paused && audio.currentTime > 0")
    assert page.evaluate("audio.duration") == pytest.approx(1.0)
    until(page, "audio.ended")
    page.focus("input[name=left-correctness]")
    page.keyboard.press("Space")
    until(page, "!audio.ended && audio.currentTime > 0")
    assert page.locator("#item :checked").count() == 0

    # an item left open says so, and goes to the question
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    assert "6 questions are open" in page.inner_text("#status")
    assert page.evaluate("document.activeElement.name") == "left-clarity"
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")  # the browser's own: the third question, from none to 2
    assert page.locator("input[name=left-relevance]:checked").get_attribute("value") == "2"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "right-correctness"
    page.keyboard.type("5433")  # answer B, and the preference: B
    assert page.evaluate("document.activeElement.id") == "next"
    assert page.inner_text("#status") == "Item 1 is complete."

    # the page does not close silently, and answers outlive it
    page.evaluate("audio.dataset.before = 'here'; setTimeout(() => location.reload())")
    for _ in range(200):
        page.wait_for_timeout(50)
        if dialogs:
            break
    page.wait_for_timeout(200)
    assert [kind for kind, _ in dialogs] == ["beforeunload"]
    assert page.evaluate("audio.dataset.before") == "here"
    agree[0] = True
    page.reload()
    agree[0] = False
    assert page.inner_text("#go") == "Continue" and page.input_value("#rater") == "Thị An"
    page.press("#rater", "Enter")
    assert page.inner_text("#where") == "Item 1 of 3 · 1 complete"
    assert page.locator("#item :checked").count() == 7
    page.keyboard.press("Enter")
    page.keyboard.type("4444551")
    page.keyboard.press("Enter")
    assert page.inner_text("#where") == "Item 3 of 3 · 2 complete"
    page.click("#save")
    assert dialogs[-1] == ("confirm", "Not complete: item 3. Save nevertheless?")
    page.keyboard.type("1111112")
    page.keyboard.press("Enter")
    assert "All items are complete." in page.inner_text("#status")
    with page.expect_download() as download:
        page.keyboard.press("Enter")  # on the button to save, which has the focus
    file = corpus / download.value.suggested_filename
    assert file.name == f"ratings-{sheet}-Thị-An.json"
    download.value.save_as(file)
    page.reload()
    assert len(dialogs) == 3  # what is saved needs no warning
    page.close()
    assert faults == [] and all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked

    saved = json.loads(file.read_text(encoding="utf-8"))
    assert (saved["sheet"], saved["rater"], saved["complete"]) == (sheet, "Thị An", True)
    first = saved["items"][0]
    assert first["left"] == {"correctness": 2, "clarity": 1, "relevance": 2}
    assert first["right"] == {"correctness": 5, "clarity": 4, "relevance": 3}
    assert first["preference"] == "right" and first["plays"] == 2 and 0.9 < first["seconds"] < 60
    assert [item["preference"] for item in saved["items"]] == ["right", "left", "same"]
    capsys.readouterr()
    main(["human", "score", str(file), "--key", str(corpus / "kit" / "key.json"), "--json"])
    found = json.loads(capsys.readouterr().out)
    given = {
        (showing["id"], showing[side]): item[side]["correctness"]
        for showing, item in zip(entry["items"], saved["items"], strict=True)
        for side in ("left", "right")
    }
    for system in ("fused", "worded"):
        (mean,) = (
            one["mean"]
            for one in found["figures"]
            if one["system"] == system and one["criterion"] == "correctness"
        )
        assert mean == pytest.approx(np.mean([value for (_, name), value in given.items() if name == system]))


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour `rgb(r, g, b)`, as WCAG defines it."""
    channels = np.array(re.findall(r"\d+", colour)[:3], dtype=float) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)]
)
def test_a_sheet_suits_the_screen(corpus: Path, browser: Any, scheme: str, width: int) -> None:
    make(corpus, "kit", "--items", "2")
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True)
    page.goto((corpus / "kit" / "sheets" / "sheet-1.html").as_uri())
    page.fill("#rater", "An")
    page.press("#rater", "Enter")
    page.keyboard.press("3")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left, right = page.locator("#left").bounding_box(), page.locator("#right").bounding_box()
    assert (left["x"] == right["x"]) == (width == 360)  # one under the other on a phone
    for selector in ("body", "#left dt", ".scale label:has(:checked)", "#next", ".scale label"):
        ink = luminance(page.eval_on_selector(selector, "one => getComputedStyle(one).color"))
        ground = luminance(
            page.eval_on_selector(
                selector,
                """one => { for (; one; one = one.parentElement) {
                  const colour = getComputedStyle(one).backgroundColor;
                  if (colour !== "rgba(0, 0, 0, 0)") return colour;
                } }""",
            )
        )
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, selector
        assert selector != "body" or (ink > ground) == (scheme == "dark")
    page.close()
