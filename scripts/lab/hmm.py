"""The baseline from before recurrent networks: one hidden Markov model per class, fitted by maximum likelihood.

A sequence gets the class whose model finds it likeliest, weighed by how common the class is (Rabiner 1989). Symbols and
spikes are categories, everything else has a Gaussian with a diagonal covariance per state.
"""

from __future__ import annotations

import logging
import time

import numpy as np
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from numpy.typing import NDArray

from lab.fit import Fit
from lab.sources import TEST, VALIDATION, Source
from lab.tasks import Sequences, Task

STATES = (4, 8, 16)
"""Numbers of hidden states tried; the validation sequences choose."""
ITERATIONS = 15
PSEUDO_COUNT = 0.01
"""Added to counts, so that what a class never showed is unlikely and not impossible."""
SMALLEST_VARIANCE = 1e-2

Model = CategoricalHMM | GaussianHMM


def fit_hmm(task: Task, source: Source, seed: int) -> Fit:
    """Fit with each number of states, keep the best on the validation sequences, score that on the test sequences.

    Raises:
        ValueError: the task does not ask for one class per sequence.
    """
    if not task.hmm:
        raise ValueError(f"{task.name}: one model per class is no answer to it")
    started = time.process_time()
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # it says of every model that its last step was small
    train, val = source.training_set(), source.held_out(VALIDATION)
    found = [models(train, states, seed) for states in STATES]
    best = max(found, key=lambda classes: accuracy(classes, val))  # the first, with the fewest states, of equals
    score = accuracy(best, source.held_out(TEST))
    numbers = sum(model._get_n_fit_scalars_per_param()[letter] for model, _ in best for letter in model.params)
    return Fit(score, ITERATIONS, int(numbers), time.process_time() - started)


def models(train: Sequences, states: int, seed: int) -> list[tuple[Model, float]]:
    """Per class, in order, its model and the logarithm of its share of the sequences."""
    labels = train.y[:, 0]
    symbols = symbol_count(train)
    fitted = []
    for label in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == label)
        model = _new(states, symbols, seed)
        model.fit(observations(train, rows, symbols), train.lengths[rows])
        fitted.append((model, float(np.log(len(rows) / len(labels)))))
    return fitted


def _new(states: int, symbols: int | None, seed: int) -> Model:
    common = {"n_components": states, "n_iter": ITERATIONS, "random_state": seed, "transmat_prior": 1 + PSEUDO_COUNT}
    if symbols is None:
        return GaussianHMM(covariance_type="diag", min_covar=SMALLEST_VARIANCE, **common)
    return CategoricalHMM(n_features=symbols, emissionprob_prior=1 + PSEUDO_COUNT, **common)


def symbol_count(sequences: Sequences) -> int | None:
    """How many categories one-hot steps, or single channels of 0 and 1, stand for; None: they are numbers."""
    x = sequences.x
    if not np.isin(x, (0, 1)).all():
        return None
    if x.shape[2] == 1:
        return 2
    valid = np.arange(x.shape[1]) < sequences.lengths[:, None]
    return x.shape[2] if (x.sum(2)[valid] == 1).all() else None


def observations(sequences: Sequences, rows: NDArray[np.int64], symbols: int | None) -> NDArray[np.generic]:
    """The valid steps of these sequences, one after the other, as hmmlearn takes them."""
    steps = np.concatenate([sequences.x[row, : sequences.lengths[row]] for row in rows])
    if symbols is None:
        return steps.astype(np.float64)
    return steps.astype(np.int64) if steps.shape[1] == 1 else steps.argmax(1)[:, None]


def accuracy(classes: list[tuple[Model, float]], sequences: Sequences) -> float:
    """Share of the sequences whose likeliest class is theirs."""
    symbols = symbol_count(sequences)
    steps = [observations(sequences, np.array([row]), symbols) for row in range(len(sequences.x))]
    scores = np.array([[model.score(one) + prior for model, prior in classes] for one in steps])
    return float((scores.argmax(1) == sequences.y[:, 0]).mean())
