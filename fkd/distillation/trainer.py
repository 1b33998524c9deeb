"""The training loop: seeded, resumable to the bit, cancellable, the same for every method."""

from __future__ import annotations

import datetime
import math
import shutil
import time
from pathlib import Path

import filelock
import torch
from torch import Tensor, nn

from fkd.core.device import choose_device
from fkd.core.disk import write_advice
from fkd.core.errors import Cancelled, ConfigError, RunError
from fkd.core.paths import models_dir
from fkd.core.progress import ProgressCallback, report
from fkd.core.seeding import seed_everything
from fkd.core.versions import package_versions
from fkd.data.base import Split
from fkd.distillation._augment import augment
from fkd.distillation._report import final_metrics
from fkd.distillation._state import TrainState, has_state, read_state, restore, save_state
from fkd.distillation.base import Batch, Clock, LossParts, Setting
from fkd.distillation.measure import evaluate_accuracy
from fkd.distillation.spec import Plan, TrainSpec, check_spec
from fkd.models import (
    Model,
    ModelCard,
    ParentTeacher,
    build,
    check_new_model,
    load_model,
    save_model,
)

#: Seconds between two reports, and between two checkpoints within one epoch.
_REPORT_EVERY = 0.5
_CHECKPOINT_EVERY = 60.0


def train_model(
    spec: TrainSpec,
    *,
    out: Path | None = None,
    progress: ProgressCallback | None = None,
    resume: bool = True,
) -> Model:
    """Train or distil one model and save it with its card.

    The same specification gives the same weights on the same device with the same number of threads,
    whether or not the run was interrupted.  The test split is measured after each epoch but decides
    nothing: the last weights are kept.

    Args:
        spec: what to train.
        out: the model's folder; None takes `models_dir` / ``spec.name``.
        progress: called within the first seconds, then about twice a second; returning True stops.
        resume: continue from ``<out>.partial`` where an earlier run with the same specification
            stopped; False discards it.

    Returns:
        The saved model.  If ``out`` holds a finished model of the same specification, teacher and
        data already and ``resume`` is set, that model.

    Raises:
        ConfigError: the specification does not fit together or the name is taken.
        DataError: the data set is absent or damaged.
        RunError: the loss is no longer finite, the folder cannot be written, another process trains
            the same model, or an unfinished run of another specification is in the way.
        Cancelled: the callback asked to stop; the checkpoint is kept.
    """
    plan = check_spec(spec)
    out = models_dir() / spec.name if out is None else Path(out)
    if resume and _is_finished(plan, out):
        report(progress, "preparing", 0, 1)
        return load_model(out)
    check_new_model(out)
    partial = out.with_name(out.name + ".partial")
    with _lock(partial):
        if not resume:
            _clear(partial)
        try:
            # Only now: a line of progress before the sentence of a refusal would confuse.
            report(progress, "preparing", 0, 1)
            run = _Run(plan, partial, progress)
        except BaseException:
            # Nothing was trained: leave no folder behind that would look like a training to resume.
            if not has_state(partial):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        run.train()
        model = save_model(out, run.network, run.card())
    shutil.rmtree(partial, ignore_errors=True)
    return model


def _is_finished(plan: Plan, out: Path) -> bool:
    """Whether ``out`` holds what the plan would make; names alone do not fix teacher and data."""
    if not (out / "card.json").is_file():
        return False
    card = load_model(out).card
    return (
        card.training_config == plan.spec.model_dump(mode="json")
        and (card.teacher.model_hash if card.teacher else None)
        == (plan.teacher.model_hash if plan.teacher else None)
        and card.data_fingerprint == plan.data_set.fingerprint("train")
    )


def _lock(partial: Path) -> filelock.AcquireReturnProxy:
    """A lock held by one training process a model, acquired; leaving its ``with`` gives it back.

    Raises:
        RunError: another process holds it, or the folder cannot be written.
    """
    try:
        partial.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(partial / "lock").acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(
            f"Another process is training into {partial}; wait for it or choose another name."
        ) from None
    except OSError as error:
        raise RunError(
            f"The folder {partial} cannot be written ({error.strerror or error}); "
            f"{write_advice(error, partial)}."
        ) from None


