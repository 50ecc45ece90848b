"""Reduce on plateau: if the loss has not improved within some tolerance for k epochs, drop the rate."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, SupportsFloat, TypeAlias

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from ..validation import at_least_zero, fraction, not_nan
from .groups import copied, is_several, lrs_of, plain, separate_tensors, set_lr

Mode: TypeAlias = Literal["min", "max"]
ThresholdMode: TypeAlias = Literal["rel", "abs", "rel_magnitude"]


class PlateauDetector:
    r"""Sees one metric after another and says when they have stopped improving.

    A metric m is an improvement over the best so far, b, with threshold τ, if

    ===================  ================  ================
    ``threshold_mode``   ``mode="min"``    ``mode="max"``
    ===================  ================  ================
    ``"rel"``            m < b (1 - τ)     m > b (1 + τ)
    ``"abs"``            m < b - τ         m > b + τ
    ``"rel_magnitude"``  m < b - τ abs(b)  m > b + τ abs(b)
    ===================  ================  ================

    After more than ``patience`` epochs in a row without one, it reports a plateau, and then ignores bad
    epochs for ``cooldown`` epochs. NaN is no improvement.

    ``"rel"`` is torch's default, and meant for metrics above zero: below, its threshold lies on the wrong
    side of the best, so that a metric that stands still, or even gets worse, is an improvement (pytorch
    #47513). ``"rel_magnitude"`` agrees with it above zero and is right below.

    Args:
        mode: ``"min"`` if a smaller metric is better, ``"max"`` if a larger one is.
        patience: epochs without improvement that are put up with.
        threshold: τ, how much better counts as an improvement.
        threshold_mode: see above.
        cooldown: epochs after a plateau in which bad ones are not counted.

    Raises:
        ValueError: an option out of range.
        TypeError: an option is no number.
    """

    def __init__(
        self, mode: Mode, patience: int, threshold: float, threshold_mode: ThresholdMode, cooldown: int
    ) -> None:
        threshold = plain(threshold)
        check_comparison(mode, threshold, threshold_mode)
        at_least_zero("patience", patience)
        at_least_zero("cooldown", cooldown)
        self.mode = mode
        self.patience: int = plain(patience)
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown: int = plain(cooldown)
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self._reset()

    def _reset(self) -> None:
        """Forget every metric seen."""
        self.best = self.mode_worse
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    @property
    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def is_plateau(self, metric: float) -> bool:
        """Take in the metric of one epoch; true if it is time to drop the learning rate."""
        if self._is_better(metric, self.best):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1

        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0

        if self.num_bad_epochs <= self.patience:
            return False
        self.num_bad_epochs = 0
        self.cooldown_counter = self.cooldown
        return True

    def _is_better(self, a: float, best: float) -> bool:
        if self.threshold_mode == "rel":
            if self.mode == "min":
                return a < best * (1.0 - self.threshold)
            return a > best * (1.0 + self.threshold)
        margin = self.threshold
        if self.threshold_mode == "rel_magnitude":
            # The best is infinite until something is seen, and inf - inf would be NaN.
            margin = 0.0 if math.isinf(best) else margin * abs(best)
        return a < best - margin if self.mode == "min" else a > best + margin


class ReduceLROnPlateau(PlateauDetector, torch_schedulers.ReduceLROnPlateau):
    r"""Multiply the learning rate by ``factor`` when a metric has stopped improving.

    .. math::
        \eta \leftarrow \max(\text{factor} \cdot \eta, \; \eta_\text{min})
            \quad \text{after more than } \textit{patience} \text{ epochs in a row without an improvement}

    Drop-in for :class:`torch.optim.lr_scheduler.ReduceLROnPlateau`, checkpoints included. Call
    ``scheduler.step(metric)`` once an epoch, after validation. Groups that are added to the optimizer later
    are reduced with the others. :class:`PlateauDetector` says what an improvement is.

    Args:
        optimizer: whose learning rates to reduce, floats or tensors.
        mode: ``"min"`` (default) if a smaller metric is better, ``"max"`` if a larger one is.
        factor: of each reduction, in [0, 1) (default 0.1); 0 drops to ``min_lr`` at once.
        patience: epochs without improvement that are put up with (default 10); the next one reduces.
        threshold: τ, how much better counts as an improvement (default 1e-4).
        threshold_mode: ``"rel"`` (default) or ``"abs"`` as in torch; ``"rel_magnitude"`` is ``"rel"`` made
            right for metrics below zero.
        cooldown: epochs after a reduction in which bad ones are not counted (default 0).
        min_lr: lower bound of the learning rate (default 0); a list has one for each group.
        eps: a reduction that would change the rate by no more than this is left out (default 1e-8).
        last_epoch: the number of the last epoch done, -1 (default) if there was none. Only counted, never
            used; skorch gives one to every scheduler whose class is not torch's own.

    Raises:
        ValueError: an option out of range, or as many ``min_lr`` as there are not groups.
        TypeError: ``optimizer`` is none, or an option is no number.

    Source: lecture, "Reduce on plateau".
    """

    # Accelerate counts it up under gradient accumulation, in every scheduler; torch's has none.
    _step_count = 0

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Mode = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: ThresholdMode = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
        *,
        last_epoch: int = -1,
    ) -> None:
        PlateauDetector.__init__(self, mode, patience, threshold, threshold_mode, cooldown)
        fraction("factor", factor)
        at_least_zero("eps", eps)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        groups = optimizer.param_groups
        if is_several(min_lr):
            default_min_lr, min_lrs = None, [plain(one) for one in min_lr]  # type: ignore[union-attr]
        else:
            default_min_lr, min_lrs = plain(min_lr), [plain(min_lr)] * len(groups)
        if len(min_lrs) != len(groups):
            raise ValueError(f"expected {len(groups)} min_lrs, got {len(min_lrs)}")
        for value in min_lrs:
            at_least_zero("min_lr", value)

        self.optimizer = optimizer
        self.factor = plain(factor)
        self.default_min_lr = default_min_lr
        self.min_lrs = min_lrs
        self.eps = plain(eps)
        self.last_epoch = plain(last_epoch) + 1
        self._last_lr = lrs_of(groups)

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take in the epoch's metric, and reduce the learning rates if it is time to.

        Args:
            metrics: a number or a tensor of one.
            epoch: deprecated, as in torch: the number to give to this epoch.

        Raises:
            RuntimeError: it is time to reduce, groups have been added to the optimizer, and ``min_lr`` was
                given one by one. Nothing has been changed then: append theirs to ``min_lrs``, step again.
        """
        metric, before = float(metrics), vars(self).copy()
        if epoch is None:
            self.last_epoch += 1
        else:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
            self.last_epoch = plain(epoch)
        if self.is_plateau(metric):
            try:
                self._reduce_lr(self.last_epoch)
            except RuntimeError:
                vars(self).update(before)
                raise
        self._last_lr = lrs_of(self.optimizer.param_groups)

    def _reduce_lr(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            self._bound_new_groups(len(groups))
        separate_tensors(groups)
        for group, min_lr in zip(groups, self.min_lrs, strict=True):
            old_lr = float(group["lr"])
            new_lr = max(self.factor * old_lr, min_lr)
            if old_lr - new_lr > self.eps:
                set_lr(group, new_lr)

    def _bound_new_groups(self, count: int) -> None:
        """Groups were added to the optimizer since we were constructed, or taken from it."""
        if self.default_min_lr is None:
            raise RuntimeError(  # in torch's words
                f"The number of param groups in the `optimizer` ({count}) differs from when "
                f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due to a new param "
                "group being added to the optimizer. Please modify the `min_lrs` field to match the length "
                "of the `optimizer` param groups."
            )
        self.min_lrs = [*self.min_lrs, *[self.default_min_lr] * (count - len(self.min_lrs))][:count]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer; :class:`torch.optim.lr_scheduler.ReduceLROnPlateau` reads it too.

        Save the optimizer's state with it: the learning rates are there.
        """
        return copied({name: value for name, value in vars(self).items() if name != "optimizer"})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict` of this class or of torch's, which is left as it is.

        Raises:
            KeyError: the state of another kind of scheduler.
            ValueError: an unknown mode. Nothing has been changed then.
        """
        for name in ("mode", "threshold", "threshold_mode", "best", "num_bad_epochs"):
            if name not in state_dict:
                raise KeyError(f"{name!r} is missing: not the state of a ReduceLROnPlateau")
        check_comparison(state_dict["mode"], state_dict["threshold"], state_dict["threshold_mode"])
        vars(self).update(copied(state_dict))
        self.mode_worse = math.inf if self.mode == "min" else -math.inf


def check_comparison(mode: str, threshold: float, threshold_mode: str) -> None:
    """Refuse what no metric could be compared with.

    Raises:
        ValueError: with the value, and what was expected.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode {mode!r} is unknown (expected 'min' or 'max')")
    if threshold_mode not in ("rel", "abs", "rel_magnitude"):
        raise ValueError(
            f"threshold mode {threshold_mode!r} is unknown (expected 'rel', 'abs' or 'rel_magnitude')"
        )
    not_nan("threshold", threshold)
    if threshold_mode == "rel" and (threshold >= 1 if mode == "min" else threshold <= -1):
        expected = "below 1" if mode == "min" else "above -1"
        raise ValueError(
            f"Invalid threshold: {threshold} (expected a number {expected} for threshold_mode='rel' and "
            f"mode={mode!r}: nothing could ever be an improvement)"
        )
