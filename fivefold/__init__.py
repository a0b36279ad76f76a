"""Generative models of tables and images in a few lines: the whole of Fivefold that a notebook needs.

    import fivefold

    model = fivefold.fit(frame, family="flow", label="income", examples=200_000)
    model.sample(100, label=">50K")              # a DataFrame like `frame`
    model.impute(frame_with_gaps, draws=8)       # eight completions
    model.save("income.model")
    model = fivefold.load("income.model")

No `params.yaml`, no DVC, no Ray and no MLflow. The data go through the readers of `data`, the training
through the loop of `pipelines.training`, and a saved model is the folder that the pipeline itself writes:
nothing is computed here.
"""

from __future__ import annotations

from fivefold.fitting import FAMILIES, fit
from fivefold.model import Model, load

__all__ = ["FAMILIES", "Model", "fit", "load"]