def _clear(partial: Path) -> None:
    """Remove checkpoints but not the lock file this process holds."""
    for entry in partial.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def training_examples(spec: TrainSpec, available: int) -> Tensor:
    """Positions, in the train split, of the examples that a run trains on: int64 (N,).

    Args:
        spec: ``train_count`` of it, chosen by its seed; all if it has none.
        available: examples in the split.
    """
    count = min(available, spec.train_count or available)
    if count == available:
        return torch.arange(count)
    chooser = torch.Generator().manual_seed(spec.seed)
    return torch.randperm(available, generator=chooser)[:count]


class _Run:
    """One training run in progress."""

    def __init__(self, plan: Plan, partial: Path, progress: ProgressCallback | None) -> None:
        self.plan = plan
        self.spec = spec = plan.spec
        self.partial = partial
        self.progress = progress
        self.device = choose_device(spec.device)
        self.train_split = plan.data_set.load("train")
        self.test_split = plan.data_set.load("test")
        example_ids = training_examples(spec, len(self.train_split))
        self.count = len(example_ids)
        self.steps_per_epoch = math.ceil(self.count / spec.batch_size)
        self.total_steps = spec.epochs * self.steps_per_epoch
        self.mean, self.std = plan.data_set.channel_statistics()
        seed_everything(spec.seed)
        self.network = build(
            spec.architecture,
            spec.architecture_config,
            image_shape=plan.data_set.image_shape,
            num_classes=plan.data_set.num_classes,
            mean=self.mean,
            std=self.std,
            seed=spec.seed,
        ).to(self.device)
        self.teacher: nn.Module | None = None
        if plan.teacher is not None:
            self.teacher = plan.teacher.network.to(self.device)
        self.images = self.train_split.images.to(self.device)
        self.labels = self.train_split.labels.to(self.device)
        self.setting = Setting(
            teacher=self.teacher,
            student=self.network,
            images=self.images,
            labels=self.labels,
            example_ids=example_ids.to(self.device),
            num_classes=plan.data_set.num_classes,
            batch_size=spec.batch_size,
            seed=spec.seed,
        )
        self.extra = plan.method.extra
        plan.method.set_up(self.setting)
        self.extra.to(self.device)
        #: The examples of the current epoch; None for all.
        self.chosen: Tensor | None = None
        self.optimiser = _optimiser(spec, [*self.network.parameters(), *self.extra.parameters()])
        self.state = TrainState(
            spec=spec.model_dump(mode="json"),
            teacher_hash=plan.teacher.model_hash if plan.teacher else None,
            data_fingerprint=self.train_split.fingerprint,
        )
        self._continue_or_begin()

    def _continue_or_begin(self) -> None:
        found = read_state(self.partial)
        if found is None:
            self.plan.method.prepare(self.setting)
            # Written before the first step, so that an unusable folder costs no training.
            self._write()
            return
        state, tensors, values = found
        for what in ("spec", "teacher_hash", "data_fingerprint"):
            if getattr(state, what) != getattr(self.state, what):
                raise RunError(_other_run(self.partial, what, state.spec, self.state.spec))
        self.state = state
        chosen = restore(tensors, values, self.network, self.optimiser, self.extra)
        self.chosen = None if chosen is None else chosen.to(self.device)

    def train(self) -> None:
        """All remaining steps, then the final measurements."""
        self.state.seconds -= time.monotonic()
        try:
            while self.state.step < self.total_steps or self.state.sums:
                # A run can stop between an epoch's last step and its end: `sums` tells.
                if self.state.sums and self.state.step % self.steps_per_epoch == 0:
                    self._finish_epoch()
                else:
                    self._epoch()
            self.network.eval()
            self.metrics = final_metrics(
                self.network,
                self.teacher if self.plan.is_same_task else None,
                self.test_split,
                epsilons=self.plan.report_epsilons,
                count=self.spec.report_count,
                steps=self.spec.report_steps,
                seed=self.spec.seed,
                progress=self.progress,
            )
        except Cancelled:
            self.save()
            raise

    def save(self) -> None:
        """Write the checkpoint."""
        now = time.monotonic()
        self.state.seconds += now
        self._write()
        self.state.seconds -= now

    def _write(self) -> None:
        save_state(self.partial, self.state, self.network, self.optimiser, self.extra, self.chosen)

    def _order(self, epoch: int) -> Tensor:
        """This epoch's order of the examples: a function of seed, epoch and who takes part alone."""
        generator = torch.Generator().manual_seed(self.spec.seed * 1_000_003 + epoch)
        order = torch.randperm(self.count, generator=generator).to(self.device)
        ids = self.setting.example_ids[order]
        return ids if self.chosen is None else ids[self.chosen[ids]]

    def _epoch(self) -> None:
        """The epoch's remaining steps."""
        state, spec = self.state, self.spec
        images, labels = self.images, self.labels
        epoch, done = divmod(state.step, self.steps_per_epoch)
        if done == 0:
            self.network.eval()
            self.chosen = self.plan.method.choose_examples(self.setting, epoch)
            if self.chosen is not None and not self.chosen[self.setting.example_ids].any():
                raise RunError(
                    f"The method '{spec.method}' left no example for epoch {epoch + 1}; change its "
                    "settings."
                )
        batches = self._order(epoch).split(spec.batch_size)
        state.batches = len(batches)
        self.network.train()
        sums: dict[str, Tensor] = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in state.sums.items()
        }
        reported = 0.0
        saved = time.monotonic()
        for ids in batches[done:]:
            rate = learning_rate(spec, state.step / self.total_steps)
            parts = self._step(images[ids], labels[ids], ids, epoch, rate)
            logged = {
                name: value.detach() if isinstance(value, Tensor) else value
                for name, value in {**parts, **parts.observed}.items()
            }
            for name, value in logged.items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + float(value)
            state.step += 1
            state.examples += len(ids)
            now = time.monotonic()
            state.sums = {name: float(value) for name, value in sums.items()}
            if not math.isfinite(state.sums["total"]):
                raise self._diverged(epoch)
            if now - saved > _CHECKPOINT_EVERY:
                self.save()
                saved = now
            if now - reported > _REPORT_EVERY:
                reported = now
                shown = {name: float(value) for name, value in logged.items()}
                self._report(epoch, rate, shown)
        # An epoch of fewer examples ends early, and the schedules go on as after a whole one.
        state.step = (epoch + 1) * self.steps_per_epoch

    def _step(
        self, images: Tensor, labels: Tensor, ids: Tensor, epoch: int, rate: float
    ) -> LossParts:
        """One update of the weights."""
        spec, method, step = self.spec, self.plan.method, self.state.step
        images = augment(images, ids, shift=spec.shift, flip=spec.flip, seed=spec.seed, step=step)
        batch = Batch(images, labels, ids, seed=spec.seed, step=step)
        clock = Clock(step=step, epoch=epoch, total_steps=self.total_steps)
        is_mixed = spec.mixed_precision and self.device.type == "cuda" and not method.uses_bounds
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_mixed):
            parts = method.loss(batch, self.teacher, self.network, clock)
        if parts.is_idle and step == 0:
            raise ConfigError(
                f"The settings of {spec.method} leave nothing to learn: every weight of its loss is 0; "
                "give one of its parts a weight above 0."
            )
        self.optimiser.zero_grad(set_to_none=True)
        parts["total"].backward()
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, spec.gradient_clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # A step along a gradient that is not finite would spoil the weights for good.
        if not torch.isfinite(norm):
            raise self._diverged(epoch)
        self.optimiser.step()
        return parts

    def _report(self, epoch: int, rate: float, values: dict[str, float]) -> None:
        shown = {("loss" if name == "total" else name): value for name, value in values.items()}
        report(
            self.progress,
            "training",
            self.state.step,
            self.total_steps,
            epoch=epoch + 1,
            epochs=self.spec.epochs,
            learning_rate=rate,
            **shown,
        )

    def _finish_epoch(self) -> None:
        """Measure, record and save after an epoch's last step."""
        state = self.state
        epoch = state.step // self.steps_per_epoch - 1
        rate = learning_rate(self.spec, (state.step - 1) / self.total_steps)
        self.network.eval()
        self.plan.method.finish_epoch(self.setting)
        # Checkpoints from before epochs could be shorter do not say how long this one was.
        batches = state.batches or self.steps_per_epoch
        means = {name: value / batches for name, value in state.sums.items()}
        entry = {
            "epoch": float(epoch + 1),
            "loss": means.pop("total"),
            **means,
            "learning_rate": rate,
            "examples": float(state.examples),
            "clean_accuracy": evaluate_accuracy(self.network, self.test_split),
        }
        state.history.append(entry)
        state.sums = {}
        if not all(bool(torch.isfinite(p).all()) for p in self.network.parameters()):
            raise self._diverged(epoch)
        self.save()
        shown = {k: v for k, v in entry.items() if k not in ("epoch", "learning_rate", "examples")}
        self._report(epoch, rate, shown)

    def _diverged(self, epoch: int) -> RunError:
        return RunError(
            f"The loss stopped being a finite number in epoch {epoch + 1} (step {self.state.step + 1}"
            f" of {self.total_steps}); lower the learning rate (it was {self.spec.learning_rate:g}), "
            f"the last good checkpoint is kept in {self.partial}."
        )

    def card(self) -> ModelCard:
        """The finished model's card."""
        plan, spec, teacher = self.plan, self.spec, self.plan.teacher
        return ModelCard(
            name=spec.name,
            role=plan.method.role,
            dataset=spec.dataset,
            method=spec.method,
            method_config=plan.method.config.model_dump(mode="json"),
            training_config=self.state.spec,
            architecture=spec.architecture,
            architecture_config=plan.architecture_config,
            image_shape=plan.data_set.image_shape,
            num_classes=plan.data_set.num_classes,
            mean=tuple(self.mean),
            std=tuple(self.std),
            epsilon=plan.epsilon,
            seed=spec.seed,
            teacher=ParentTeacher(name=teacher.name, model_hash=teacher.model_hash)
            if teacher
            else None,
            metrics=self.metrics,
            history=self.state.history,
            data_fingerprint=self.train_split.fingerprint,
            versions=package_versions(),
            device=str(self.device),
            seconds=round(self.state.seconds + time.monotonic(), 1),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def _optimiser(spec: TrainSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimiser == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=spec.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=spec.weight_decay,
        )
    kind = torch.optim.AdamW if spec.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)


