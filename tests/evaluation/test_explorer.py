"""What of a model's codes is decoded for the report: directions as principal components know them, and ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from data.dataset import Examples
from pipelines.evaluation.explorer import explored, leading_directions


def data(n: int = 300) -> np.ndarray:
    """Rows of correlated numbers."""
    random = np.random.default_rng(0)
    return random.normal(size=(n, 5)) @ random.normal(size=(5, 7)) + 3


@pytest.mark.parametrize("whiten", [False, True])
def test_directions_of_principal_components_are_those(whiten: bool) -> None:
    """Also where the codes are alike in all directions, as a flow's are, and turned."""
    rows = data()
    pca = PCA(5, whiten=whiten).fit(rows)
    scores = pca.transform(rows)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    vectors, deviations, shares = leading_directions(scores @ turn, rows, most=3)
    assert np.abs(vectors @ turn.T) == pytest.approx(np.eye(5)[:3], abs=1e-6)
    assert deviations == pytest.approx(scores.std(0)[:3])
    assert shares == pytest.approx(pca.explained_variance_ratio_[:3])


def test_codes_or_data_that_do_not_vary_have_no_directions() -> None:
    rows = data(10)
    for codes, x in ((np.ones((10, 3)), rows), (rows, np.ones((10, 2))), (rows[:2], rows[:2])):
        assert len(leading_directions(codes, x)[0]) == 0


@pytest.mark.parametrize("named", [True, False])
def test_what_is_decoded_lies_along_directions_and_between_examples(named: bool) -> None:
    """A model whose codes are the data: what is decoded is where it was asked for."""
    rows = data(40)
    label = torch.tensor([2, 2, 0, 1] * 10)
    names = ["a", "b", "c", "never"] if named else []
    codes = torch.from_numpy(rows)
    found = explored(codes, rows, Examples(x=codes, label=label if named else label * 0 - 1), names, lambda z: z)
    starts = [2, 3, 0] if named else list(range(6))
    assert found.names == (["a", "b", "c"] if named else [f"example {i + 1}" for i in range(6)])
    assert found.places == pytest.approx(np.linspace(-2.5, 2.5, 7), abs=1e-4)
    components = PCA(4).fit(rows)
    for k, frames in enumerate(found.directions.numpy()):  # [examples, steps, columns]
        assert frames[:, 3] == pytest.approx(rows[starts])
        moved = (frames - frames[:, 3:4]) @ components.components_[k]
        deviation = (rows @ components.components_[k]).std()
        places = np.linspace(-2.5, 2.5, 7)
        assert np.abs(moved) == pytest.approx(np.tile(np.abs(places) * deviation, (len(starts), 1)))
        assert np.linalg.norm(frames - frames[:, 3:4], axis=2) == pytest.approx(np.abs(moved), abs=1e-9)
    assert found.pairs == [(i, j) for i in range(len(starts)) for j in range(i + 1, len(starts))]
    for (i, j), way in zip(found.pairs, found.ways.numpy(), strict=True):
        assert way[[0, -1]] == pytest.approx(rows[[starts[i], starts[j]]])
        lengths = np.linalg.norm(way, axis=1)
        assert np.diff(lengths) == pytest.approx(np.full(6, (lengths[-1] - lengths[0]) / 6))
