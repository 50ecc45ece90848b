"""The base of every optimizer here, and of the one that you write: a rule, its coefficients, its states."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .checkpoint import refuse_foreign
from .checks import refuse_duplicates, refuse_misfits
from .engines.batch import Coefficients, Job, Scaling
from .engines.compiler import warn_once
from .engines.layout import in_layout_of
from .engines.plan import Plan, Terms
from .engines.rules import Formula, Rule
from .engines.shards import Shards, View, is_distributed
from .hyperparameters import at_least_zero, not_nan

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
# What a rule computes with: a tensor, or one number of it in a compiled kernel.
Value: TypeAlias = Any


class ElementwiseOptimizer(Optimizer):
    r"""Base class of optimizers that treat each element of each parameter alike.

    A subclass writes down its update once and gets everything else: validation, state, checkpoints that
    ``torch.optim`` understands, the fused CPU engine and the eager engine for all that torch can do::

        import torch as xp

        class Lion(ElementwiseOptimizer):
            '''p -= lr * sign(interpolated momentum), decoupled decay (Chen et al., 2023).'''
            states = ("exp_avg",)

            def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
                super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

            @staticmethod
            def coefficients(lr, betas, weight_decay):
                return dict(lr=lr, mix=1 - betas[0], fresh=1 - betas[1], decay=lr * weight_decay)

            @staticmethod
            def rule(p, g, exp_avg, lr, mix, fresh, decay):
                update = exp_avg + mix * (g - exp_avg)
                return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)

    Attributes:
        states: names of the states that are always kept, each a tensor like its parameter, at first zero.
        optional_states: names of states that are kept only while an option is truthy, with that option's
            name; where it is not, the rule gets ``None`` and returns what it likes.

    ``rule(p, g, *states, *optional_states, *coefficients)`` returns the new ``p`` and states in the same
    order (without states, just ``p``). It uses operators and functions of the module global ``xp`` only,
    which each engine binds to its own namespace; ``import torch as xp`` makes the rule run as it stands.

    ``coefficients(...)`` names what it needs: ``step`` (1, 2, ...; then every parameter keeps a ``"step"``
    as in torch), ``first`` (true in the first step of a parameter) and any of the group's options. It
    returns a dictionary. Numbers may change from step to step; ``None`` and booleans choose the terms of
    the formula, and each choice is compiled into a kernel of its own.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
        defaults: the options. ``maximize`` (default ``False``), ``foreach``, ``fused`` (``None``) and
            ``differentiable`` (``False``) are added where missing. ``fused=None`` picks the fastest engine
            that is right for each parameter, ``fused=True`` insists on the fused one, ``fused=False`` and
            ``foreach=False`` give the eager reference.

    Raises:
        TypeError: something that is not a tensor among ``params``; a rule whose parameters do not fit.
        ValueError: an option out of range, a non-leaf or duplicate parameter.
        RuntimeError: options that exclude one another. In :meth:`step`: a gradient or state that does not
            fit its parameter, or ``fused=True`` where that is impossible; nothing has been updated then.
    """

    states: ClassVar[tuple[str, ...]] = ()
    optional_states: ClassVar[Mapping[str, str]] = {}
    rule: ClassVar[Rule]
    coefficients: ClassVar[Callable[..., Mapping[str, Any]]]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        engine = {"foreach": None, "maximize": False, "differentiable": False, "fused": None}
        defaults = {**defaults, **{name: value for name, value in engine.items() if name not in defaults}}
        self._plans: dict[int, Plan] = {}
        self._shards: dict[int, Shards] = {}
        self._read_formula()
        self.defaults = defaults
        self.check_options(defaults)
        super().__init__(params, defaults)

    # -- the formula ---------------------------------------------------------------------------------

    def _read_formula(self) -> None:
        """Learn what the rule and its coefficients are called with; again whenever they are replaced."""
        cls = type(self)
        self._formula = Formula(cls.__name__, cls.rule, (*cls.states, *cls.optional_states))
        self._source = (cls.rule, cls.rule.__code__, cls.coefficients)
        self._needs = tuple(inspect.signature(cls.coefficients).parameters)
        self._counts_steps, self._asks_first = "step" in self._needs, "first" in self._needs
        self._options = tuple(name for name in self._needs if name not in ("step", "first"))

    def _kept_states(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        optional = (name for name, option in self.optional_states.items() if group[option])
        return (*self.states, *optional)

    def _coefficients_after(self, group: Mapping[str, Any]) -> Coefficients:
        """The group's coefficients as a function of the number of steps already taken."""
        options = {name: group[name] for name in self._options}
        plain = all(type(value) in _PLAIN_OPTIONS for value in options.values())
        if not plain:
            options = {name: _scalar(value) for name, value in options.items()}
        differentiable, evaluate = group["differentiable"], type(self).coefficients
        counts_steps, asks_first = self._counts_steps, self._asks_first

        def after(age: Any) -> Mapping[str, Any]:
            if counts_steps:
                options["step"] = age + 1
            if asks_first:
                options["first"] = age == 0
            values = evaluate(**options)
            if plain or differentiable or isinstance(age, Tensor):
                return values
            return {
                name: value.item() if isinstance(value, Tensor) and value.device.type == "cpu" else value
                for name, value in values.items()
            }

        return after

    # -- what a subclass may extend --------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options out of range: the defaults, and those of each parameter group.

        Extend it for your own; :mod:`torchopt_course.hyperparameters` has the usual checks.

        Raises:
            ValueError, TypeError, RuntimeError: with the value and what was expected.
        """
        if isinstance(options.get("lr"), Tensor) and options["lr"].numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(options['lr'].shape)}")
        for name, label in {"lr": "learning rate", "weight_decay": "weight_decay value"}.items():
            if name in options:
                at_least_zero(label, options[name])
        for name, value in options.items():
            not_nan(name, value)
        if options.get("fused") and options.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if options.get("fused") and options.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A new state tensor: zeros like the parameter, also in memory layout."""
        return torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        """What is done with sparse gradients.

        ``"rows"``: the rule changes nothing where a gradient is zero, so only the rows that a sparse gradient
        has are visited; ``"dense"``: they are made dense; ``"refused"`` (default): an error, as in torch.
        """
        return "refused"

    # -- torch.optim.Optimizer -------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, see :meth:`torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: options out of range, a parameter twice in the group or already in another.
        """
        if isinstance(param_group, dict):
            self.check_options({**self.defaults, **param_group})
            params = param_group.get("params")
            if params is not None and not isinstance(params, Tensor | set):
                param_group["params"] = list(params)  # in place, as torch: the dictionary is the group
                refuse_duplicates(param_group["params"])
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer, also one that ``torch.optim`` has written.

        Raises:
            TypeError, KeyError, ValueError: it is not one of this optimizer's, see
                :func:`torchopt_course.checkpoint.refuse_foreign`. Nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dictionary, got {type(state_dict).__name__}")
        # As the last of the pre-hooks: those of the user may make a foreign state_dict fit.
        check = self.register_load_state_dict_pre_hook(refuse_foreign)  # type: ignore[arg-type]
        try:
            super().load_state_dict(state_dict)
        finally:
            check.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans, self._shards = {}, {}
        self._read_formula()
        # An older checkpoint may lack options that were added since: they are off, as in the constructor.
        constructor = inspect.signature(type(self).__init__).parameters
        for group in self.param_groups:
            for name in self.defaults:
                default = constructor[name].default if name in constructor else inspect.Parameter.empty
                group.setdefault(name, self.defaults[name] if default is inspect.Parameter.empty else default)
            for param in group["params"]:
                if self.state.get(param, {}) is None:  # as ZeroRedundancyOptimizer marks the states of others
                    del self.state[param]
                step = self.state[param].get("step") if param in self.state else None
                if step is not None and not isinstance(step, Tensor):
                    self.state[param]["step"] = self._new_step(param, group, float(step))

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss anew, with gradients, and returns it.

        Raises:
            RuntimeError: a gradient or a state does not fit its parameter. Nothing has been updated.
        """
        if torch.compiler.is_dynamo_compiling():
            return self._untraced_step(closure)
        # A subclass with a `step` of its own has been wrapped by torch, and calls this one from inside.
        is_outermost = type(self).step is ElementwiseOptimizer.step
        if is_outermost and (torch._C._autograd._profiler_enabled() or any(self._hooks)):
            return self._listened_step(closure)
        return self._plain_step(closure)

    # torch would wrap `step` to call hooks and to tell the profiler, at a cost larger than that of a small
    # step. We take the same wrapper, but only when there is somebody who listens.
    step.hooked = True  # type: ignore[attr-defined]

    def _plain_step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        recording = torch.is_grad_enabled()
        torch._C._set_grad_enabled(self.defaults["differentiable"])
        try:
            self._step()
        finally:
            torch._C._set_grad_enabled(recording)
        return loss

    # torch.compile has nothing to gain from a step that is compiled already: it calls it as it is.
    @_disable_dynamo
    def _untraced_step(self, closure: Callable[[], float] | None = None) -> float | None:
        return self.step(closure) if closure is not None else self.step()

    _listened_step = Optimizer.profile_hook_step(_plain_step)

    @property
    def _hooks(self) -> tuple[Mapping[int, object], ...]:
        return (
            self._optimizer_step_pre_hooks,
            self._optimizer_step_post_hooks,
            _global_optimizer_pre_hooks,
            _global_optimizer_post_hooks,
        )

    # -- one step --------------------------------------------------------------------------------------

    def _step(self) -> None:
        cls = type(self)
        if self._source != (cls.rule, cls.rule.__code__, cls.coefficients):
            self._plans = {}
            self._read_formula()
        grads = [[param.grad for param in group["params"]] for group in self.param_groups]
        created: list[tuple[int, int, str]] = []
        scaling = self._scaling()
        try:
            views = self._renew_plans(grads, created)
            work = self._prepare_all(views, scaling)
            if scaling is not None and (created or any(plan.asks_the_host for plan in self._plans.values())):
                if scaling.found_inf.item():
                    self._take_back(created)
                    return
                work = [partial(self._unscale, views, scaling), *self._prepare_all(views, None)]
        except BaseException:
            # Nothing was stepped, so nothing may look as if it had been.
            self._take_back(created)
            raise
        for job in work:
            job()

    def _prepare_all(self, views: list[View], scaling: Scaling | None) -> list[Job]:
        return [job for i, view in enumerate(views) for job in self._prepare(i, view, scaling)]

    def _take_back(self, created: list[tuple[int, int, str]]) -> None:
        for i, position, name in created:
            del self.state[self.param_groups[i]["params"][position]][name]
        self._plans = {}

    def _renew_plans(
        self, grads: list[list[Tensor | None]], created: list[tuple[int, int, str]]
    ) -> list[View]:
        """Make a new plan for each group whose old one does not hold; all are checked before any is made.

        Returns for each group what the engines see of it. ``created`` gets the states that were made.
        """
        terms = [self._terms(group) for group in self.param_groups]
        views = [self._view(i, grads[i]) for i in range(len(terms))]
        stale = [i for i in range(len(terms)) if not self._holds(i, terms[i], views[i])]
        # A plan that holds has been through what follows, except for the tensors that it does not fuse.
        unsure = [i for i in range(len(terms)) if i in stale or self._plans[i].reasons]
        for i in unsure:
            grads[i] = self._without_sparse(i, grads[i])
            views[i] = self._view(i, grads[i])
            self._refuse_misfits(i, grads[i])
        stale = [i for i in stale if not self._holds(i, terms[i], views[i])]
        for i in stale:
            group = self.param_groups[i]
            firsts = set()
            for position, (param, grad) in enumerate(zip(group["params"], grads[i], strict=True)):
                if grad is not None:
                    names = self.complete_state(param, group)
                    if names:
                        firsts.add(position)
                    created += [(i, position, name) for name in names]
            views[i] = self._view(i, grads[i])
            self._plans[i] = Plan(
                terms[i], views[i], counts_steps=self._counts_steps, firsts=frozenset(firsts)
            )
        return views

    def _holds(self, i: int, terms: Terms, view: View) -> bool:
        return i in self._plans and self._plans[i].holds(terms, view)

    def _terms(self, group: Mapping[str, Any]) -> Terms:
        lists = False if group["fused"] is False and group["foreach"] is None else group["foreach"]
        return Terms(self._kept_states(group), _refusal(group), lists, bool(group["differentiable"]))

    def _view(self, i: int, grads: list[Tensor | None]) -> View:
        view = View(self.param_groups[i]["params"], grads, self.state, set(map(type, grads)))
        if is_distributed(view.kinds):
            return self._shards.setdefault(i, Shards()).view(view)
        return view

    def _prepare(self, i: int, view: View, scaling: Scaling | None) -> list[Job]:
        """All that may fail in a step, before anything is changed."""
        group, plan = self.param_groups[i], self._plans[i]
        if not view.params or view.params[0].device.type != "cpu":
            self._cuda_graph_capture_health_check()
        coefficients = self._coefficients_after(group)
        specialise = partial(self._formula.specialise, plan.terms.states, group["maximize"])
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

    def _without_sparse(self, i: int, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Sparse gradients made dense, unless the rule may visit their rows alone."""
        group = self.param_groups[i]
        return [
            grad.to_dense()
            if grad is not None and grad.is_sparse and self.sparse_gradients(group) == "dense"
            else grad
            for grad in grads
        ]

    # -- mixed precision -------------------------------------------------------------------------------

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by ``GradScaler``; as with torch's optimizers, true with ``fused=True``."""
        return bool(self.defaults["fused"])

    def _scaling(self) -> Scaling | None:
        """What ``GradScaler`` has left to do, if anything."""
        found_inf = self.__dict__.get("found_inf")
        return None if found_inf is None else Scaling(self.__dict__.get("grad_scale"), found_inf)

    def _unscale(self, views: list[View], scaling: Scaling) -> None:
        """Undo the scale in ``p.grad``, as ``GradScaler.unscale_``, and in copies that the engines got."""
        if scaling.grad_scale is None:
            return
        inverse = scaling.grad_scale.double().reciprocal().float()
        for group, view in zip(self.param_groups, views, strict=True):
            for param, grad in zip(group["params"], view.grads, strict=True):
                if grad is not None:
                    factor = inverse.to(grad.device).item()
                    param.grad.mul_(factor)
                    if grad is not param.grad and not is_distributed({type(param)}):
                        grad.mul_(factor)

    # -- state -----------------------------------------------------------------------------------------

    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]:
        """Create what is missing in a parameter's state; returns the names of what was created."""
        names = self._kept_states(group)
        if not names and not self._counts_steps:
            return []
        state = self.state[param]
        missing = [name for name in names if state.get(name) is None]
        if self._counts_steps and "step" not in state:
            state["step"] = self._new_step(param, group)
            missing.append("step")
        for name in missing:
            if name != "step":
                state[name] = self.initial_state(name, param, group)
        if _refusal(group) is None:
            # A checkpoint may bring states in another memory layout than the parameter has: same numbers,
            # but the fused engine walks through all of them in one order.
            state.update({name: in_layout_of(param, state[name]) for name in names})
        return missing

    @staticmethod
    def _new_step(param: Tensor, group: Mapping[str, Any], value: float = 0.0) -> Tensor:
        """The step count as torch keeps it: on the CPU, unless an option says it lives with the parameter."""
        at_home = bool(group.get("capturable") or group["fused"])
        double = torch.get_default_dtype() == torch.float64 and not group["fused"]
        return torch.tensor(
            value, dtype=torch.float64 if double else torch.float32, device=param.device if at_home else "cpu"
        )

    # -- reports ---------------------------------------------------------------------------------------

    def engine_report(self) -> str:
        """Which engine took which parameters in the last step, and why no faster one; one line per case."""
        if not self._plans:
            return "no step() yet: engines are chosen when gradients are there"
        cases: dict[tuple[str, str], list[str]] = {}
        elements: dict[tuple[str, str], int] = {}
        for i, plan in sorted(self._plans.items()):
            engines = plan.engines()
            for position, param in enumerate(self.param_groups[i]["params"]):
                case = engines.get(position, ("no engine", "no gradient"))
                cases.setdefault(case, []).append(self._where(i, position))
                elements[case] = elements.get(case, 0) + param.numel()
        return "\n".join(
            f"{engine}: {len(where)} parameter{'s' * (len(where) > 1)}, {elements[engine, reason]:,} elements"
            + (f", because {reason} (first: {where[0]})" if reason else "")
            for (engine, reason), where in cases.items()
        )

    # -- errors ----------------------------------------------------------------------------------------

    def _where(self, i: int, position: int) -> str:
        names = self.param_groups[i].get("param_names")
        return f"parameter {position} of group {i}" + (f" ({names[position]})" if names else "")

    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None:
        group = self.param_groups[i]
        for position, (param, grad) in enumerate(zip(group["params"], grads, strict=True)):
            if grad is not None:
                own = self.state.get(param, {})
                states = {name: own[name] for name in self._kept_states(group) if own.get(name) is not None}
                is_odd = grad.layout != torch.strided
                takes_sparse = is_odd and self.sparse_gradients(group) != "refused"
                where, owner = self._where(i, position), type(self).__name__
                refuse_misfits(where, param, grad, states, group, owner, takes_sparse)

    def _insist(self, i: int, group: Mapping[str, Any]) -> None:
        """``fused=True`` is a demand, ``fused=None`` a wish."""
        plan = self._plans[i]
        if group["fused"] and plan.reasons:
            position, reason = next(iter(plan.reasons.items()))
            raise RuntimeError(
                f"fused=True, but the fused engine cannot take {self._where(i, position)}: {reason}"
            )
        if plan.trouble:
            warn_once(f"the fused CPU engine is off, steps run on the slower eager engine: {plan.trouble}")


def _refusal(group: Mapping[str, Any]) -> str | None:
    """Why a whole group goes to eager, whatever its tensors are like."""
    if group["differentiable"]:
        return "differentiable=True"
    if group["fused"] is False:
        return "fused=False"
    if group["fused"] is None and group["foreach"] is not None:
        return f"foreach={group['foreach']}"
    return None


_PLAIN_OPTIONS = frozenset({float, int, bool, type(None)})


def _scalar(value: Any) -> Any:
    """An option as a number or 0-d tensor: a 1-element tensor may come in any shape."""
    if isinstance(value, Tensor) and value.dim():
        return value.squeeze()
    if isinstance(value, tuple | list):
        return tuple(_scalar(item) for item in value)
    return value
