"""Sheets: made, and filled in with a real browser."""

import base64
import io
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.evaluation.human.sheet import CRITERIA, stratified


def test_a_sheet_is_blind_and_holds_everything(make, corpus: Path) -> None:
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


def test_every_label_and_language_has_its_share(make, corpus: Path) -> None:
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


def test_raters_share_some_items(make, corpus: Path) -> None:
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


def test_the_same_seed_gives_the_same_bytes(make, corpus: Path) -> None:
    pages = []
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(corpus, out, "--items", "8", "--seed", seed)
        pages.append((corpus / out / "sheets" / "sheet-1.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_three_systems_meet_in_pairs(filled, write, corpus: Path) -> None:
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


def test_what_no_sheet_can_be_made_of(refused, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def until(page: Any, expression: str) -> None:
    """Wait for it; playwright's own way evaluates a string in the page, which the page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within ten seconds: {expression}")


def test_a_rater_fills_a_sheet_in_by_keyboard(
    make, corpus: Path, browser: Any, capsys: pytest.CaptureFixture[str]
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
def test_a_sheet_suits_the_screen(make, corpus: Path, browser: Any, scheme: str, width: int) -> None:
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
