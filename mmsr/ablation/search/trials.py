"""The trials of a search: proposed by Optuna, each a run in its folder, kept in a journal.

    study ─► trial ─► Run ─► a runner ─► Event ─► value, or why there is none ─► study

OUT/journal.log holds every trial. A trial that was running when the search was killed keeps its number, its
settings and its folder, and its training is resumed from its last checkpoint. What the sampler draws depends
on the seed, the trial's number and the trials before it, so that a resumed search is the same search.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from mmsr.ablation.plan import content_name, manifest_arguments
from mmsr.ablation.runner import Event
from mmsr.ablation.runs import Run, kept_epoch, train
from mmsr.ablation.search.pruning import JOURNAL, TRIALS, Pruning, open_study, trial_of
from mmsr.ablation.search.spec import Search
from mmsr.ablation.spec import Evaluation
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.files import folder_lock, write_file

_KEEP_SECONDS = 15.0  # after which the time is written again
_PRUNED = "TrialPruned: "


@dataclass(frozen=True)
class Result:
    """A trial as it stands.

    Attributes:
        number: Its number; 0 is the default.
        state: complete, pruned, failed or running.
        value: Of the metric, in the epoch whose weights the run leaves; None unless it is complete.
        parameters: The searched settings that it has, by name, as parameters.
        reason: Why it failed, or when it was pruned.
        same_as: The earlier trial of the same settings, whose value it has; it was not trained.
        epochs: Number of epochs.
        seconds: Of its epochs.
    """

    number: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    reason: str = ""
    same_as: int | None = None
    epochs: int = 0
    seconds: float = 0.0


class Trials:
    """The study of a search, and the runs of its trials.

    Args:
        search: The search, whose folder is locked by the caller.

    Raises:
        ValueError: The folder has another search, or the manifest is invalid.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        rows = load_manifest(**manifest_arguments(search.resolved), check_audio=False)
        self.data_fingerprint = fingerprint(rows)
        journal = search.out / JOURNAL
        _mend(journal)
        self.study = open_study(
            search.out, pruner=search.pruner, direction="maximize" if search.is_maximised else "minimize"
        )
        self._claim(
            {
                **self._identity(),
                "default": content_name(search.resolved, data_fingerprint=self.data_fingerprint),
            }
        )
        self._before = self._kept = float(self.study.user_attrs.get("seconds", 0.0))
        self._started = time.monotonic()
        self._begun: dict[int, Trial] = {}

    def _identity(self) -> dict[str, Any]:
        search = self.search
        return {
            "space": {dimension.name: str(dimension) for dimension in search.space},
            "metric": search.metric,
            "sampler": search.sampler,
            "pruner": search.pruner,
            "seed": search.seed,
            "training seed": search.training_seed,
            "data": self.data_fingerprint,
        }

    def _claim(self, identity: dict[str, Any]) -> None:
        """Make the study that of this search, or check that it is."""
        found = self.study.user_attrs.get("identity")
        if found is None:
            self.study.set_user_attr("identity", identity)
            return
        if differing := [name for name in identity if found.get(name) != identity[name]]:
            raise ValueError(
                f"{self.search.out} holds another search ({', '.join(differing)} differ); accepted: another "
                "out, or delete that folder"
            )

    # ------------------------------------------------------------------ asking

    def runs(self) -> Iterator[Run]:
        """The runs to do, each proposed when it is asked for: first those that were interrupted."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if (run := self._run(trial_of(self.study, frozen.number))) is not None:
                yield run
        self._enqueue()
        while self._goes_on():
            self.study.sampler = self._sampler()
            if (run := self._run(self.study.ask())) is not None:
                yield run

    def _enqueue(self) -> None:
        """The default first, then the points of a grid; what is there already is left."""
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(self._of_default())
        if self.search.sampler == "grid":
            for point in self.search.grid:
                self.study.enqueue_trial(point, skip_if_exists=True)

    def _of_default(self) -> dict[str, Any]:
        """The default's parameters: of the searched settings whose default is in the space."""
        known = {one.name: one.parameter(self.search.default[one.name]) for one in self.search.space}
        return {name: parameter for name, parameter in known.items() if parameter is not None}

    def _goes_on(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        limit, minutes = self.search.trials, self.search.minutes
        if self.search.sampler == "grid" and not waiting:
            return False
        if limit is not None and len(trials) - waiting >= limit:
            return False
        return minutes is None or self.seconds < 60 * minutes

    @property
    def seconds(self) -> float:
        """The time of all sessions of the search; of one that was killed, to within _KEEP_SECONDS."""
        return self._before + time.monotonic() - self._started

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """The sampler of the next trial, with a seed of its own: a sampler's state dies with its process."""
        number = sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.search.seed, number]).generate_state(1)[0])
        if self.search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)  # a grid's points are enqueued, and nothing is drawn

    def _run(self, trial: Trial) -> Run | None:
        """The run of a trial; None if an earlier trial had the same settings, whose value it then has."""
        known = self._of_default() if trial.number == 0 else None
        parameters = {
            dimension.name: dimension.suggest(trial)
            for dimension in self.search.space
            if known is None or dimension.name in known
        }
        same = next(
            (one for one in self.results() if _is_same(one, parameters, len(self.search.space))), None
        )
        if same is not None and trial.number:
            trial.set_user_attr("same_as", same.number if same.same_as is None else same.same_as)
            self.study.tell(trial.number, same.value)
            return None
        self._begun[trial.number] = trial
        return self._made(trial.number, {} if trial.number == 0 else parameters)

    def _made(self, number: int, parameters: dict[str, Any]) -> Run:
        name = f"{number:04}"
        settings = self.search.changed(parameters)
        if self.search.pruner is not None:
            trainer = settings.get("trainer") or {}
            pruning = {
                "class_path": f"{Pruning.__module__}.{Pruning.__qualname__}",
                "init_args": {"metric": self.search.metric, "pruner": self.search.pruner},
            }
            callbacks = [*(trainer.get("callbacks") or []), pruning]
            settings = {**settings, "trainer": {**trainer, "callbacks": callbacks}}
        return Run(
            variant=f"trial {number}",
            seed=self.search.training_seed,
            name=name,
            folder=self.search.out / TRIALS / name,
            settings=settings,
            data_fingerprint=self.data_fingerprint,
            condition="",
            evaluation=Evaluation(),
        )

    # ------------------------------------------------------------------ telling

    def take(self, event: Event) -> Result | None:
        """Keep what a runner reports; return the trial that has ended, if one has."""
        if self.seconds - self._kept >= _KEEP_SECONDS:
            self._keep_seconds()
        if event.run is None or event.state == "running":
            return None
        number = int(event.run.name)
        trial, error = self._begun.pop(number), event.error
        value = None if error else kept_epoch(event.run).get(self.search.metric)
        if value is None and not error:
            error = f"{self.search.metric} had no finite value in any epoch"
        if error:
            pruned = error.startswith(_PRUNED)
            trial.set_user_attr("reason", error.removeprefix(_PRUNED))
            self.study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        else:
            self.study.tell(number, value)
        self._keep_seconds()
        return self.results()[number]

    def _keep_seconds(self) -> None:
        self._kept = self.seconds
        self.study.set_user_attr("seconds", round(self._kept, 1))

    def results(self) -> list[Result]:
        """Every trial that was begun, by number."""
        return [
            self._result(trial)
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING
        ]

    def _result(self, trial: FrozenTrial) -> Result:
        same_as = trial.user_attrs.get("same_as")
        cost = self.search.out / TRIALS / f"{trial.number:04}" / "cost.json"
        seconds: list[float] = []
        with suppress(OSError):
            seconds = json.loads(cost.read_text(encoding="utf-8"))["seconds"]
        return Result(
            number=trial.number,
            state="failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            parameters=dict(trial.params),
            reason=trial.user_attrs.get("reason", ""),
            same_as=same_as,
            epochs=len(seconds),
            seconds=sum(seconds),
        )

    def best(self) -> Result | None:
        """The first trial with the best value; None where no trial has one."""
        complete = [result for result in self.results() if result.value is not None]
        sign = 1 if self.search.is_maximised else -1
        return max(complete, key=lambda result: sign * (result.value or 0.0), default=None)


def train_trial(run: Run) -> None:
    """Train a trial in its folder, as `mmsr fit` does, or find it trained. It reads no test rows.

    Its checkpoints, each of three times the model's size, are deleted in the end.

    Raises:
        ValueError: Another process trains there, or settings or data have faults.
        TrialPruned: The pruner has given it up.
    """
    with folder_lock(run.folder):
        try:
            train(run)
        except optuna.TrialPruned:
            _drop_checkpoints(run)
            raise
        _drop_checkpoints(run)


def _drop_checkpoints(run: Run) -> None:
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


def _is_same(result: Result, parameters: dict[str, Any], count: int) -> bool:
    """Whether a trial has a value and all of these parameters, which set every searched setting."""
    return result.value is not None and len(parameters) == count and result.parameters == parameters


def _mend(journal: Path) -> None:
    """Clear what a kill within a write leaves: half a line, and the lock, for which Optuna would wait."""
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if journal.is_file() and (content := journal.read_bytes()) and not content.endswith(b"\n"):
        write_file(journal, content[: content.rfind(b"\n") + 1])
