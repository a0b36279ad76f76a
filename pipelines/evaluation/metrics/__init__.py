"""The metrics: their names, units and better directions, in the order of the page."""

from __future__ import annotations

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Samples: are they like the data?": {
        "frechet": (
            "Fréchet distance",
            "Distance between Gaussians fitted to the features of samples and of test data.",
        ),
        "frechet_random": ("Fréchet distance, random features", "The same in the space of an untrained network."),
        "kernel": ("Kernel distance", "Maximum mean discrepancy; unbiased, so it may fall below zero."),
        "kernel_random": ("Kernel distance, random features", "The same in the space of an untrained network."),
        "precision": ("Precision", "Samples that lie among the test data: fidelity."),
        "recall": ("Recall", "Test data that lie among the samples: variety."),
        "density": (
            "Density",
            "Test neighbourhoods a sample lies in; 1 for real data, more where samples crowd the typical.",
        ),
        "coverage": ("Coverage", "Test examples with a sample near by: variety, robust to outliers."),
        "c2st": ("Two-sample test", "Accuracy of a classifier telling samples from test data; 0.5 is a guess."),
        "accuracy": ("Label accuracy", "Samples in which an independent classifier sees the label that was asked for."),
        "column_distance": (
            "Column distance",
            "Kolmogorov-Smirnov distance (numbers) or total variation (categories), averaged over columns.",
        ),
        "association_distance": (
            "Association distance",
            "How far the columns' dependences (rank correlations, Cramer's V) are from the real ones, on average.",
        ),
        "utility_auroc": (
            "Utility, AUROC",
            "A gradient-boosted classifier taught by samples, judged on real rows; the floor was taught by real ones.",
        ),
        "utility_accuracy": ("Utility, accuracy", "The same classifier's share of right labels."),
        "near_copies": ("Near copies", "Samples closer to a training example than 99\u202f% of unseen data are."),
        "exact_copies": ("Exact copies", "Samples identical to a training example."),
    },
    "Density: how well is unseen data predicted?": {
        "bits_per_dim": (
            "Bits per dimension, exact",
            "Bits per value to code a test example, by exact log-likelihood.",
        ),
        "bits_per_dim_bound": ("Bits per dimension, bound", "An upper bound of the same: the true number is lower."),
        "nats_per_row": (
            "Nats per row",
            "Negative log-likelihood of a test row; where whole numbers or categories are filled with noise, a bound.",
        ),
        "nats_per_row_bound": ("Nats per row, bound", "An upper bound of the same: the true number is lower."),
    },
    "Codes and reconstructions": {
        "reconstruction_rmse": ("Reconstruction error", "Root mean squared error of rebuilt test examples."),
        "code_bytes": ("Bytes per code", "Size of a code of 16-bit floats."),
        "code_rmse": ("Error from such codes", "Root mean squared error of examples decoded from them."),
        "probe_accuracy": ("Linear probe", "Accuracy of a linear classifier that sees nothing but the codes."),
    },
    "Imputation: how well are hidden values filled in?": {
        "imputation_crps": (
            "Ranked probability score",
            "Distance of the draws to the truth, less half the distance among them: rewards the right distribution.",
        ),
        "imputation_rmse": ("Error of the mean", "Root mean squared error of the draws' mean, over hidden numbers."),
        "imputation_accuracy": ("Accuracy of the mode", "Hidden categories that most draws name rightly."),
    },
    "Anomalies: is the strange told from the ordinary?": {
        "anomaly_auroc": ("AUROC", "Chance that an anomaly scores higher than an ordinary example; 0.5 is a guess."),
        "anomaly_ap": ("Average precision", "Area under the precision-recall curve of all anomalies together."),
    },
}
"""By group, the metrics in the order shown: title and one line."""
KINDS = ("anomaly_auroc_", "AUROC, {}", "The same for one kind of anomaly.")
"""Prefix, title and line of metrics that come one per kind of anomaly."""
