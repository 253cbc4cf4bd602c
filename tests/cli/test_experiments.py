"""The commands of training: what they refuse, and where configurations are found."""

import json

from mmsr.cli.experiments import packaged_config
from mmsr.cli.main import main


def test_fit_refuses_to_train_a_writer_without_rationales(demo_corpus, tmp_path, refused):
    import pandas

    table = pandas.read_csv(demo_corpus).drop(columns="rationale")
    table["audio"] = [str(demo_corpus.parent / name) for name in table["audio"]]
    table.to_csv(tmp_path / "m.csv", index=False)
    fit = ["fit", "--model.preset", "tiny", "--model.vocab_size", "600", "--trainer.max_epochs", "1"]
    fit += ["--data.manifest", str(tmp_path / "m.csv"), "--trainer.default_root_dir", str(tmp_path / "run")]
    line = refused(*fit)
    assert "m.csv" in line and "no row of 'train' has one" in line
    assert "--model.rationale_format none" in line
    main([*fit, "--model.rationale_format", "none", "--trainer.enable_progress_bar", "false"])
    assert (tmp_path / "run" / "model").is_dir()


def test_fit_refuses_what_it_cannot_train_on(demo_corpus, tmp_path, refused):
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert "no such file" in refused("fit", "-c", str(tmp_path / "no.yaml"), *folder)
    line = refused("fit", "--data.manifest", str(tmp_path / "no.csv"), *folder)
    assert "no.csv" in line
    line = refused("fit", "--data.manifest", str(demo_corpus), "--model.fusion", "nosuch", *folder)
    assert "cross_attention" in line
    line = refused("fit", "--data.manifest", str(demo_corpus), "--data.train_split", "nosuch", *folder)
    assert "nosuch" in line and "train" in line


def test_export_turns_a_checkpoint_into_a_folder(model, tmp_path, capsys, refused):
    checkpoint = model.parent / "checkpoints" / "last.ckpt"
    main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "m")])
    main(["predict", "--model", str(tmp_path / "m"), "--text", "good", "--json"])
    capsys.readouterr()
    assert "already" in refused("export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "m"))


def test_export_stores_weights_in_8_bits(model, tmp_path, capsys):
    checkpoint, small = model.parent / "checkpoints" / "last.ckpt", tmp_path / "small"
    main(["export", str(checkpoint), "--weights", "int8", "--out", str(small)])
    main(["export", "--model", str(small), "--out", str(tmp_path / "floats")])
    main(["export", "--model", str(model), "--weights", "int8", "--out", str(tmp_path / "of a model")])
    answers = []
    for folder in (small, tmp_path / "floats"):
        main(["predict", "--model", str(folder), "--text", "good", "--json"])
        answers.append(json.loads(capsys.readouterr().out)["scores"])
    assert answers[0] == answers[1]
    cards = [(folder / "README.md").read_text("utf-8") for folder in (small, tmp_path / "floats")]
    assert "weights in 8 bits" in cards[0] and "# small" in cards[0] and "weights in 8 bits" not in cards[1]
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("of a model", "floats")]
    assert sizes[0] < 0.5 * sizes[1]


def test_the_packaged_configuration_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged_config("demo.yaml").is_file() and packaged_config("own.yaml").is_file()
