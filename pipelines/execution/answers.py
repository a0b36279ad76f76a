"""Answers of a model, kept until all are there, so that what is interrupted asks only for what is missing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from data.files import canonical
from pipelines.evaluation.inference import Question, answer
from pipelines.execution.events import Listener
from pipelines.storage.parts import Parts

Answers = Callable[[object, Sequence[Question]], Iterator[tuple[int, Tensor]]]
"""What answers questions, with their numbers, in any order."""


class KeptAnswers:
    """Puts questions to a model, but those whose answers an earlier attempt has left.

    Arguments:
        answers: What answers the others.
        parts: Where answers are kept.
        device: Kind of device that answers: another would give other samples.
        listener: Is told how far it is.
        least: Seconds an answer must have taken to be kept.
    """

    def __init__(self, answers: Answers, parts: Parts, device: str, listener: Listener, *, least: float = 0.0) -> None:
        self.answers, self.parts, self.device, self.listener, self.least = answers, parts, device, listener, least

    def __call__(self, model: object, questions: Sequence[Question]) -> list[Tensor]:
        """The answers in the order of the questions."""
        what, total = questions[0].what, sum(question.size for question in questions)
        names = [part_name(question, self.device) for question in questions]
        found = {number: kept["answer"] for number, name in enumerate(names) if (kept := self.parts.get(name))}
        missing = [number for number in range(len(questions)) if number not in found]
        done = total - sum(questions[number].size for number in missing)
        self.listener.progress(what, done, total)
        asked = time.monotonic()
        for which, given in self.answers(model, [questions[number] for number in missing]):
            number = missing[which]
            found[number] = given
            if time.monotonic() - asked >= self.least:
                self.parts.put(names[number], {"answer": given})
            asked = time.monotonic()
            done += questions[number].size
            self.listener.progress(what, done, total)
        return [found[number] for number in range(len(questions))]


def part_name(question: Question, device: str) -> str:
    """SHA-256 of everything that an answer of one model depends on."""
    tensors = {"rows": question.rows, **question.more}
    plain = {name: value for name, value in tensors.items() if not isinstance(value, Tensor)}
    head = [question.what, question.start, question.size, question.seed, device, plain]
    digest = hashlib.sha256(canonical(head))
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            digest.update(canonical([name, str(value.dtype), list(value.shape)]))
            digest.update(value.contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def answers_here(model: object, questions: Sequence[Question]) -> Iterator[tuple[int, Tensor]]:
    """Answers of a model in this process."""
    return ((number, answer(model, question)) for number, question in enumerate(questions))


def device_here() -> str:
    """The best device of this process."""
    return "cuda" if torch.cuda.is_available() else "cpu"
