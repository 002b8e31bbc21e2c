"""What torch's one-cycle schedule cannot do for itself."""


def warmup_share(share: float, num_steps: int) -> float:
    """The `pct_start` that `OneCycleLR` takes for a warm-up of a share of the steps.

    It divides by the length of the warm-up less one step, so that one step alone, as of 20 steps
    at 0.05, ends in a ZeroDivisionError; that one is made a little longer.
    """
    return share if share * num_steps != 1 else 1.5 * share
