"""The recipe that `fivefold data add` writes for a new dataset: settings that suit its kind, then its owner's."""

from __future__ import annotations

TABLE = """\
# Overrides of params.yaml for `{name}`, in its own layout: settings that suit rows of tables, where those of
# params.yaml suit small images. Written by `fivefold data add`; yours to edit. Shorten total_examples to save time.
features: {{samples: 5000}}  # rows in the floors and from the classical baseline
evaluate: {{samples: 5000}}  # rows are cheap: more of them tell more
autoencoder:
  model: {{latent: 32, width: 64}}  # long codes: what they drop, draws of missing cells cannot know
  training: {{total_examples: 600000, batch_size: 256, lr: 1e-3}}
vae:
  model: {{latent: 32, width: 64, beta: 0.5}}  # beta 1 makes blander rows, and a tighter bound
  training: {{total_examples: 600000, batch_size: 256, lr: 1e-3}}
gan:
  model: {{width: 64, critic_width: 64, gamma: 0.5}}  # as many units as the others
  training: {{total_examples: 600000, batch_size: 256, lr: 5e-4}}
flow:
  model: {{steps: 6, width: 96}}  # fewer, wider couplings than images want
  training: {{total_examples: 600000, batch_size: 256, lr: 1e-3}}
diffusion:
  model: {{width: 64, blocks: 2, p_mean: -0.5, p_std: 1.4}}  # deeper costs little on rows; more noise: conditionals
  training: {{total_examples: 600000, batch_size: 256, lr: 1e-3}}
"""

OTHER = "# Overrides of params.yaml for `{name}`, in its own layout.\n{{}}\n"


def recipe_text(name: str, kind: str) -> str:
    """A recipe for a dataset of a kind.

    Arguments:
        name: Of the dataset.
        kind: `image` or `table`.
    """
    return (TABLE if kind == "table" else OTHER).format(name=name)
