"""What a model is asked in chunks: whoever answers, in whichever order and after whatever interruption, the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import build
from models.contract import GenerativeModel
from pipelines.evaluation import inference
from pipelines.evaluation.inference import Question, answer
from pipelines.execution.answers import KeptAnswers
from pipelines.storage.parts import Parts

N = 1_300
"""Three chunks, the last one short."""

LABEL = torch.arange(N) % 10


@pytest.fixture(scope="module")
def model() -> GenerativeModel:
    torch.manual_seed(0)
    domain = {"kind": "image", "channels": 1, "height": 8, "width": 8, "levels": 17}
    return build({"family": "vae", "config": {"latent": 4, "width": 8}, "domain": domain, "classes": 10}).eval()


class Told(list):
    """Hears how far it is."""

    def progress(self, what: str, done: int, total: int) -> None:
        self.append((what, done, total))

    def said(self, level: int, text: str) -> None: ...


class Answering:
    """Answers from the last question to the first, and is killed before one of them."""

    def __init__(self, until: int | None = None) -> None:
        self.until, self.asked = until, []

    def __call__(self, model: object, questions: Sequence[Question]) -> Iterator[tuple[int, Tensor]]:
        for number in reversed(range(len(questions))):
            if len(self.asked) == self.until:
                raise KeyboardInterrupt
            self.asked.append(questions[number].start)
            yield number, answer(model, questions[number])


def test_an_interrupted_answer_goes_on_with_what_is_missing_and_is_the_same(model: GenerativeModel, tmp_path: Path):
    whole = inference.sample(model, N, LABEL, 7)
    first, told = Answering(until=2), Told()
    with pytest.raises(KeyboardInterrupt):
        inference.sample(model, N, LABEL, 7, ask=KeptAnswers(first, Parts(tmp_path / "parts"), "cpu", told))
    assert first.asked == [1024, 512]
    assert told == [("sample", 0, N), ("sample", 276, N), ("sample", 788, N)]

    second = Answering()
    ask = KeptAnswers(second, Parts(tmp_path / "parts"), "cpu", Told())
    assert torch.equal(inference.sample(model, N, LABEL, 7, ask=ask), whole)
    assert second.asked == [0]
    inference.sample(model, N, LABEL, 8, ask=ask)  # another seed is another question
    inference.sample(model, N, LABEL.flip(0), 7, ask=ask)  # and so are other labels
    assert second.asked == [0, 1024, 512, 0, 1024, 512, 0]
    on_gpu = KeptAnswers(second, Parts(tmp_path / "parts"), "cuda", Told())
    inference.sample(model, N, LABEL, 7, ask=on_gpu)  # and another kind of device
    assert len(second.asked) == 10


def test_a_damaged_part_is_asked_again(model: GenerativeModel, tmp_path: Path):
    x = inference.sample(model, 600, None, 0)
    whole = inference.elbo(model, x, 1, 2)
    for asked, parts in ((2, 2), (1, 2), (0, 2)):
        answering = Answering()
        ask = KeptAnswers(answering, Parts(tmp_path), "cpu", Told())
        assert (inference.elbo(model, x, 1, 2, ask=ask) == whole).all()
        kept = sorted(tmp_path.iterdir())
        assert (len(answering.asked), len(kept)) == (asked, parts)
        if asked == 2:
            content = bytearray(kept[0].read_bytes())
            content[-1] ^= 1
            kept[0].write_bytes(content)
    Parts(tmp_path).clear()
    assert not tmp_path.exists()
