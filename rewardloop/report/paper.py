"""What the paper measured, to stand beside a run's own figures.

Source: Yuan et al., arXiv 2401.10020, section 3.2; all with Llama 2 70B.
"""

JUDGES: dict[str, dict[str, float]] = {
    label: dict(
        zip(
            ("pairwise_accuracy", "five_best", "exact_order", "spearman", "kendall_tau"),
            figures,
            strict=True,
        )
    )
    for label, figures in {
        "SFT": (0.651, 0.396, 0.101, 0.253, 0.233),
        "M1": (0.787, 0.415, 0.131, 0.279, 0.253),
        "M2": (0.804, 0.443, 0.143, 0.331, 0.315),
        "M3": (0.817, 0.432, 0.143, 0.349, 0.324),
    }.items()
}
"""Agreement with humans, by version."""

WIN_RATES: dict[tuple[str, str], tuple[float, float]] = {
    ("M1", "SFT"): (0.305, 0.309),
    ("M2", "M1"): (0.555, 0.117),
    ("M3", "M2"): (0.477, 0.125),
    ("M3", "SFT"): (0.625, 0.098),
}
"""Won and lost, of 256 prompts."""
