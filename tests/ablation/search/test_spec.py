"""Files of searches: their spaces, their default, and what is wrong with them."""

from pathlib import Path

import pytest

from mmsr.ablation.search.spec import read_search

SHIPPED = Path(__file__).parents[3] / "experiments" / "searches"


def test_ranges_choices_and_the_default(search_file, words, tmp_path):
    space = {
        "model.learning_rate": {"low": "1e-4", "high": 0.1, "log": True},
        "model.weight_decay": {"low": 0, "high": 1},  # whole numbers, but the setting is none
        "data.batch_rows": {"low": 4, "high": 18, "step": 4},
        "model.config.dropout": {"low": 0.1, "high": 0.4, "step": 0.1},
        "model.fusion": ["text_only", "concat"],
        "model.freeze": [None, ["text_encoder"]],
    }
    search = read_search(search_file(tmp_path, words, space=space))
    assert {dimension.name: str(dimension) for dimension in search.space} == {
        "model.learning_rate": "0.0001 to 0.1, log",
        "model.weight_decay": "0 to 1",
        "data.batch_rows": "4 to 16, step 4",
        "model.config.dropout": "0.1 to 0.4, step 0.1",
        "model.fusion": "text_only, concat",
        "model.freeze": 'null, ["text_encoder"]',
    }
    kinds = [type(dimension.distribution).__name__.removesuffix("Distribution") for dimension in search.space]
    assert kinds == ["Float", "Float", "Int", "Float", "Categorical", "Categorical"]
    assert search.space[2].points == [4, 8, 12, 16] and search.space[3].points == [0.1, 0.2, 0.3, 0.4]
    assert search.space[0].points is None
    assert search.default["model.learning_rate"] == 1e-3 and search.default["model.config.dropout"] is None
    assert (search.metric, search.is_maximised) == ("dev_macro_f1", True)
    assert search.evaluation.metric == "macro_f1" and search.confirm == ()
    frozen = search.changed({"model.freeze": '["text_encoder"]', "model.config.dropout": 0.3})
    assert frozen["model"]["freeze"] == ["text_encoder"] and frozen["model"]["config"] == {"dropout": 0.3}
    assert frozen["model"]["feature_store"] == str(tmp_path / "out" / "features")
    assert "feature_store" not in search.changed({})["model"]


def test_a_value_is_in_a_space_or_not(search_file, words, tmp_path):
    space = {
        "data.batch_rows": {"low": 4, "high": 16, "step": 4},
        "model.audio_dropout": {"low": 0.1, "high": 0.4, "step": 0.1},
        "model.freeze": [None, ["text_encoder"]],
    }
    rows, dropout, freeze = read_search(search_file(tmp_path, words, space=space)).space
    assert [rows.parameter(value) for value in (8, 9, 20, None, True)] == [8, None, None, None, None]
    assert [dropout.parameter(value) for value in (0.3, 0.35, 0.5)] == [0.3, None, None]
    assert [freeze.parameter(value) for value in (["text_encoder"], ["decoder"])] == [
        '["text_encoder"]',
        None,
    ]


def test_a_loss_is_minimised_and_confirmed_by_a_metric_of_labels(search_file, words, tmp_path):
    path = search_file(tmp_path, words, metric="dev_loss", confirm=3)
    search = read_search(path)
    assert not search.is_maximised and search.evaluation.metric == "macro_f1"
    assert search.confirm == (1, 2, 3), "not the seed of the trials"
    assert read_search(path, confirm=1, trials=9, minutes=0.5).confirm == (1,)
    assert read_search(search_file(tmp_path, words, confirm={"seeds": [7, 9]})).confirm == (7, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"spaces": {}},
            r"'spaces' is no key; did you mean space\?; accepted: base, settings, space, trials",
        ),
        ({"space": {}}, r"space {}; accepted: settings with a list of values, or {low: A, high: B}"),
        (
            {"space": {"model.fusoin": ["gated"]}},
            r"space: 'model.fusoin' is no setting; did you mean model.fusion\?",
        ),
        (
            {"space": {"training.lr": {"low": 1, "high": 2}}},
            r"space: 'training.lr' is no setting; ",
        ),
        ({"space": {"model.config.dropuot": [0.1]}}, r"dropuot' does not exist; did you mean dropout\?"),
        (
            {"space": {"model.fusion": ["text_only", "gatedd"]}},
            r"space model.fusion: 'gatedd': fusion='gatedd' does not",
        ),
        (
            {"space": {"model.audio_dropout": {"low": 0.5, "high": 1.5}}},
            r"audio_dropout: 1.5: .*accepted: 0 to 1",
        ),
        ({"space": {"model.learning_rate": 0.1}}, r"space model.learning_rate: 0.1; accepted: a list"),
        (
            {"space": {"model.learning_rate": {"low": 1e-4}}},
            r"{'low': 0.0001}; accepted: a list of values, or",
        ),
        (
            {"space": {"model.learning_rate": {"low": 0.1, "high": 0.01}}},
            r"low 0.1 is not below high 0.01",
        ),
        ({"space": {"model.learning_rate": {"low": "x", "high": 1}}}, r"low 'x'; accepted: a number"),
        (
            {"space": {"model.learning_rate": {"low": 0, "high": 1, "log": True}}},
            r"low 0 has no logarithm; accepted: above 0",
        ),
        (
            {"space": {"model.learning_rate": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}},
            r"step 0.1 with log; accepted: a positive number, and no log",
        ),
        ({"space": {"model.fusion": ["concat", "concat"]}}, r"accepted: one value or more, each once"),
        (
            {"space": {"data.manifest": ["a.csv"]}},
            r"space data.manifest changes what is measured, or on which",
        ),
        ({"space": {"monitor": ["dev_loss"]}}, r"space monitor changes what is measured"),
        (
            {"metric": "dev_loss", "space": {"model.label_smoothing": [0.0, 0.1]}},
            r"changes the loss itself, so that dev_loss .*accepted: a metric of labels",
        ),
        ({"metric": "dev_f2"}, r"metric 'dev_f2' is not logged; accepted: dev_loss"),
        ({"metric": "train_loss"}, r"metric 'train_loss' is of the training rows; accepted: dev_"),
        ({"sampler": "cmaes"}, r"sampler 'cmaes'; accepted: tpe, random, grid"),
        (
            {"sampler": "grid"},
            r"space model.learning_rate has no grid; accepted: a list of values, or a step",
        ),
        ({"pruner": "halving"}, r"pruner 'halving'; accepted: median"),
        ({"trials": None}, r"neither trials nor minutes; accepted: one of the two, or both"),
        ({"trials": 0}, r"trials 0; accepted: an integer, 1 or more"),
        ({"minutes": "soon"}, r"minutes 'soon'; accepted: a number, 0 or more"),
        ({"seed": -1}, r"seed -1; accepted: an integer, 0 or more"),
        ({"confirm": {"seeds": [0, 1]}}, r"confirm seeds \[0, 1\] have 0, with which the trials are trained"),
        ({"confirm": "yes"}, r"confirm 'yes'; accepted: a number of seeds, or {seeds: "),
        ({"over": {"seed_everything": 3}}, r"'seed_everything' is no setting"),
        ({"over": {"model.preset": "huge"}}, r"the default: .*preset"),
        ({"evaluation": {"metrics": 1}}, r"evaluation 'metrics' is no key"),
    ],
)
def test_faults_of_a_file_are_named_with_what_is_accepted(search_file, words, tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_search(search_file(tmp_path, words, **content))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_are_accepted(path):
    search = read_search(path)
    assert len(search.space) > 1 and (search.trials or search.minutes)
