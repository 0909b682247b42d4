"""Draw the picture of the README from a real run: `python docs/make_figures.py` (a minute or two)."""

from __future__ import annotations

from pathlib import Path

from bonemri import validation
from bonemri.validation.report import figures, wording
from bonemri.validation.report.style import INK, MUTED, columns, to_png

HERE = Path(__file__).parent
METHODS = ("ivim", "ivim-segmented", "ivim-nnls", "ivim-bayes", "ivim-fat-aware")


def main() -> None:
    """Run the default suite and draw its headline case."""
    trial = validation.run()
    case = wording.reference(columns(trial.samples, "cell"))
    assert case is not None
    figure = figures.three_values(case.cells, ("f", "D", "D_star"), METHODS)
    width, height = figure.get_size_inches()
    head = 0.62  # inches for two lines above the figure
    figure.set_size_inches(width, height + head)
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0, box.y0 * height / (height + head), box.width, box.height * height / (height + head)))
    figure.legends[0].set_bbox_to_anchor((0.0, height / (height + head)))
    figure.text(0.008, 1 - 0.1 / (height + head), "How wrong is IVIM in bone marrow?", va="top", fontsize=14, color=INK)
    words = f"{wording.tissue(case.cells)}; all spin pools, SNR {case.snr:g}"
    figure.text(0.008, 1 - 0.38 / (height + head), words, va="top", fontsize=9, color=MUTED)
    to_png(figure, HERE / "report.png")
    print(trial.summary())


if __name__ == "__main__":
    main()
