"""Transcripts made worse to a chosen error rate."""

import json
import random

import pytest

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.evaluation.error_rates import edits, word_error_rate
from mmsr.evaluation.robustness.confusions import Confusions

WORDS = "the doctor was kind and my back hurts less since Monday but I wait for hours every time".split()
CHARACTERS = "您看昨天我的后背正在做检查医生很好"


def sentences(count: int, language: str) -> list[str]:
    draw = random.Random(0)
    length = [draw.randint(3, 12) for _ in range(count)]
    if language == "zh":
        return ["".join(draw.choices(CHARACTERS, k=size)) + "。" for size in length]
    return [" ".join(draw.choices(WORDS, k=size)).capitalize() + "." for size in length]


@pytest.fixture(scope="module")
def confusions():
    return Confusions.learn(
        ["my back hurts", "the doctor waits", "every hour", "我的后背", "很好医生"],
        ["my bag hurts", "a doctor", "every hour now", "我的后被", "好一生了"],
        ["en", "en", "en-US", "zh", "zh"],
    )


def test_confusions_are_what_the_alignment_says(confusions):
    english = confusions.by_language["en"]
    assert english.substituted == {"back": {"bag": 1}, "the": {"a": 1}}
    assert english.deleted == {"waits": 1} and english.inserted == {"now": 1}
    assert english.heard["hurts"] == 1 and english.kinds() == {"substitute": 2, "delete": 1, "insert": 1}
    assert confusions.by_language["zh"].substituted["背"] == {"被": 1}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("wer", [0.05, 0.2, 0.5])
def test_the_measured_rate_is_the_wanted_one(confusions, language, wer):
    texts = sentences(200, language)
    worse = [
        confusions.degrade(text, wer=wer, language=language, seed=1, identity=str(row))
        for row, text in enumerate(texts)
    ]
    rates = word_error_rate(texts, worse, [language] * 200)
    assert rates["cer" if language == "zh" else "wer"] == pytest.approx(wer, abs=0.02)


def test_draws_depend_on_seed_and_row_alone_and_grow_with_the_rate(confusions):
    text = sentences(1, "en")[0]

    def worse(wer, seed=1, identity="a"):
        return confusions.degrade(text, wer=wer, language="en", seed=seed, identity=identity)

    assert worse(0.5) == worse(0.5)
    assert len({worse(0.5), worse(0.5, seed=2), worse(0.5, identity="b")}) == 3
    assert worse(0) == text
    distances = [edits(text, worse(step / 10), "en") for step in range(11)]
    assert distances == sorted(distances) and distances[-1] > distances[0]


def test_what_cannot_be_is_refused(confusions):
    with pytest.raises(ValueError, match=r"wer is 1.5; accepted: 0 to 1"):
        confusions.degrade("a", wer=1.5, language="en", seed=0, identity="a")
    with pytest.raises(ValueError, match=r"language 'fr'; accepted: en, zh"):
        confusions.degrade("a", wer=0.1, language="fr", seed=0, identity="a")


def test_the_command_writes_a_copy_for_each_rate(tmp_path, capsys):
    lines = ["id,text,asr_text,language,note"]
    lines += [
        f"r{row},{text},{text.replace('back', 'bag')},en,x" for row, text in enumerate(sentences(40, "en"))
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    flags = ["data", "degrade", "--manifest", str(tmp_path / "m.csv"), "--seed", "3", "--wer", "[0.1,0.3]"]
    main([*flags, "--confusions", str(tmp_path / "m.csv"), "--out", str(tmp_path / "d")])
    assert "wer-0.30.csv" in capsys.readouterr().out
    rows = load_manifest(tmp_path / "d" / "wer-0.30.csv")
    rates = word_error_rate(rows["text"], rows["asr_text"], rows["language"])
    assert rates["wer"] == pytest.approx(0.3, abs=0.05)
    assert (tmp_path / "d" / "wer-0.10.csv").read_text(encoding="utf-8").startswith(lines[0])
    main([*flags, "--confusions", str(tmp_path / "d" / "confusions.json"), "--out", str(tmp_path / "e")])
    for name in ("wer-0.10.csv", "wer-0.30.csv", "confusions.json"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "e" / name).read_bytes()
    capsys.readouterr()
    (tmp_path / "bad.json").write_text(json.dumps({"en": [1]}))
    with pytest.raises(SystemExit):
        main([*flags, "--confusions", str(tmp_path / "bad.json"), "--out", str(tmp_path / "f")])
    assert "bad.json holds no confusions" in capsys.readouterr().err
