"""Multi-head self-attention whose projections are a value handed in."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """softmax(QKᵀ/√q)·V over all tokens in each head, then a dense output projection (Vaswani et al. 2017).

    `project` maps `(b, n, d)` to `(3, b, h, n, q)`; see `models.projections`.
    """

    def __init__(self, project: nn.Module, dim: int) -> None:
        super().__init__()
        self.project = project
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what every token gathers from all tokens."""
        queries, keys, values = self.project(tokens).unbind(0)
        gathered = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(rearrange(gathered, "b h n q -> b n (h q)"))
