"""Trials: the default first, each once, resumed after an end at any point."""

from dataclasses import replace

import optuna
import pytest

from mmsr.ablation.plan import resolved
from mmsr.ablation.search.pruning import open_study


def told(trials):
    return [(one.number, one.parameters, one.value, one.state) for one in trials.results()]


def test_trial_0_is_the_default_and_the_others_are_in_the_space(
    make_search, run_trials, trainer, peak, words, tmp_path
):
    search, runner = make_search(tmp_path, words), trainer(peak)
    default, *others = run_trials(search, runner).results()
    assert runner.done == [f"{number:04}" for number in range(6)]
    assert resolved(runner.settings["0000"]) == search.resolved
    assert default.value == pytest.approx(0.8) and len(others) == 5
    for one in others:
        settings = search.values(one.parameters)
        assert 1e-4 <= settings["model.learning_rate"] <= 1e-1
        assert settings["model.config.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4)
        model = runner.settings[f"{one.number:04}"]["model"]
        assert model["learning_rate"] == settings["model.learning_rate"] and model["preset"] == "tiny"
        assert model["config"] == {"dropout": settings["model.config.dropout"]}


def test_a_default_outside_of_the_space_is_trained_as_it_is(
    make_search, run_trials, trainer, peak, words, tmp_path
):
    space = {"model.learning_rate": {"low": 0.01, "high": 0.1}, "model.weight_decay": [0.0, 0.01]}
    runner = trainer(peak)
    trials = run_trials(make_search(tmp_path, words, space=space, trials=2), runner)
    assert "learning_rate" not in runner.settings["0000"]["model"]
    first = trials.results()[0]
    assert first.parameters == {"model.weight_decay": 0.01}, "the sampler learns from what is in the space"


@pytest.mark.parametrize("killed_at", ["0000", "0003"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_ended_goes_on_as_if_it_had_not_been(
    make_search, run_trials, trainer, peak, words, tmp_path, sampler, killed_at
):
    search = replace(make_search(tmp_path, words), sampler=sampler, trials=14)
    whole = run_trials(replace(search, out=tmp_path / "whole"), trainer(peak))
    first, second = trainer(peak, killed_at=killed_at), trainer(peak)
    with pytest.raises(KeyboardInterrupt):
        run_trials(search, first)
    asked = open_study(search.out).trials[int(killed_at)].params
    ended = run_trials(search, second)
    assert told(ended) == told(whole)
    assert first.done + second.done == [f"{number:04}" for number in range(14)], "each once"
    assert open_study(search.out).trials[int(killed_at)].params == asked
    again = trainer(peak)
    assert told(run_trials(search, again)) == told(whole) and again.done == []
    assert told(run_trials(replace(search, trials=15), again))[:14] == told(whole) and again.done == ["0014"]


def test_what_a_kill_within_a_write_leaves_is_cleared(
    make_search, run_trials, trainer, peak, words, tmp_path
):
    search = replace(make_search(tmp_path, words), trials=2)
    before = told(run_trials(search, trainer(peak)))
    journal = search.out / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 5, "wor')
    (search.out / "journal.log.lock").symlink_to(journal)
    after = told(run_trials(replace(search, trials=3), trainer(peak)))
    assert after[:2] == before and len(after) == 3


def test_a_failed_trial_has_its_reason_and_the_search_goes_on(
    make_search, run_trials, trainer, peak, words, tmp_path
):
    def value(settings):
        if settings["model"].get("learning_rate", 0) > 1e-2:
            raise ValueError("the loss is not finite")
        return float("nan") if "learning_rate" not in settings["model"] else peak(settings)

    search = replace(make_search(tmp_path, words), trials=10)
    default, *others = run_trials(search, trainer(value)).results()
    assert default.state == "failed"
    assert default.reason == "dev_macro_f1 had no finite value in any epoch"
    high = [one for one in others if one.parameters["model.learning_rate"] > 1e-2]
    low = [one for one in others if one not in high]
    assert high and {one.reason for one in high} == {"ValueError: the loss is not finite"}
    assert low and {one.state for one in low} == {"complete"}


def test_a_grid_has_each_point_once(make_search, run_trials, trainer, peak, words, tmp_path):
    space = {
        "model.learning_rate": [1e-3, 1e-2],
        "model.weight_decay": {"low": 0.0, "high": 0.02, "step": 0.01},
    }
    search = make_search(tmp_path, words, space=space, sampler="grid", trials=None)
    with pytest.raises(KeyboardInterrupt):
        run_trials(search, trainer(peak, killed_at="0002"))
    default, *others = run_trials(search, trainer(peak)).results()
    points = {tuple(one.parameters.values()) for one in others}
    assert len(points) == len(others) == 5, "the sixth is the default"
    assert tuple(default.parameters.values()) == (1e-3, 0.01) and (1e-3, 0.01) not in points


def test_equal_settings_are_trained_once(make_search, run_trials, trainer, peak, words, tmp_path):
    space, runner = {"model.learning_rate": [1e-3, 1e-2], "model.weight_decay": [0.01]}, trainer(peak)
    results = run_trials(make_search(tmp_path, words, space=space, trials=8), runner).results()
    assert len(runner.done) == 2 and len(results) == 8
    assert {one.same_as for one in results} == {None, 0, int(runner.done[1])}
    for one in results:
        assert one.value == pytest.approx({1e-3: 0.8, 1e-2: 1.0}[one.parameters["model.learning_rate"]])


def test_no_trial_starts_after_the_time_is_up(make_search, run_trials, trainer, peak, words, tmp_path):
    search = replace(make_search(tmp_path, words), trials=None, minutes=0)
    trials = run_trials(search, trainer(peak))
    assert trials.results() == []
    trials.study.set_user_attr("seconds", 100.0)  # of an earlier session
    assert run_trials(replace(search, minutes=1), trainer(peak)).results() == []
    assert len(run_trials(replace(search, minutes=10, trials=2), trainer(peak)).results()) == 2


def test_a_folder_of_another_search_is_refused(make_search, run_trials, trainer, peak, words, tmp_path):
    search = replace(make_search(tmp_path, words), trials=1)
    run_trials(search, trainer(peak))
    with pytest.raises(ValueError, match=r"out holds another search \(seed differ\); accepted: another out"):
        run_trials(replace(search, seed=3), trainer(peak))
    with pytest.raises(ValueError, match=r"another search \(space differ\)"):
        run_trials(replace(search, space=search.space[:1]), trainer(peak))
    with pytest.raises(ValueError, match=r"another search \(default differ\)"):
        run_trials(make_search(tmp_path, words, over={"model.weight_decay": 0.5}), trainer(peak))
    other = tmp_path / "other.csv"
    other.write_text(words.read_text().replace("it hurts", "it hurt"))
    with pytest.raises(ValueError, match=r"another search \(data, default differ\)"):
        run_trials(make_search(tmp_path, other), trainer(peak))


def test_a_pruned_trial_has_no_value(make_search, run_trials, trainer, words, tmp_path):
    def value(settings):
        reports = settings["trainer"]["callbacks"][-1]["init_args"]
        assert reports == {"metric": "dev_macro_f1", "pruner": "median"}
        if "learning_rate" in settings["model"]:
            raise optuna.TrialPruned("after epoch 2")
        return 0.5

    search = replace(make_search(tmp_path, words), trials=3, pruner="median")
    trials = run_trials(search, trainer(value))
    assert [one.state for one in trials.results()] == ["complete", "pruned", "pruned"]
    assert trials.results()[2].reason == "after epoch 2" and trials.results()[2].value is None
    assert trials.best().number == 0
