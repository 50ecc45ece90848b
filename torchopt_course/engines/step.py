"""One step of an optimizer: refresh the groups, prepare everything, then do it, or take everything back.

All that may fail happens before the first tensor is changed.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakSet

from torch import Tensor

from .bucket import Scaling, Update
from .group import Created, Group
from .interception import interceptor
from .local import is_distributed
from .native import step as native
from .native.compiler import warn_once
from .prepared import Preparation, PreparedStep
from .prepared_group import Optimizer as Preparable
from .repeats import Place, gradients, laps
from .several import Found, NotFound, find, renewals
from .shared_states import refuse_shared_states


class Optimizer(Protocol):
    """What a step asks of its optimizer.

    One that steps each of its groups by a rule of another class has a part for each of these, that shares its
    groups and states.
    """

    param_groups: list[dict[str, Any]]
    state: defaultdict[Tensor, Any]

    def _capture_health_check(self) -> None: ...

    def _part(self, i: int) -> Preparable: ...
    def _refuse_odd_edits(self) -> None: ...
    def _where(self, i: int, position: int) -> str: ...


class Stepper:
    """The groups of an optimizer, planned.

    Attributes:
        groups: one for each of ``optimizer.param_groups``.
        prepared: the next step as one call, if that is possible.
        turn: threads that step the same optimizer do it one after the other: what one has prepared would be
            gone when another has planned anew.
    """

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self._later: dict[Place, int] = {}  # the lap in which a parameter is stepped that shares memory
        self._took_part: dict[int, dict[int, tuple[str, str]]] = {}  # which engines, in all of several laps
        self._prepares_gradients = False  # whether rules see other gradients than the parameters'
        self.prepared: PreparedStep | None = None
        self._preparation = Preparation()
        self.turn = threading.RLock()
        _steppers.add(self)

    def step(self, optimizer: Optimizer, scaling: Scaling | None) -> None:
        """Step every parameter that has a gradient, once for each time that it stands in the groups."""
        for group in optimizer.param_groups:
            if type(group) is not dict or type(group.get("params")) is not list:
                optimizer._refuse_odd_edits()
        if not native.is_ready():
            native.make_ready_in_time()
        lap = 0
        while lap == 0 or lap <= max(self._later.values()):
            if not self._lap(optimizer, lap, scaling):
                continue  # somebody has edited the groups: the same lap again, with other gradients
            if not self._later:
                self._took_part = {}
                break
            before = self._took_part if lap else {}
            self._took_part = {
                group.index: group.engines | before.get(group.index, {}) for group in self.groups
            }
            scaling = scaling and Scaling(None, scaling.found_inf)
            lap += 1
        if native.is_waiting():
            sizes = [bucket.size for group in self.groups for bucket in group.buckets]
            native.count_work(sum(size.tensors for size in sizes), sum(size.elements for size in sizes))
        parts = [optimizer._part(group.index) for group in self.groups]
        is_usual = scaling is None and not self._later and not self._prepares_gradients
        if is_usual and {id(optimizer)} == {*map(id, parts)}:
            self.prepared = self._preparation.of_next(parts[0], self.groups, self.prepared)
        else:
            self.prepared = None

    def engines(self, index: int) -> dict[int, tuple[str, str]]:
        """For each parameter of a group in the last step: which engine took it, and why no faster one."""
        if index >= len(self.groups):
            return {}
        return self._took_part.get(index) or self.groups[index].engines

    def forget(self) -> None:
        """What is known of the groups is no longer so."""
        self.groups, self.prepared = [], None

    def _lap(self, optimizer: Optimizer, lap: int, scaling: Scaling | None) -> bool:
        """Step each parameter once; False if nothing was done, for the groups have been edited."""
        created: list[Created] = []
        try:
            if not self._refresh(optimizer, self._gradients(optimizer, lap), created):
                return False
            needs_host_sync = bool(created) or self._needs_host_sync
            updates = [] if scaling and needs_host_sync else self._prepare(optimizer, scaling)
            # Asked again: a kernel may have turned out to be impossible.
            if scaling and (needs_host_sync or self._needs_host_sync):
                if scaling.found_inf.item():
                    self._take_back(optimizer, created)
                    return True
                updates = self._prepare_unscaled(optimizer, scaling)
        except BaseException:
            # Nothing was stepped, so nothing may look as if it had been.
            self._take_back(optimizer, created)
            optimizer._refuse_odd_edits()
            raise
        finally:
            tensors = [group.__dict__.pop("local", None) for group in self.groups]
        try:
            for update in updates:
                update()
        except BaseException:  # Ctrl-C, no memory left: what the plans know is no longer so
            self.forget()
            raise
        del tensors
        if self._later:
            # For torch, which looks before it steps, a parameter's first step is its first each time.
            lists = [group["params"] for group in optimizer.param_groups]
            again = {(i, id(lists[i][position])) for (i, position), n in self._later.items() if n > lap}
            again = {(i, each) for i, each in again if not optimizer._part(i)._counts_steps}
            if taken := [(i, j, name) for i, j, name in created if (i, id(lists[i][j])) in again]:
                self._take_back(optimizer, taken)
        return True

    def _gradients(self, optimizer: Optimizer, lap: int) -> list[list[Tensor | None]]:
        """The gradients of a lap, as the rules shall see them."""
        grads = gradients(optimizer.param_groups, self._later, lap)
        self._prepares_gradients = False
        for i, group in enumerate(optimizer.param_groups):
            part = optimizer._part(i)
            if part._prepares_gradients:
                self._prepares_gradients = True
                grads[i] = part._prepared_gradients(group, part._without_sparse(group, grads[i]))
        return grads

    def _refresh(
        self, optimizer: Optimizer, grads: list[list[Tensor | None]], created: list[Created]
    ) -> bool:
        """Plan each group anew whose plan does not hold; all are checked before any is planned.

        Returns whether the same parameters share memory as before. ``created`` gets the new states.
        """
        reason = interceptor()
        del self.groups[len(grads) :]
        self.groups += [Group(i) for i in range(len(self.groups), len(grads))]
        for group in self.groups:
            group.see(optimizer._part(group.index), grads[group.index], reason)
        stale = [group for group in self.groups if not group.holds()]
        may_share = bool(stale) or any(group.has_moved for group in self.groups)
        if may_share and self._later != (later := laps(optimizer.param_groups)):
            self._later = later
            return False
        # A plan that holds has been through what follows, but for the tensors that it knows nothing of.
        checked = [group for group in self.groups if group in stale or group.rest.positions]
        for group in checked:
            group.check(optimizer._part(group.index), grads[group.index], reason)
        # Asked again: what they see is new, and so must be their copies of gradients of another layout.
        planned = [group for group in checked if not group.holds()]
        for group in planned:
            group.plan(optimizer._part(group.index), created, reason)
        if planned or may_share:
            refuse_shared_states(optimizer, self.groups, created)
        return True

    def _prepare(self, optimizer: Optimizer, scaling: Scaling | None) -> list[Update]:
        for group in self.groups:
            if group.local.params and group.local.params[0].device.type != "cpu":
                optimizer._capture_health_check()
        if any(optimizer._part(group.index)._parsed_rule.sees_several for group in self.groups):
            return self._prepare_together(optimizer, scaling)
        try:
            return self._prepare_each(optimizer, {}, scaling)
        except NotFound:  # by what options and steps are now, the rule has become one that sees several
            return self._prepare_together(optimizer, scaling)

    def _prepare_together(self, optimizer: Optimizer, scaling: Scaling | None) -> list[Update]:
        """The same, where a rule makes numbers of several tensors: of all that it steps, or none."""
        if self._later:
            i, position = next(iter(self._later))
            raise RuntimeError(
                f"{optimizer._where(i, position)} shares memory with another and is stepped after it, but "
                f"{type(optimizer._part(i)).__name__}.rule makes numbers of several tensors, which would be "
                "of a part of them each time: give each parameter once"
            )
        known = find(self.groups, optimizer._part, scaling)
        updates = self._prepare_each(optimizer, known, scaling)
        return [*updates, *renewals(self.groups, optimizer._part, known, scaling)]

    def _prepare_each(
        self, optimizer: Optimizer, known: Mapping[int, Found], scaling: Scaling | None
    ) -> list[Update]:
        updates = []
        for group in self.groups:
            part = optimizer._part(group.index)
            updates += group.prepare(part, known.get(group.index, {}), scaling)
            self._insist(optimizer, group)
        return updates

    @property
    def _needs_host_sync(self) -> bool:
        # A kernel would write the scaled gradient that it has prepared over the one that was given.
        return self._prepares_gradients or any(group.needs_host_sync for group in self.groups)

    def _take_back(self, optimizer: Optimizer, created: list[Created]) -> None:
        for i, position, name in created:
            param = optimizer.param_groups[i]["params"][position]
            del optimizer.state[param][name]
            if not optimizer.state[param]:
                del optimizer.state[param]
        self.forget()

    @staticmethod
    def _insist(optimizer: Optimizer, group: Group) -> None:
        """``fused=True`` is a demand, ``fused=None`` a wish."""
        # Where each operation is followed there is nothing that a kernel could be faster at.
        demanded = optimizer.param_groups[group.index].get("fused") and not group.options.is_followed
        if demanded and (slow := group.left_over):
            position, reason = next(iter(slow.items()))
            where = optimizer._where(group.index, position)
            raise RuntimeError(
                f"fused=True, but the fused engine cannot take {where}: {reason} "
                "(`fused=True` requires all the params to be floating point Tensors of supported devices)"
            )
        if group.trouble:
            warn_once(f"the fused CPU engine is off, steps run on the slower eager engine: {group.trouble}")

    # -- mixed precision -------------------------------------------------------------------------------

    def _prepare_unscaled(self, optimizer: Optimizer, scaling: Scaling) -> list[Update]:
        """All the work, for gradients from which the scale is gone, as after ``GradScaler.unscale_``."""
        if scaling.grad_scale is None:
            return self._prepare(optimizer, None)
        self._multiply_gradients(optimizer, scaling.grad_scale.double().reciprocal().float().item())
        try:
            return self._prepare(optimizer, None)
        except BaseException:
            self._multiply_gradients(optimizer, scaling.grad_scale.item())
            raise

    def _multiply_gradients(self, optimizer: Optimizer, factor: float) -> None:
        """In ``p.grad`` and in the copies that the engines got."""
        for group in self.groups:
            params = optimizer.param_groups[group.index]["params"]
            for param, grad in zip(params, group.local.grads, strict=True):
                if grad is not None:
                    param.grad.mul_(factor)
                    if grad is not param.grad and not is_distributed({type(param)}):
                        grad.mul_(factor)


_steppers: WeakSet[Stepper] = WeakSet()


def _begin_turns_anew() -> None:
    """A forked child has the turns of threads that it does not have: waiting for them would be for ever."""
    for stepper in _steppers:
        stepper.turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_turns_anew)


class Paused(Stepper):
    """In the place of a stepper for as long as steps would be wrong.

    Args:
        why: what to say then.
        groups: those that were stepped before, for reports.
    """

    def __init__(self, why: str, groups: list[Group]) -> None:
        super().__init__()
        self.why, self.groups = why, groups

    def step(self, optimizer: Optimizer, scaling: Scaling | None) -> None:
        raise RuntimeError(self.why)

    def forget(self) -> None:
        pass
