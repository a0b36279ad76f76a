"""The recipe that `fivefold data add` writes for a new dataset: settings that suit its kind, then its owner's."""

from __future__ import annotations

TABLE = """\
# Settings of `{name}`, in the layout of params.yaml, which goes before: those that suit rows of tables. Written by `fivefold data add`; yours to edit. Shorten total_examples to save time.
features: {{samples: 5000}}  # rows in the floors and from the classical baseline
evaluate: {{samples: 5000}}  # rows are cheap: more of them tell more
autoencoder:
  model: {{latent: 32, width: 64}}  # long codes: what they drop, draws of missing cells cannot know
  training: {{total_examples: 600000, batch_size: 256, lr: 2e-3}}
vae:
  model: {{latent: 32, width: 64, beta: 0.5}}  # beta 1 makes blander rows, and a tighter bound
  training: {{total_examples: 600000, batch_size: 256, lr: 2e-3}}
gan:
  model: {{width: 64, critic_width: 64, gamma: 0.5}}  # as many units as the others
  training: {{total_examples: 600000, batch_size: 256, lr: 5e-4}}
flow:
  model: {{width: 64}}  # of a cell: every column is drawn given those before it
  training: {{total_examples: 600000, batch_size: 256, lr: 2e-3}}
diffusion:
  model: {{width: 64, blocks: 2, p_mean: -0.5, p_std: 1.4}}  # deeper costs little on rows; more noise: conditionals
  training: {{total_examples: 600000, batch_size: 256, lr: 2e-3}}
"""

RECIPES = {"table": TABLE}
"""By kind of data; a kind without one takes `OTHER`."""

OTHER = "# Settings of `{name}`, in the layout of params.yaml, which goes before.\n{{}}\n"


def recipe_text(name: str, kind: str) -> str:
    """A recipe for a dataset of a kind.

    Arguments:
        name: Of the dataset.
        kind: Of its data, as in its card.
    """
    return RECIPES.get(kind, OTHER).format(name=name)
