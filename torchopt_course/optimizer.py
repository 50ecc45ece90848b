"""The base of every optimizer here, and of the one that you write: a rule, its coefficients, its states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .declared import DeclaredOptimizer
from .engines.bucket import Scaling
from .engines.layout import is_sparse, zeros_where
from .engines.step import Stepper
from .engines.storage import OPTIONS as STORAGE
from .validation.checkpoints import keep_precision, refuse_foreign
from .validation.options import at_least_zero, fraction, make_plain, not_nan, plain, refuse_odd_option
from .validation.storage import refuse_idle_storage, refuse_odd_storage

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
# What a rule computes with: a tensor, or one number of it in a compiled kernel.
Value: TypeAlias = Any
StateDtype: TypeAlias = torch.dtype | Mapping[str, torch.dtype] | None
Rounding: TypeAlias = Literal["nearest", "stochastic", "kahan"] | None


NO_SCALER = (
    "a GradScaler must see all gradients before the first is used, but release_gradients() uses and frees "
    "each as it comes: train in bfloat16, which needs no scaler"
)


class ElementwiseOptimizer(DeclaredOptimizer):
    r"""Base class of optimizers that treat each element of each parameter alike.

    A subclass writes down its update once and gets everything else: validation, state, checkpoints that
    ``torch.optim`` understands, and four engines: fused on the CPU, fused on CUDA, over lists of tensors
    (foreach), and eager, which can do all that torch can::

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
    order (without states, just ``p``). It sees one number of each at a time: it uses operators and functions
    of the module global ``xp`` only; ``import torch as xp`` makes the rule run as it stands. It is read once,
    and each engine does what it does. Norms, sums and the like of a whole tensor are numbers that the
    formula goes on with. A rule with more than that runs on whole tensors of torch. docs/optimizers.md has
    the list of functions, and says what becomes of others.

    ``coefficients(...)`` names what it needs: ``step`` (1, 2, ...; then every parameter keeps a ``"step"``
    as in torch), ``first`` (true in the first step of a parameter) and any of the group's options. It
    returns a dictionary. Numbers may change from step to step; ``None`` and booleans choose the terms of
    the formula, and each choice is compiled into a kernel of its own.

    Two more options are for memory. ``state_dtype``: a dtype for all states, or a dictionary with one for
    some of them by name; the rule computes in float32 all the same. ``rounding``, of states and parameters
    of 16 bits: ``"nearest"``, ``"stochastic"`` (up or down by chance, right in the mean; ``rounding_seed``
    among a group's options, 0 by default) or ``"kahan"`` (what is lost is kept, in one more state of 16
    bits, called ``"compensation"`` or ``"<state>_compensation"``). Who gives either of them computes in
    float32 on every engine. docs/low_precision.md has more.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
        defaults: the options; numpy's numbers become Python's. ``maximize`` (default ``False``), ``foreach``,
            ``fused`` (``None``) and ``differentiable`` (``False``) are added where missing. ``fused=None``
            picks the fastest engine that is right for each parameter, ``fused=True`` insists on the fused
            one, ``fused=False`` and ``foreach=False`` give the eager reference.

    Raises:
        TypeError: something that is not a tensor among ``params``; a mistake in the class: a rule whose
            parameters or results do not fit, or that asks for more than one number can answer.
        ValueError: an option out of range, a non-leaf parameter, a parameter in two groups.
        RuntimeError: options that exclude one another. In :meth:`step`: a gradient or state that does not
            fit its parameter, or ``fused=True`` where that is impossible; nothing has been updated then.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        engine = {"foreach": None, "maximize": False, "differentiable": False, "fused": None}
        defaults = {name: plain(value) for name, value in {**defaults, **engine, **defaults}.items()}
        for name in STORAGE:
            if defaults.get(name) is None:  # not asked for: the groups are as torch's
                defaults.pop(name, None)
        self.defaults = defaults
        self._forget_plans()
        self.check_options(defaults)
        # Not super(): the next in line may be torch's optimizer of the same name, a base for isinstance().
        Optimizer.__init__(self, params, defaults)

    # What is being loaded: a checkpoint, and the groups before.
    _loading: tuple[dict[str, Any], list[dict[str, Any]]]

    def _forget_plans(self) -> None:
        self._stepper = Stepper()
        self._read_formula()
        self._step_supports_amp_scaling = bool(self.defaults.get("fused"))

    # -- what a subclass may extend --------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options out of range: the defaults, and those of each parameter group.

        What has one of the usual names is checked here: ``lr``, ``weight_decay`` and ``eps`` are at least 0,
        each of ``betas`` is in [0, 1), nothing is NaN. Extend it for your own;
        :mod:`torchopt_course.validation` has the usual checks.

        Raises:
            ValueError, TypeError, RuntimeError: with the value and what was expected.
        """
        if isinstance(options.get("lr"), Tensor) and options["lr"].numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(options['lr'].shape)}")
        for name, label in {"lr": "learning rate", "weight_decay": "weight_decay value"}.items():
            if name in options:
                at_least_zero(label, options[name])
        if isinstance(options.get("eps"), float | int):
            at_least_zero("epsilon value", options["eps"])
        if isinstance(options.get("betas"), tuple | list):
            for i, beta in enumerate(options["betas"]):
                if isinstance(beta, float | int):
                    fraction(f"beta parameter at index {i}", beta)
        for name, value in options.items():
            not_nan(name, value)
            if name in self._options:
                refuse_odd_option(type(self).__name__, name, value, self._default_of(name))
        refuse_odd_storage(type(self).__name__, (*self.states, *self.optional_states), options)
        if options.get("fused") and options.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if options.get("fused") and options.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A new state tensor: zeros like the parameter, also in memory layout."""
        if is_sparse(param):
            return zeros_where(param)
        if param.layout != torch.strided:
            return torch.zeros_like(param, requires_grad=False)
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
            KeyError: no ``"params"``.
            ValueError: options out of range, a parameter that is already in another group.
            TypeError: the rule and its coefficients do not fit.
        """
        if isinstance(param_group, dict):
            if "params" not in param_group:
                raise KeyError(
                    f"a parameter group needs 'params', got {', '.join(map(repr, param_group)) or 'nothing'}"
                )
            make_plain(param_group)  # in place, as torch: the dictionary is the group
            self.check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            refuse_idle_storage(type(self).__name__, group, self._kept_states(group))
            if group.get("rounding") == "stochastic":
                group.setdefault("rounding_seed", 0)
                group.setdefault("rounding_step", 0)
            self._try_formula(group)
        except Exception:
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """The states and the groups with their options, see :meth:`torch.optim.Optimizer.state_dict`.

        Numbers of numpy that somebody wrote into a group become Python's, in the group too.

        Raises:
            KeyError: there is a state of a parameter that is in no group any more.
        """
        for group in self.param_groups:
            make_plain(group)
        try:
            return super().state_dict()
        except KeyError as error:
            known = {id(param) for group in self.param_groups for param in group["params"]}
            for param in self.state:
                if isinstance(param, Tensor) and id(param) not in known:
                    raise KeyError(
                        f"there is a state of a parameter of shape {tuple(param.shape)} that is in no group "
                        "any more: delete it from optimizer.state"
                    ) from error
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer, also one that ``torch.optim`` has written.

        Raises:
            TypeError, KeyError, ValueError: it is not one of this optimizer's, see
                :func:`torchopt_course.validation.checkpoints.refuse_foreign`. Nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dictionary, got {type(state_dict).__name__}")
        # As the last of the pre-hooks: those of the user may make a foreign state_dict fit.
        check = self.register_load_state_dict_pre_hook(self._look_at)  # type: ignore[arg-type]
        try:
            super().load_state_dict(state_dict)
        finally:
            check.remove()
            self.__dict__.pop("_loading", None)

    @staticmethod
    def _look_at(optimizer: ElementwiseOptimizer, state_dict: dict[str, Any]) -> None:
        """Refuse what does not fit; torch casts states to the parameter's dtype, so keep what they were."""
        refuse_foreign(optimizer, state_dict)
        optimizer._loading = state_dict, optimizer.param_groups

    def __setstate__(self, state: dict[str, Any]) -> None:
        Optimizer.__setstate__(self, state)
        self._forget_plans()
        if "_loading" in self.__dict__:
            keep_precision(self, *self._loading)
        for group in self.param_groups:
            make_plain(group)
            # An older checkpoint may lack options that were added since: they are off, as in the constructor.
            for name in self.defaults:
                group.setdefault(name, self._default_of(name))
            for param in group["params"]:
                if self.state.get(param, {}) is None:  # as ZeroRedundancyOptimizer marks the states of others
                    del self.state[param]
                step = self.state[param].get("step") if self._counts_steps and param in self.state else None
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
            # Hooks see the arguments that the user gave.
            return self._listened_step() if closure is None else self._listened_step(closure)
        return self._plain_step(closure)

    # torch would wrap `step` to call hooks and to tell the profiler, at a cost larger than that of a small
    # step. We take the same wrapper, but only when there is somebody who listens.
    step.hooked = True  # type: ignore[attr-defined]

    def _plain_step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        prepared = self._stepper.prepared
        if prepared is not None and prepared.take(self):
            return loss
        if self._renew_formula():
            self._stepper.forget()
        recording = torch.is_grad_enabled()
        torch._C._set_grad_enabled(bool(self.defaults.get("differentiable")))
        try:
            self._stepper.step(self, self._scaling())
        finally:
            torch._C._set_grad_enabled(recording)
        return loss

    # torch.compile has nothing to gain from a step that is compiled already: it calls it as it is.
    @_disable_dynamo
    def _untraced_step(self, closure: Callable[[], float] | None = None) -> float | None:
        return self.step(closure) if closure is not None else self.step()

    _listened_step = Optimizer.profile_hook_step(_plain_step)

    def _scaling(self) -> Scaling | None:
        """What ``GradScaler`` has left to do, if anything."""
        found_inf = self.__dict__.get("found_inf")
        if found_inf is not None and "_released" in self.__dict__:
            raise RuntimeError(NO_SCALER)
        return None if found_inf is None else Scaling(self.__dict__.get("grad_scale"), found_inf)

    def _capture_health_check(self) -> None:
        """torch's warning about ``capturable``, under today's name or that of before torch 2.14."""
        name = "_accelerator_graph_capture_health_check"
        (getattr(self, name, None) or self._cuda_graph_capture_health_check)()

    @property
    def _hooks(self) -> tuple[Mapping[int, object], ...]:
        return (
            self._optimizer_step_pre_hooks,
            self._optimizer_step_post_hooks,
            _global_optimizer_pre_hooks,
            _global_optimizer_post_hooks,
        )

    # -- reports ---------------------------------------------------------------------------------------

    def engine_report(self) -> str:
        """Which engine took which parameters in the last step, and why no faster one; one line per case."""
        if not self._stepper.groups:
            return "no step() yet: engines are chosen when gradients are there"
        self._refuse_odd_edits()
        cases: dict[tuple[str, str], list[str]] = {}
        elements: dict[tuple[str, str], int] = {}
        seen: set[int] = set()
        for i, group in enumerate(self.param_groups):
            engines = self._stepper.engines(i)
            for position, param in enumerate(group["params"]):
                if id(param) in seen:
                    continue
                seen.add(id(param))
                case = engines.get(position, ("no engine", "no gradient"))
                cases.setdefault(case, []).append(self._where(i, position))
                elements[case] = elements.get(case, 0) + param.numel()
        return "\n".join(
            f"{engine}: {len(where)} parameter{'s' * (len(where) > 1)}, {elements[engine, reason]:,} elements"
            + (f", because {reason} (first: {where[0]})" if reason else "")
            for (engine, reason), where in cases.items()
        )
