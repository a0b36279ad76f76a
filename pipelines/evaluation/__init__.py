"""What every family is measured with: the yardstick, its metrics, and the figures drawn from them.

| file | what |
| --- | --- |
| `evaluator.py` | a family, the baseline or real rows: every metric and figure that its capabilities allow |
| `reference_builder.py` | makes the reference and has it measured |
| `inference.py` | asking a model: samples, likelihoods, codes, imputations, in bounded parts |
| `validation.py` | the score by which a training's best model is kept |
| `metrics/` | a file per question asked of a model; `metrics/__init__.py` says what each number means |
| `reference/` | the frozen networks, floors and classical baselines that models are compared with |
| `domain.py`, `domains/` | what is needed of a kind of data: network inputs, corruptions, hidden cells, figures |
| `use_cases.py`, `leaderboard.py` | what a model may be wanted for, and which family is best at it |
| `config.py` | settings |
"""
