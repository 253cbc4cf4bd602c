"""The commands of training: what they refuse, and where configurations are found."""

import json

import pytest

from mmsr.cli.main import main
from mmsr.training.arguments import packaged_config


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


def search_file(folder, corpus, **settings):
    import yaml

    whole = {
        "settings": {
            "data.manifest": str(corpus),
            "model.preset": "tiny",
            "model.vocab_size": 600,
            **settings,
        },
        "space": {
            "model.learning_rate": {"low": "1e-4", "high": 0.1, "log": True},
            "data.batch_rows": [4, 8],
        },
        "trials": 2,
        "out": str(folder / "out"),
    }
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path


def test_search_shows_its_space_and_ends_with_1_where_all_trials_fail(demo_corpus, tmp_path, capsys, refused):
    pytest.importorskip("optuna", reason="searches need Optuna: pip install 'mmsr[search]'")
    path = search_file(tmp_path, demo_corpus, **{"model.config.fusion_heads": 7})
    main(["search", "-c", str(path), "--dry-run"])
    assert capsys.readouterr().out.splitlines() == [
        "metric: dev_loss, minimised",
        "trials: 2, the default among them",
        "sampler: tpe, seed 0; pruner: none",
        "training: seed 0 in every trial",
        f"rows: 42 train, 6 dev, 12 test of {demo_corpus}",
        f"folder: {tmp_path / 'out'}",
        "trial 0: the default, model.learning_rate 0.001, data.batch_rows not set",
        "searched settings:",
        "  model.learning_rate: 0.0001 to 0.1, log",
        "  data.batch_rows: 4, 8",
    ]
    assert not (tmp_path / "out").exists()
    assert "need --ray" in refused("search", "-c", str(path), "--gpus", "1")
    with pytest.raises(SystemExit) as exit_:
        main(["search", "-c", str(path)])
    assert exit_.value.code == 1
    told = capsys.readouterr()
    assert "2 trials (2 failed). No trial has a value." in told.out
    assert told.err.count("failed: trial") == 2 and told.err.splitlines()[-1] == "no trial has a value"


def test_without_optuna_search_says_in_one_line_what_to_install(demo_corpus, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("mmsr.extras.find_spec", lambda name: None)
    line = refused("search", "-c", str(search_file(tmp_path, demo_corpus)))
    assert line == "mmsr search needs optuna: pip install 'mmsr[search]'"
