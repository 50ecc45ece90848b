"""What of the extremes is not torch's, and why."""

from __future__ import annotations

DERIVATIVES = ("reverse", "recorded", "forward")

# What is not compared there, and why: the beginnings of what differs, by operator.
NAN_AT_THE_END = (
    "torch's vectorized and plain loops treat NaN differently: what it gives depends on the place"
)
OTHER_ORDER = "torch multiplies in another order, or rounds once where we round twice: one overflows"
INFINITE_SQUARES = "torch's formula has NaN where a square is infinite, ours the number or zero"
DIFFERENT: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("nn.functional.hardtanh", "nn.functional.relu6"), (DERIVATIVES, NAN_AT_THE_END)
    ),
    **{f"nn.functional.{name}": (("recorded", "forward"), NAN_AT_THE_END) for name in (
        "elu", "celu", "selu", "hardshrink", "softshrink", "hardswish",
    )},
    **dict.fromkeys(
        ("square", "scatter_reduce.prod"),
        (DERIVATIVES, "torch doubles, or divides the whole product, first: that is infinite and ours is not"),
    ),
    **dict.fromkeys(
        ("cross", "diag", "linalg.cross", "nn.functional.group_norm", "scatter_add",
         "scatter_reduce.mean", "scatter_reduce.sum"),
        (("sign",), "of -0.0, to which 0.0 is added in one of both, in torch's cross in some layouts"),
    ),
    **dict.fromkeys(
        ("__rdiv__", "div.no_rounding_mode", "true_divide", "ldexp", "frexp", "index_reduce.prod", "atan2",
         "hypot", "nn.functional.bilinear", "nn.functional.mse_loss"),
        (("output", *DERIVATIVES), OTHER_ORDER),
    ),
    **dict.fromkeys(
        ("std_mean", "std_mean.unbiased", "var_mean", "var_mean.unbiased", "native_group_norm"),
        (("output 1", "output 2", "sign"), "what is beside a variance is NaN for infinite numbers"),
    ),
    **dict.fromkeys(
        ("cdist", "nn.functional.pdist", "cumprod", "masked.cumprod", "logit", "_batch_norm_with_update",
         "nn.functional.instance_norm"),
        (("recorded",), "only torch's kernel, which runs when nothing is recorded, has this NaN"),
    ),
    **dict.fromkeys(
        [f"mvlgamma.mvlgamma_p_{p}" for p in (1, 3, 5)],
        (DERIVATIVES, "the pole at -0.0 has the sign of 0.0 in one of both"),
    ),
    "special.log_ndtr": (DERIVATIVES, INFINITE_SQUARES),
    **dict.fromkeys(("baddbmm", "addbmm", "cosh", "sinh"), (("forward",), OTHER_ORDER)),
    "index_reduce.mean": (("output", "sign"), "torch adds in another order numbers that cancel"),
    "nn.functional.layer_norm": (("recorded", "forward"), INFINITE_SQUARES),
    "nn.functional.rms_norm": (DERIVATIVES, INFINITE_SQUARES),
    "cholesky_inverse": (("sign",), "of -0.0, to which 0.0 is added in one of both"),
    "nn.functional.prelu": (("forward",), "torch's two modes take two sides of 0"),
    "logcumsumexp": (
        DERIVATIVES,
        "as long as all is -inf the slope is 0 here; torch's forward mode underflows",
    ),
    "nn.functional.linear_cross_entropy.chunked_none": (("forward",), "torch's forward mode gives zero"),
    "norm": (("forward",), "of an infinite norm: 0 or NaN"),
    "masked.prod": (("forward",), "a product of infinity and the others"),
    "prod": (
        DERIVATIVES,
        "two zeros make the gradient 0 in torch, unless it is recorded, also of NaN",
    ),
    "nanmean": (("reverse", "recorded"), "of nothing but NaN: 0 here"),
    "renorm": (DERIVATIVES, "rows whose norm is NaN are left alone by torch"),
    "nn.functional.binary_cross_entropy_with_logits": (
        DERIVATIVES, "of infinite targets",
    ),
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu": (
        ("output", *DERIVATIVES), "attention is computed as in the paper",
    ),
}  # fmt: skip

OF_16_BITS: dict[str, tuple[tuple[str, ...], str]] = dict.fromkeys(
    ("_batch_norm_with_update", "_native_batch_norm_legit", "native_batch_norm", "nn.functional.batch_norm"),
    (("recorded", "forward"), "torch's kernel has other NaN than its formula, which overflows"),
)
