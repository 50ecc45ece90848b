"""What the curve of an LR range test suggests: where the loss begins to fall, and where it nearly has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

# A fall is believed if it is this many times its own standard error. Of curves that are nothing but noise,
# about one in a hundred comes so far.
CLEARLY = 4.0
# An average that lags behind by more than this share of the test has flattened the fall beyond recognition.
LONGEST_LAG = 1 / 8
# Where the rate grows faster than this from one iteration to the next, momentum has no time to act on it.
FASTEST_GROWTH = 3.0


def default_smoothing(iterations: int) -> float:
    """The weight of the newest loss with which the average lags behind by a sixteenth of the test.

    The same share of the curve whatever its length: 0.05 for 300 iterations, 0.14 for 100, 0.36 for 29.
    """
    return 1 / (1 + iterations / 16)


def lag_at(i: int, smoothing: float) -> float:
    """How many iterations the bias-corrected average of iteration i lags behind: the mean age of its losses.

    Their weights are q^age, q = 1 - s, for the ages 0 to i. So it grows from 0, where there is but one loss,
    to q / s.
    """
    q = 1 - smoothing
    left = q ** (i + 1)
    return q / smoothing - (i + 1) * left / (1 - left)


def suggest_bounds(
    losses: Sequence[float],
    smoothed: Sequence[float],
    smoothing: float,
    iterations: int,
    rate_at: Callable[[float], float],
    delay: float,
    exploded: bool,
) -> tuple[float | None, float | None, str]:
    """``base_lr``, ``max_lr``, and how they were found; twice ``None`` and why not.

    The paper takes the rate at which the accuracy starts to rise, and that at which it slows, becomes ragged
    or falls. Here: the last rate at which not yet a tenth was done of the fall of the smoothed loss, and the
    first at which nine tenths were. Each is read as much earlier as the average lags behind there and as a
    loss lags behind the rate that brought it about.

    The fall is that from the highest mean of the first losses, as many of them as make it highest, to the
    lowest smoothed loss.

    Args:
        losses, smoothed: of each iteration.
        smoothing: the weight of the newest loss in ``smoothed``.
        iterations: how many the test would have had if nothing had ended it.
        rate_at: the learning rate of an iteration, also between two.
        delay: so many iterations after a rate has been used, the losses show what it does.
        exploded: whether the test ended because the loss rose out of sight: then the end of the fall is seen.
    """
    if (reason := unreadable(len(losses), smoothing, iterations, rate_at)) is not None:
        return nothing(reason)
    reach = reach_of(smoothing)
    bottom = min(range(reach, len(smoothed)), key=smoothed.__getitem__)
    if bottom < 2:
        return nothing("the loss did not fall")
    means = [total / count for count, total in enumerate(accumulate(losses[: bottom + 1]), start=1)]
    top = max(range(reach, bottom + 1), key=means.__getitem__)
    fall = means[top] - smoothed[bottom]
    if not fall > 0:
        return nothing("the loss did not fall")
    noise = max(noise_of(losses[: bottom + 1]), 1e-6 * abs(means[top]))  # float32 has no more digits
    error = noise * math.sqrt(smoothing / (2 - smoothing) + 1 / (top + 1))
    if not fall > CLEARLY * (1 + 5 / bottom) * error:  # few losses say little about their noise
        return nothing(
            f"the loss fell by {fall:.3g}, which with a standard error of {error:.3g} may be noise; "
            "try more iterations, larger batches or other bounds of the test"
        )

    def crossing(i: int, level: float) -> float:
        """The iteration whose rate took the smoothed loss through the level, seen between i and i + 1."""
        share = (smoothed[i] - level) / (smoothed[i] - smoothed[i + 1])
        here, there = (k - lag_at(k, smoothing) for k in (i, i + 1))
        return max(0.0, here + share * (there - here) - delay)

    # The mean of the first losses is one of their averages' too, so some average lies above the tenth.
    begun, done = means[top] - 0.1 * fall, means[top] - 0.9 * fall
    before = max(i for i in range(bottom) if smoothed[i] > begun)
    after = next(i for i in range(before + 1, bottom + 1) if smoothed[i] <= done)
    begin, end = crossing(before, begun), crossing(after - 1, done)
    last = len(smoothed) - 1
    # Had it fallen in a straight line, the last tenth would have taken an eighth of the time of the eight.
    if smoothed[last] <= done and last - after < (end - begin) / 4 and not exploded:
        return nothing(
            f"at the end of the test, at learning rate {rate_at(last):.3g}, the loss was still falling; "
            "go on to higher rates, or take more iterations to them"
        )
    if end == 0:
        return nothing(
            f"the loss fell at the first rates, {rate_at(0):.3g} and little above; begin at a lower start_lr"
        )
    base_lr, max_lr = rate_at(begin), rate_at(end)
    return base_lr, max_lr, (
        f"base_lr={base_lr:.3g} and max_lr={max_lr:.3g}: there a tenth and nine tenths were done of the fall "
        f"of the smoothed loss from {means[top]:.3g} to {smoothed[bottom]:.3g}"
    )  # fmt: skip


def unreadable(
    count: int, smoothing: float, iterations: int, rate_at: Callable[[float], float]
) -> str | None:
    """Why a curve of so many losses cannot say anything, whatever the losses are."""
    if count < reach_of(smoothing) + 3:
        return f"{count} losses are too few to read"
    lag = (1 - smoothing) / smoothing
    if lag > LONGEST_LAG * iterations:
        return (
            f"the average of smoothing={smoothing:.3g} lags behind by {lag:.3g} iterations, too many of "
            f"{iterations}; leave it out, or take at least {math.ceil(lag / LONGEST_LAG)} iterations"
        )
    growth = rate_at(iterations - 1) / rate_at(iterations - 2)
    if growth > FASTEST_GROWTH:
        enough = 1 + math.ceil((iterations - 1) * math.log(growth) / math.log(FASTEST_GROWTH))
        return (
            f"the learning rate grew {growth:.2g}-fold with each iteration, too fast to be read; "
            f"take at least {enough} iterations"
        )
    return None


def reach_of(smoothing: float) -> int:
    """How many iterations a settled average lags behind, at least one."""
    return max(1, round((1 - smoothing) / smoothing))


def nothing(reason: str) -> tuple[None, None, str]:
    return None, None, f"no suggestion: {reason}"


def noise_of(losses: Sequence[float]) -> float:
    """The standard deviation of three losses or more about their trend.

    From second differences, which a straight trend leaves at zero (Gasser, Sroka and Jennen-Steinmetz, 1986).
    """
    bends = [a - 2 * b + c for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    return math.sqrt(sum(bend * bend for bend in bends) / (6 * len(bends)))
