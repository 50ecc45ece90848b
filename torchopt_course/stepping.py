"""One step of an optimizer: read the formula, plan the groups, prepare everything, then do it.

All that may fail happens before the first tensor is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .declared import DeclaredOptimizer, refusal
from .engines.apart import Terms
from .engines.bucket import Job, Scaling
from .engines.native.compiler import warn_once
from .engines.interception import interceptor
from .engines.layout import is_sparse
from .engines.plan import Plan
from .engines.shards import ORDINARY, View, is_distributed, shards
from .repeats import Place, gradients, laps
from .validation.options import refuse_odd_groups
from .validation.tensors import refuse_misfits


class PlannedOptimizer(DeclaredOptimizer):
    """An optimizer whose parameter groups are planned once and stepped by the engines.

    The public base is :class:`~torchopt_course.ElementwiseOptimizer`; this is what it does inside.
    """

    # Asked by ``GradScaler``; as with torch's optimizers, true with ``fused=True``.
    _step_supports_amp_scaling: bool
    _plans: dict[int, Plan]
    _later: dict[Place, int]  # the lap in which a parameter is stepped that shares memory with others
    _took_part: dict[int, dict[int, tuple[str, str]]]  # which engines, in all laps if there are several

    # -- one step --------------------------------------------------------------------------------------

    def _step(self) -> None:
        cls = type(self)
        if self._source != (cls.rule, cls.rule.__code__, cls.coefficients) or not self._formula.holds():
            self._plans = {}
            self._read_formula()
        for group in self.param_groups:
            if type(group) is not dict or type(group.get("params")) is not list:
                self._refuse_odd_edits()
        scaling = self._scaling()
        lap = 0
        while lap == 0 or lap <= max(self._later.values()):
            if not self._step_lap(lap, scaling):
                continue  # somebody has edited the groups: the same lap again, with other gradients
            if not self._later:
                self._took_part = {}
                return
            before = self._took_part if lap else {}
            self._took_part = {i: plan.engines() | before.get(i, {}) for i, plan in self._plans.items()}
            scaling = scaling and Scaling(None, scaling.found_inf)
            lap += 1

    def _step_lap(self, lap: int, scaling: Scaling | None) -> bool:
        """Step each parameter once; False if nothing was done, for the groups have been edited."""
        created: list[tuple[int, int, str]] = []
        try:
            grads = gradients(self.param_groups, self._later, lap)
            views = self._renew_plans(grads, created)
            if views is None:
                return False
            asks_the_host = bool(created) or self._asks_the_host
            work = [] if scaling and asks_the_host else self._prepare_all(views, scaling)
            # Asked again: a kernel may have turned out to be impossible.
            if scaling and (asks_the_host or self._asks_the_host):
                if scaling.found_inf.item():
                    self._take_back(created)
                    return True
                work = self._prepare_unscaled(views, scaling)
        except BaseException:
            # Nothing was stepped, so nothing may look as if it had been.
            self._take_back(created)
            self._refuse_odd_edits()
            raise
        try:
            for job in work:
                job()
        except BaseException:  # Ctrl-C, no memory left: what the plans know is no longer so
            self._plans = {}
            raise
        if self._later and not self._counts_steps:
            # For torch, which looks before it steps, a parameter's first step is its first each time.
            lists = [group["params"] for group in self.param_groups]
            again = {(i, id(lists[i][position])) for (i, position), n in self._later.items() if n > lap}
            if taken := [(i, j, name) for i, j, name in created if (i, id(lists[i][j])) in again]:
                self._take_back(taken)
        return True

    def _prepare_all(self, views: list[View], scaling: Scaling | None) -> list[Job]:
        return [job for i, view in enumerate(views) for job in self._prepare(i, view, scaling)]

    @property
    def _asks_the_host(self) -> bool:
        return any(plan.asks_the_host for plan in self._plans.values())

    def _take_back(self, created: list[tuple[int, int, str]]) -> None:
        for i, position, name in created:
            param = self.param_groups[i]["params"][position]
            del self.state[param][name]
            if not self.state[param]:
                del self.state[param]
        self._plans = {}

    def _renew_plans(
        self, grads: list[list[Tensor | None]], created: list[tuple[int, int, str]]
    ) -> list[View] | None:
        """Make a new plan for each group whose old one does not hold; all are checked before any is made.

        Returns for each group what the engines see of it; nothing if other parameters stand there again than
        was known. ``created`` gets the states that were made.
        """
        reason = interceptor()
        terms = [self._terms(group, reason) for group in self.param_groups]
        views = [self._view(i, grads[i]) for i in range(len(terms))]
        stale = [i for i in range(len(terms)) if not self._holds(i, terms[i], views[i])]
        if not stale and not any(plan.reasons for plan in self._plans.values()):
            return views
        if stale:
            self._plans = {i: plan for i, plan in self._plans.items() if i < len(terms)}
            if self._later != (later := laps(self.param_groups)):
                self._later = later
                return None
        # A plan that holds has been through what follows, except for the tensors that it does not fuse.
        unsure = [i for i in range(len(terms)) if i in stale or self._plans[i].reasons]
        for i in unsure:
            grads[i] = self._without_sparse(i, grads[i])
            views[i] = self._view(i, grads[i])
            self._refuse_misfits(i, grads[i])
        stale = [i for i in stale if not self._holds(i, terms[i], views[i])]
        for i in stale:
            group = self.param_groups[i]
            kept = set(self._kept_states(group))
            firsts = set()
            for position, (param, grad) in enumerate(zip(group["params"], grads[i], strict=True)):
                # The states of one that is left out today are brought into its memory layout all the same.
                if grad is not None or self._has_states(param, group):
                    names = self.complete_state(param, group)
                    # An option that is switched on late brings a new state to a parameter that has others.
                    if kept and kept.issubset(names):
                        firsts.add(position)
                    created += [(i, position, name) for name in names]
            self._refuse_shared_states(created)
            views[i] = self._view(i, grads[i])
            self._plans[i] = Plan(
                terms[i], views[i], counts_steps=self._counts_steps, firsts=frozenset(firsts)
            )
        return views

    def _holds(self, i: int, terms: Terms, view: View) -> bool:
        return i in self._plans and self._plans[i].holds(terms, view)

    def _terms(self, group: Mapping[str, Any], interceptor: str | None) -> Terms:
        lists = False if group.get("fused") is False and group["foreach"] is None else group["foreach"]
        lists = False if interceptor else lists
        why = interceptor or refusal(group)
        return Terms(self._kept_states(group), why, lists, bool(group["differentiable"]))

    def _view(self, i: int, grads: list[Tensor | None]) -> View:
        view = View(self.param_groups[i]["params"], grads, self.state, set(map(type, grads)))
        if not self._formula.is_elementwise:  # torch itself runs it on the whole DTensor
            return view
        known = self._plans.get(i)
        if (known and known.is_distributed) or (view.kinds - ORDINARY and is_distributed(view.kinds)):
            return shards(view)
        return view

    def _prepare(self, i: int, view: View, scaling: Scaling | None) -> list[Job]:
        """All that may fail in a step, before anything is changed."""
        group, plan = self.param_groups[i], self._plans[i]
        if view.params and view.params[0].device.type != "cpu":
            self._capture_health_check()
        coefficients = self._coefficients_after(group)
        specialise = partial(
            self._formula.specialise, plan.terms.states, bool(group["maximize"]), in_parts=bool(view.wrappers)
        )
        jobs = plan.prepare(view, coefficients, specialise, scaling)
        if plan.reasons:
            self._insist(i, group)
        if scaling is not None:
            # A kernel has unscaled the copy that it got of a gradient of another memory layout.
            for param, grad in zip(view.params, view.grads, strict=True):
                if grad is not None and param.grad is not None and grad is not param.grad:
                    jobs.append(partial(param.grad.copy_, grad))
        if view.wrappers:
            jobs.append(partial(torch.autograd.graph.increment_version, view.wrappers))
        return jobs

    def _capture_health_check(self) -> None:
        """torch's warning about ``capturable``, under today's name or that of before torch 2.14."""
        name = "_accelerator_graph_capture_health_check"
        (getattr(self, name, None) or self._cuda_graph_capture_health_check)()

    def _without_sparse(self, i: int, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Sparse gradients made dense, unless the rule may visit their rows alone."""
        group = self.param_groups[i]
        dense: list[Tensor | None] = []
        for param, grad in zip(group["params"], grads, strict=True):
            if grad is not None and is_sparse(grad) and not is_sparse(param):
                wanted = self.sparse_gradients(group)
                # Only coordinates tell which rows a gradient has.
                if wanted == "dense" or (wanted == "rows" and not grad.is_sparse):
                    grad = grad.to_dense()
            dense.append(grad)
        return dense

    # -- mixed precision -------------------------------------------------------------------------------

    def _scaling(self) -> Scaling | None:
        """What ``GradScaler`` has left to do, if anything."""
        found_inf = self.__dict__.get("found_inf")
        return None if found_inf is None else Scaling(self.__dict__.get("grad_scale"), found_inf)

    def _prepare_unscaled(self, views: list[View], scaling: Scaling) -> list[Job]:
        """All the work, for gradients from which the scale is gone, as after ``GradScaler.unscale_``."""
        if scaling.grad_scale is None:
            return self._prepare_all(views, None)
        self._multiply_gradients(views, scaling.grad_scale.double().reciprocal().float().item())
        try:
            return self._prepare_all(views, None)
        except BaseException:
            self._multiply_gradients(views, scaling.grad_scale.item())
            raise

    def _multiply_gradients(self, views: list[View], factor: float) -> None:
        """In ``p.grad`` and in the copies that the engines got."""
        for group, view in zip(self.param_groups, views, strict=True):
            for param, grad in zip(group["params"], view.grads, strict=True):
                if grad is not None:
                    param.grad.mul_(factor)
                    if grad is not param.grad and not is_distributed({type(param)}):
                        grad.mul_(factor)

    # -- errors ----------------------------------------------------------------------------------------

    def _refuse_odd_edits(self) -> None:
        """Groups and state are the user's to edit: what cannot be stepped any more is named."""
        refuse_odd_groups(self.param_groups, self._needed_options)
        if not isinstance(self.state, Mapping):
            raise TypeError(f"the optimizer's state must be a dictionary, got {type(self.state).__name__}")

    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None:
        group = self.param_groups[i]
        for position, (param, grad) in enumerate(zip(group["params"], grads, strict=True)):
            if grad is not None:
                names = (*self._kept_states(group), *(["step"] if self._counts_steps else []))
                takes_sparse = is_sparse(grad) and self.sparse_gradients(group) != "refused"
                where, owner = self._where(i, position), type(self).__name__
                own = self.state.get(param, {})
                refuse_misfits(where, param, grad, own, names, group, owner, takes_sparse)

    def _refuse_shared_states(self, created: list[tuple[int, int, str]]) -> None:
        """Two parameters with one state object: engines would not agree on who sees whose changes."""
        owners: dict[int, Tensor] = {}
        for i, position, name in created:
            param = self.param_groups[i]["params"][position]
            if owners.setdefault(id(self.state[param][name]), param) is not param:
                raise RuntimeError(
                    f"{type(self).__name__}.initial_state made one tensor for several, as {name!r} "
                    f"of {self._where(i, position)} among them: each needs its own, clone() it"
                )

    def _insist(self, i: int, group: Mapping[str, Any]) -> None:
        """``fused=True`` is a demand, ``fused=None`` a wish."""
        plan = self._plans[i]
        # Where each operation is followed there is nothing that a kernel could be faster at.
        if group.get("fused") and plan.left_over and interceptor() is None:
            position, reason = next(iter(plan.left_over.items()))
            raise RuntimeError(
                f"fused=True, but the fused engine cannot take {self._where(i, position)}: {reason} "
                "(`fused=True` requires all the params to be floating point Tensors of supported devices)"
            )
        if plan.trouble:
            warn_once(f"the fused CPU engine is off, steps run on the slower eager engine: {plan.trouble}")
