"""The models that QViTs are compared with: one row per kind that has something else in the circuits' place.

Plain baselines are compared with, too: whether a model as simple as these would do.
"""

from dataclasses import dataclass

TWIN = "vit_matched"  # the kind that answers whether a QViT is better than a classical model of its size


@dataclass(frozen=True)
class Control:
    """A kind of model, and what it has in the circuits' place, in words.

    `isolates` says that it keeps everything except what is quantum, so that it shows whether that helps; `is_told` says
    that the first box of a report has a line for it.
    """

    kind: str
    words: str
    isolates: bool = False
    is_told: bool = False


# In the order in which reports list them.
CONTROLS = {
    one.kind: one
    for one in (
        Control(TWIN, "dense matrices, same parameter count", is_told=True),
        Control("vit", "dense matrices, same width", is_told=True),
        Control("no_entangler", "the circuits without entangling gates", isolates=True, is_told=True),
        Control("cosine", "a plain cosine of each feature", isolates=True, is_told=True),
        Control("frozen", "random circuits that are not trained", isolates=True, is_told=True),
        Control("identity", "no projection at all", is_told=True),
        Control("givens", "orthogonal matrices (plane rotations)"),
        Control("circulant", "circular convolutions"),
        Control("unlu", "the circuits of Unlu et al."),
        Control("givens_matched", "orthogonal matrices, same parameter count"),
        Control("circulant_matched", "circular convolutions, same parameter count"),
        Control("unlu_matched", "the circuits of Unlu et al., same parameter count"),
    )
}


# The plain baselines, by kind, in words; none has anything of a QViT, so they are no controls.
BASELINES = {
    "logistic": "logistic regression",
    "extra_trees": "a forest of extra trees",
    "nearest": "nearest neighbour",
    "commonest": "the commonest class",
    "dsconv": "a convolutional network",
    "dsconv_matched": "a convolutional network of the same size",
}
