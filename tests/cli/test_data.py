"""The commands `mmsr data ...`: what they print, write and refuse."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from mmsr.cli.main import main


def test_data_check_answers_by_exit_code_json_and_page(tmp_path, capsys, refused):
    manifest = tmp_path / "m.csv"
    manifest.write_text("text,label,speaker,split\ngood,a,s,train\nbad,b,s,test\n")
    check = ["data", "check", "--manifest", str(manifest), "--labels", "a", "b", "--no-audio"]
    with pytest.raises(SystemExit) as exit_:
        main([*check, "--json", "--report", str(tmp_path / "check.html")])
    assert exit_.value.code == 1
    found = json.loads(capsys.readouterr().out)
    speaker = next(fault for fault in found["faults"] if fault["code"] == "speaker-in-two-splits")
    assert (speaker["file"], speaker["row"], speaker["column"]) == ("m.csv", 3, "speaker")
    assert "speaker-in-two-splits" in (tmp_path / "check.html").read_text(encoding="utf-8")
    allowed = [*check, "--allow", "speaker-in-two-splits", "class-absent"]
    main(allowed)
    assert "0 errors, 1 warning" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        main([*allowed, "--strict"])
    assert exit_.value.code == 1 and "1 error, 0 warnings" in capsys.readouterr().out
    assert "is no code" in refused(*check, "--allow", "nothing")
    assert "no such file" in refused("data", "check", "--manifest", str(tmp_path / "no.csv"))
    assert "--codes" in refused("data", "check")
    main(["data", "check", "--codes"])
    assert "a speaker is in two splits -> mmsr data split --by speaker" in capsys.readouterr().out


def test_pages_and_folders_are_refused_before_the_work(tmp_path, refused):
    (tmp_path / "m.csv").write_text("text,label\ngood,a\n")
    (tmp_path / "page.html").symlink_to(tmp_path / "m.csv")
    (tmp_path / "d.csv").mkdir()
    manifest, inside = str(tmp_path / "m.csv"), str(tmp_path / "m.csv" / "d")
    check = ["data", "check", manifest, "--report"]
    assert "--report check.txt has another ending; accepted: .html" in refused(*check, "check.txt")
    assert "is a file that is read" in refused(*check, str(tmp_path / "page.html"))
    assert "m.csv is a file" in refused(*check, f"{inside}.html")
    assert "m.csv is a file" in refused("data", "segment", manifest, "--out", inside)
    assert "m.csv is a file" in refused("data", "make-demo", "--out", inside)
    assert "m.csv is a file" in refused("data", "convert", str(tmp_path), "--from", "folder", "--out", inside)
    split = ["data", "split", manifest, "--by", "stratified", "--out"]
    assert "d.csv is a folder" in refused(*split, str(tmp_path / "d.csv"))
    degrade = [
        "data",
        "degrade",
        manifest,
        "--confusions",
        manifest,
        "--wer",
        ".1",
        "--columns",
        "asr_text=label",
    ]
    assert "m.csv is a file" in refused(*degrade, "--out", inside)
    (tmp_path / "wer-0.10.csv").write_text("text,label\ngood,bad\n")
    degrade[2] = str(tmp_path / "wer-0.10.csv")
    assert "is a file that is read" in refused(*degrade, "--out", str(tmp_path))


def test_data_split_writes_a_copy_and_its_recipe(tmp_path, capsys, refused):
    manifest = tmp_path / "m.csv"
    rows = [f"sentence {number},{'ab'[number % 2]},s{number // 4}" for number in range(40)]
    manifest.write_text("\n".join(["text,label,speaker", *rows]) + "\n")
    split = ["data", "split", "--manifest", str(manifest), "--out", str(tmp_path / "out" / "m.tsv")]
    main([*split, "--by", "speaker", "--shares", "train=.7", "dev=.1", "test=.2", "--seed", "3"])
    assert "split train: 28 rows, 7 speakers; a 14, b 14" in capsys.readouterr().out
    recipe = json.loads((tmp_path / "out" / "m.split.json").read_text(encoding="utf-8"))
    assert recipe["shares"] == {"train": 0.7, "dev": 0.1, "test": 0.2} and recipe["seed"] == 3
    main(["data", "check", "--manifest", str(tmp_path / "out" / "m.tsv"), "--labels", "a", "b"])
    assert "40 rows, no faults" in capsys.readouterr().out
    assert "--shares train; accepted: NAME=VALUE" in refused(*split, "--by", "speaker", "--shares", "train")
    assert "--folds" in refused(*split, "--by", "speaker", "--fold", "0")
    again = ["data", "split", "--manifest", str(tmp_path / "out" / "m.tsv"), "--out", str(tmp_path / "n.csv")]
    line = refused(*again, "--by", "speaker")
    assert "m.tsv, column split: has values in 40 rows already; accepted: --replace" in line
    main([*again, "--by", "speaker", "--replace"])
    assert "split train: " in capsys.readouterr().out


def test_features_shows_a_store_and_makes_room_in_it(tmp_path, capsys, refused):
    from mmsr.data.features.store import FeatureStore

    root = str(tmp_path / "store")
    store = FeatureStore(root)
    maker = store.maker("e", {}, name="text, bert, 3 states")
    for number in range(4):
        store.put(store.key(maker, bytes([number])), {"x": torch.zeros(1000)})
    for number, entry in enumerate(Path(root).rglob("*.safetensors")):
        os.utime(entry, (0, time.time() - 86400 * (10 - number)))
    assert store.get(store.key(maker, b"none")) is None
    store.record("runs/a, text")
    main(["data", "features", "--store", root])
    out = capsys.readouterr().out
    assert "4 entries" in out and "float16  text, bert, 3 states" in out
    assert "runs/a, text: 0 of 1 were there (0%)" in out
    main(["data", "features", "--store", root, "--older-than", "228h", "--json"])
    captured = capsys.readouterr()
    assert captured.err.startswith("1 entries removed, 0.0 MB")
    answer = json.loads(captured.out)
    (one,) = answer["encoders"]
    assert (one["maker"], one["entries"], answer["runs"][0]["misses"]) == (maker, 3, 1)
    main(["data", "features", "--store", root, "--evict-to", "5kB"])
    assert "2 entries, 0.0 MB" in capsys.readouterr().out
    main(["data", "features", "--store", root, "--clear"])
    assert capsys.readouterr().out.startswith("0 entries")
    text = "--evict-to '2 sacks' is no size; accepted: such as 2GB"
    assert text in refused("data", "features", "--store", root, "--evict-to", "2 sacks")
    for bad in ("soon", "30"):
        text = f"--older-than {bad!r} is no duration; accepted: such as 30d, 12h"
        assert text in refused("data", "features", "--store", root, "--older-than", bad)
    assert "--clear removes all" in refused(
        "data", "features", "--store", root, "--clear", "--older-than", "1d"
    )
    assert "no such folder" in refused("data", "features", "--store", root + "x")


@pytest.mark.parametrize("given", [["text=words", "label=mood"], ["{text: words, label: mood}"]])
def test_columns_are_named_as_a_person_types_them(tmp_path, capsys, given, refused):
    path = tmp_path / "m.csv"
    path.write_text("words,mood\nvery good indeed,pos\nso very bad today,negative\nas it was before,1\n")
    main(["data", "check", "--manifest", str(path), "--columns", *given, "--label-map", "pos=positive"])
    assert "negative 1, neutral 1, positive 1" in capsys.readouterr().out
    fit = ["fit", "--data.manifest", str(path), "--data.columns", *given, "--data.label_map", "pos=positive"]
    fit += ["--model.preset", "tiny", "--trainer.default_root_dir", str(tmp_path / "run")]
    # the words reach the data module: it misses the split, not the text
    assert "column split: no row is in 'train'" in refused(*fit)


def test_a_folder_of_recordings_is_no_manifest(tmp_path, capsys):
    folder = tmp_path / "recordings" / "positive"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"RIFF")
    (folder / "a.txt").write_text("so kind")
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", str(tmp_path / "recordings")])
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "is a folder of recordings; accepted: a manifest" in told
