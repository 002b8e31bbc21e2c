"""The log of a training as a drawing: loss by modality over the tokens."""

from __future__ import annotations

from pathlib import Path

from trainer.run import read_metrics

_WINDOW = 25
"""Steps that a point of the training's curve is the mean of."""


def draw_curves(run: Path, path: Path) -> None:
    """Draw the losses of a run as an SVG file: a panel for each modality.

    Args:
        run: the folder of the training.
        path: the file to write.
    """
    from matplotlib.figure import Figure

    lines = read_metrics(run)
    looks = [line for line in lines if "held_out" in line]
    names = [
        name for name in ("text", "image", "audio") if any(name in each["train"] for each in lines)
    ]
    figure = Figure(figsize=(5 * len(names), 3.2), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        known = [(line["tokens"], line["train"][name]) for line in lines if name in line["train"]]
        windows = [known[start : start + _WINDOW] for start in range(0, len(known), _WINDOW)]
        means = [(each[-1][0], sum(loss for _, loss in each) / len(each)) for each in windows]
        axes.plot(*zip(*means, strict=True), label="training")
        seen = [
            (line["tokens"], line["held_out"][name]) for line in looks if name in line["held_out"]
        ]
        if seen:
            axes.plot(*zip(*seen, strict=True), label="held out, averaged weights")
        axes.set(title=name, xlabel="tokens", ylabel="nats per token")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