def learning_rate(spec: TrainSpec, fraction: float) -> float:
    """The schedule's learning rate after ``fraction`` (in [0, 1)) of the run."""
    highest = spec.learning_rate
    if spec.schedule == "constant":
        return highest
    if spec.schedule == "cosine":
        return highest * 0.5 * (1.0 + math.cos(math.pi * fraction))
    if spec.schedule == "steps":
        return highest * 0.1 ** sum(fraction >= edge for edge in (0.6, 0.8, 0.9))
    if fraction < 0.2:
        return highest * (0.05 + 0.95 * fraction / 0.2)
    return highest * 0.5 * (1.0 + math.cos(math.pi * (fraction - 0.2) / 0.8))


def _other_run(partial: Path, what: str, old: dict, new: dict) -> str:
    """One sentence on how an unfinished run differs from the one asked for."""
    change = {"teacher_hash": "another teacher", "data_fingerprint": "other training data"}.get(
        what
    )
    if change is None:
        name = next(k for k in sorted({*old, *new}) if old.get(k) != new.get(k))
        change = f"{name} {old.get(name)!r} instead of {new.get(name)!r}"
    return (
        f"{partial} holds an unfinished training with {change}; start without resuming to discard "
        "it, or choose another name."
    )


__all__ = ["Split", "TrainSpec", "learning_rate", "train_model"]
