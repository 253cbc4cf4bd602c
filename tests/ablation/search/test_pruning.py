"""The pruner: it ends a trial that falls behind, after its epoch is written."""

from types import SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna", reason="searches need Optuna: pip install 'mmsr[search]'")

from mmsr.ablation.search.pruning import Pruning, open_study  # noqa: E402


def epochs(out, number: int, values: list[float]) -> Pruning:
    """A trial's run through epochs with these values."""
    pruning = Pruning("dev_macro_f1", "median")
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, default_root_dir=str(out / "trials" / f"{number:04}")
    )
    for epoch, value in enumerate(values):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"dev_macro_f1": value}
        pruning.on_train_epoch_start(trainer)
        pruning.on_validation_end(trainer, None)
    return pruning


def test_a_trial_below_the_median_of_the_others_ends(tmp_path):
    study = open_study(tmp_path, direction="maximize")
    for number in range(6):
        study.ask()
        epochs(tmp_path, number, [0.1 * number, 0.1 * number + 0.2])
        study.tell(number, 0.5)
    study.ask()
    with pytest.raises(optuna.TrialPruned, match="after epoch 1"):
        epochs(tmp_path, 6, [0.05, 0.9])
    assert study.trials[6].intermediate_values == {0: 0.05}
    study.ask()
    epochs(tmp_path, 7, [0.45, float("nan"), 0.9])
    assert study.trials[7].intermediate_values == {0: 0.45, 2: 0.9}
    study.ask()
    epochs(tmp_path, 8, [0.4, 0.01])  # behind in its last epoch, after which there is nothing to save
