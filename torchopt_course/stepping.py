"""One step of an optimizer: read the formula, plan the groups, prepare everything, then do it.

All that may fail happens before the first tensor is changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from .checks import refuse_misfits, refuse_odd_groups, refuse_odd_option
from .declarations import fitting, options_of, refuse_mistakes, refuse_nan
from .engines.batch import Coefficients, Job, Scaling
from .engines.compiler import warn_once
from .engines.interception import interceptor
from .engines.layout import in_layout_of
from .engines.plan import Plan, Terms
from .engines.rules import Formula, Rule
from .engines.shards import ORDINARY, View, is_distributed, shards
from .hyperparameters import plain
from .repeats import Place, gradients, laps


class PlannedOptimizer(Optimizer):
    """An optimizer whose parameter groups are planned once and stepped by the engines.

    The public base is :class:`~torchopt_course.ElementwiseOptimizer`; this is what it does inside.
    """

    states: ClassVar[tuple[str, ...]] = ()
    optional_states: ClassVar[Mapping[str, str]] = {}
    rule: ClassVar[Rule]
    coefficients: ClassVar[Callable[..., Mapping[str, Any]]]

    # Asked by ``GradScaler``; as with torch's optimizers, true with ``fused=True``.
    _step_supports_amp_scaling: bool
    _plans: dict[int, Plan]
    _later: dict[Place, int]  # the lap in which a parameter is stepped that stands in the groups again
    _first_lap: dict[int, dict[int, tuple[str, str]]]  # where there are more: which engines took part in it

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        raise NotImplementedError

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        raise NotImplementedError

    # -- the formula ---------------------------------------------------------------------------------

    def _read_formula(self) -> None:
        """Learn what the rule and its coefficients are called with; again whenever they are replaced."""
        cls = type(self)
        refuse_mistakes(cls)
        before = self.__dict__.get("_formula")
        self._formula = Formula(cls.__name__, cls.rule, (*cls.states, *cls.optional_states), before)
        self._source = (cls.rule, cls.rule.__code__, cls.coefficients)
        self._constructor = inspect.signature(cls.__init__).parameters
        self._needs = tuple(inspect.signature(cls.coefficients).parameters)
        self._counts_steps, self._asks_first = "step" in self._needs, "first" in self._needs
        self._options = tuple(name for name in self._needs if name not in ("step", "first"))
        switches = cls.optional_states.values()
        self._needed_options = (*self._options, *switches, "maximize", "foreach", "differentiable")

    def _default_of(self, option: str) -> Any:
        """The constructor's own default; where there is none, what it was called with."""
        parameter = self._constructor.get(option)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            return self.defaults.get(option)
        return parameter.default

    def _is_plain_pair(self, name: str, value: tuple[Any, ...]) -> bool:
        """Whether these are as many numbers as the option has by default: betas, most often."""
        default = self.defaults.get(name)
        return (
            type(default) is tuple
            and len(default) == len(value)
            and _PLAIN_OPTIONS.issuperset(map(type, value))
        )

    def _kept_states(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        options = options_of(type(self), "optional_states", self.optional_states.values(), group)
        return (*self.states, *(name for name, option in self.optional_states.items() if options[option]))

    def _coefficients_after(self, group: Mapping[str, Any]) -> Coefficients:
        """The group's coefficients as a function of the number of steps already taken."""
        options = options_of(type(self), "coefficients", self._options, group)
        are_plain = True
        for name, value in options.items():
            if type(value) in _PLAIN_OPTIONS or (type(value) is tuple and self._is_plain_pair(name, value)):
                continue
            are_plain = False
            options[name] = _scalar(plain(value))
            refuse_odd_option(type(self).__name__, name, options[name], self._default_of(name))
        differentiable, evaluate = group["differentiable"], type(self).coefficients
        counts_steps, asks_first = self._counts_steps, self._asks_first

        def after(age: Any) -> Mapping[str, Any]:
            if counts_steps:
                options["step"] = age + 1
            if asks_first:
                options["first"] = age == 0
            values = evaluate(**options)
            if are_plain or differentiable or isinstance(age, Tensor) or not isinstance(values, Mapping):
                return values
            return {name: value.item() if _is_on_the_host(value) else value for name, value in values.items()}

        return after

    def _try_formula(self, group: Mapping[str, Any]) -> None:
        """Find mistakes in a rule or its coefficients before the first step."""
        evaluate = self._coefficients_after(group)
        kept = self._kept_states(group)
        try:
            with torch.no_grad():
                values = evaluate(0)
        except Exception:
            return  # an option may be set later; else the step will say it
        self._formula.specialise(kept, group["maximize"], values)
        refuse_nan(type(self), values)

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
                self._first_lap = {}
                return
            if lap == 0:
                self._first_lap = {i: plan.engines() for i, plan in self._plans.items()}
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
            self._take_back([(i, j, name) for i, j, name in created if (i, id(lists[i][j])) in again])
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
        refusal = interceptor or _refusal(group)
        return Terms(self._kept_states(group), refusal, lists, bool(group["differentiable"]))

    def _view(self, i: int, grads: list[Tensor | None]) -> View:
        view = View(self.param_groups[i]["params"], grads, self.state, set(map(type, grads)))
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
            if grad is not None and grad.layout != torch.strided and param.layout == torch.strided:
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

    # -- state -----------------------------------------------------------------------------------------

    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool:
        own, names = self.state.get(param, {}), self._kept_states(group)
        fit = all(isinstance(own.get(name), Tensor) and own[name].shape == param.shape for name in names)
        return fit and (not self._counts_steps or own.get("step") is not None)

    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]:
        """Create what is missing in a parameter's state; returns the names of what was created."""
        names = self._kept_states(group)
        if not names and not self._counts_steps:
            return []
        state = self.state.setdefault(param, {})
        missing = [name for name in names if state.get(name) is None]
        if self._counts_steps and state.get("step") is None:
            state["step"] = self._new_step(param, group)
            missing.append("step")
        for name in missing:
            if name != "step":
                where = f"the state {name!r} that {type(self).__name__}.initial_state made"
                state[name] = fitting(where, self.initial_state(name, param, group), param)
        # A checkpoint may bring states in another memory layout than the parameter has: same numbers, but the
        # fused engine walks through all of them in one order, and no engine has use for sparse ones.
        for name in names:
            if state[name].layout != torch.strided or _refusal(group) is None:
                state[name] = in_layout_of(param, state[name])
        return missing

    @staticmethod
    def _new_step(param: Tensor, group: Mapping[str, Any], value: float = 0.0) -> Tensor:
        """The step count as torch keeps it: on the CPU, unless an option says it lives with the parameter."""
        at_home = bool(group.get("capturable") or group.get("fused"))
        double = torch.get_default_dtype() == torch.float64 and not group.get("fused")
        return torch.tensor(
            value, dtype=torch.float64 if double else torch.float32, device=param.device if at_home else "cpu"
        )

    # -- errors ----------------------------------------------------------------------------------------

    def _where(self, i: int, position: int) -> str:
        names: Any = self.param_groups[i].get("param_names")
        is_named = isinstance(names, list | tuple) and position < len(names)
        return f"parameter {position} of group {i}" + (f" ({names[position]})" if is_named else "")

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
                is_odd = grad.layout != torch.strided
                takes_sparse = is_odd and self.sparse_gradients(group) != "refused"
                where, owner = self._where(i, position), type(self).__name__
                own = self.state.get(param, {})
                refuse_misfits(where, param, grad, own, names, group, owner, takes_sparse)

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


def _refusal(group: Mapping[str, Any]) -> str | None:
    """Why no fused engine may take a group, whatever its tensors are like."""
    if group["differentiable"]:
        return "differentiable=True"
    if group.get("fused") is False:
        return "fused=False"
    if group.get("fused") is None and group["foreach"] is not None:
        return f"foreach={group['foreach']}"
    return None


_PLAIN_OPTIONS = frozenset({float, int, bool})


def _is_on_the_host(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.numel() == 1


def _scalar(value: Any) -> Any:
    """An option as a number or 0-d tensor: a 1-element tensor may come in any shape."""
    if isinstance(value, Tensor) and value.dim():
        return value.squeeze()
    if isinstance(value, tuple | list):
        return tuple(_scalar(item) for item in value)
    return value
