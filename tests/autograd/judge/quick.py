"""What of the judge is run with the other tests; nothing here waits for torch's data bases."""

from __future__ import annotations

import random

# Primitives whose samples are those of torch's data base, by the operator that leads to them.
JUDGED = {
    **{name: name for name in ("addbmm", "addcdiv", "addmm", "addmv", "addr", "baddbmm")},
    "cross": "linalg.cross",
    "adaptive_avg_pool3d": "nn.functional.adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward": "nn.functional.adaptive_avg_pool3d",
    "angle": "angle",
    "avg_pool3d": "nn.functional.avg_pool3d",
    "avg_pool3d_backward": "nn.functional.avg_pool3d",
    "bounded_norm": "nn.functional.cosine_similarity",
    "cdist": "cdist",
    "cholesky": "linalg.cholesky",
    "clamp_between": "nn.functional.hardtanh",
    "copysign": "copysign",
    "ctc_loss": "nn.functional.ctc_loss",
    "cumprod": "cumprod",
    "determinant": "linalg.det",
    "diagonal": "diagonal",
    "digamma": "digamma",
    "div_rounded": "div.floor_rounding",
    "eigh": "linalg.eigh",
    "erfc": "erfc",
    "erfinv": "erfinv",
    "fmax": "fmax",
    "fmin": "fmin",
    "fmod": "fmod",
    "glu": "nn.functional.glu",
    "grid_sample": "grid_sampler_2d",
    "hardshrink": "nn.functional.hardshrink",
    "hardsigmoid": "nn.functional.hardsigmoid",
    "hardswish": "nn.functional.hardswish",
    "hypot": "hypot",
    "i0": "i0",
    "index_put": "index_put",
    "inverse": "linalg.inv",
    "largest": "max.reduction_no_dim",
    "lerp": "lerp",
    "lgamma": "lgamma",
    "log_determinant": "linalg.slogdet",
    "log_loss": "nn.functional.binary_cross_entropy",
    "logaddexp2": "logaddexp2",
    "logcumsumexp": "logcumsumexp",
    "logit": "logit",
    "lu": "linalg.lu_factor",
    "matrix_exp": "matrix_exp",
    "median": "median",
    "mish": "nn.functional.mish",
    "mvlgamma": "mvlgamma.mvlgamma_p_3",
    "nextafter": "nextafter",
    "pdist": "nn.functional.pdist",
    "polygamma": "polygamma.polygamma_n_1",
    "pseudoinverse": "linalg.pinv",
    "qr": "linalg.qr",
    "scatter": "scatter",
    "scatter_extreme": "scatter_reduce.amax",
    "scatter_product": "scatter_reduce.prod",
    "segment_reduce": "_segment_reduce.lengths",
    "sinc": "sinc",
    "smallest": "min.reduction_no_dim",
    "softshrink": "nn.functional.softshrink",
    "solve": "linalg.solve",
    "solve_triangular": "linalg.solve_triangular",
    "special_entr": "special.entr",
    "special_erfcx": "special.erfcx",
    "special_i0e": "special.i0e",
    "special_i1": "special.i1",
    "special_i1e": "special.i1e",
    "special_log_ndtr": "special.log_ndtr",
    "special_ndtri": "special.ndtri",
    "special_xlog1py": "special.xlog1py",
    "svd": "linalg.svd",
    "windows": "unfold",
    "xlogy": "xlogy",
}

# Each of these was once wrong, crashed, or had no derivative, each in its own way.
ONCE_WRONG = [
    *("clamp", "nn.functional.relu6", "nn.functional.elu", "atan2", "logaddexp", "nanmedian", "amax"),
    *(
        "nn.functional.kl_div",
        "nn.functional.cosine_similarity",
        "nn.functional.scaled_dot_product_attention",
    ),
    *("nn.functional.batch_norm", "nn.functional.layer_norm", "nn.functional.conv_transpose1d", "matmul"),
    *("prod", "linalg.vector_norm", "linalg.norm", "masked_scatter", "index_fill", "mH", "take_along_dim"),
    *("nn.PReLU", "nn.CrossEntropyLoss", "fft.irfft", "quantile", "nn.functional.rrelu", "var_mean"),
]

NAMES = sorted({*JUDGED.values(), *ONCE_WRONG})


def by_chance(count: int) -> list[str]:
    """As many other operators and modules, the same at each call."""
    from .cases import MODULES, OPERATORS

    return random.Random(0).sample(sorted({*OPERATORS, *MODULES} - {*NAMES}), count)
