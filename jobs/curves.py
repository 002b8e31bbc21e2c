"""The log of a training as a drawing: loss by modality over the tokens."""

from __future__ import annotations

from pathlib import Path

from pipeline.publish.report.training import loss_curves
from trainer.run import read_metrics


def draw_curves(run: Path, path: Path) -> None:
    """Draw the losses of a run as an SVG file: a panel for each modality.

    Args:
        run: the folder of the training.
        path: the file to write.
    """
    from matplotlib.figure import Figure

    curves = loss_curves(read_metrics(run))
    figure = Figure(figsize=(5 * len(curves), 3.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for curve, axes in zip(curves, panels, strict=True):
        axes.plot(*zip(*curve.trained, strict=True), label="training")
        if curve.held_out:
            axes.plot(*zip(*curve.held_out, strict=True), label="held out, averaged weights")
        axes.set(title=curve.modality, xlabel="tokens", ylabel="nats per token")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
