"""Saved ratings are checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmsr.cli.main import main


def test_ratings_that_cannot_be_used(
    make, filled, write, refused, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
