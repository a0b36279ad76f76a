"""The yardstick: what every family is measured with, one file per question asked of a model.

| file | question |
| --- | --- |
| `space.py` | where are examples compared? frozen features, read back and checked |
| `distribution.py` | do samples lie where real examples lie? (Fréchet, kernel, precision … coverage) |
| `two_sample.py` | can a classifier tell samples from real examples? |
| `conditional.py` | does a sample show the label it was asked for? |
| `copies.py` | are samples copies of training examples? |
| `likelihood.py` | how many bits does the model need for an unseen example? |
| `reconstruction.py` | what is lost between an example and its reconstruction? |
| `codes.py` | do codes carry the label? |
| `compression.py` | how small are codes, and what do they keep? |
| `anomaly.py` | are strange examples told from ordinary ones? |
| `imputation.py` | how well are hidden cells filled in? |
| `marginals.py` | is each column of a table distributed as in the data? |
| `associations.py` | do its columns hang together as in the data? |
| `utility.py` | are synthetic rows as good as real ones to learn from? |

Behind them: `inputs.py` (examples as network inputs), `networks.py` (the frozen networks),
`training.py`, `making.py` (how they and
the yardstick's folder are made), `baseline.py` (the classical rival), `bootstrap.py` (intervals),
`metric.py` (a number with its interval), `queries.py` (asking a model), `samples.py` (every metric
that needs nothing but samples), `rows.py` (those of tables), `pictures.py` and `exhibits.py` (what
there is to look at of images and of tables), `leaderboard.py`, `storage.py`.
"""
