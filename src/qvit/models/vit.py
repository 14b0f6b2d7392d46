"""The vision transformer (Dosovitskiy et al. 2021); its projection makes it quantum or classical."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qvit.errors import ModelError
from qvit.models.attention import Attention
from qvit.models.block import MixWeights, may_mix, mix_by_kernel
from qvit.models.embedding import embed, normalised
from qvit.models.limits import MOST_TOKENS, MOST_WEIGHTS, check_at_most, check_size
from qvit.models.norm import LayerNorm, norm_mean
from qvit.models.projections import Projection, Quantum
from qvit.models.stacked_layers import StackedLinear, StackedPatches
from qvit.torch_private import plain, unhooked

# How the tokens `(…, n, d)` of an image become one vector `(…, d)`.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda tokens: tokens.mean(dim=-2),
    "cls": lambda tokens: tokens[..., 0, :],
}
if TYPE_CHECKING:  # mypy cannot make a type of a table; pydantic can, and checks what is given
    Pool = str
else:
    Pool = Literal[tuple(POOLS)]
Images = UInt8[Tensor, "*m b c y x"] | Float[Tensor, "*m b c y x"]


def default_patch_size(img_size: int) -> int:
    """Return the smallest patch of at least 4 pixels that cuts an image into at most 14 × 14 patches.

    28 → 4, 64 → 8, 128 → 16, 224 → 16. Raises `ModelError` if only the whole image would do.
    """
    for patch in range(4, img_size // 2 + 1):
        if img_size % patch == 0 and img_size // patch <= 14:
            return patch
    raise ModelError(
        f"No patch size suits images of {img_size} pixels (4 or more, dividing {img_size}, at most 14 × 14 "
        "patches); pass patch_size, or resize the images."
    )


@dataclass(frozen=True)
class ViTConfig:
    """Everything that determines a ViT.

    Sizes in pixels; `patch_size=None` means `default_patch_size(img_size)`. `dim` is the width d, split among
    `heads`; `mlp_dim` the width of the MLP's hidden layer; `depth` the number of blocks; `pool` how tokens
    become one vector; `dropout` the rate after attention and MLP. Raises `ModelError` for sizes that do not
    fit together or exceed `models.limits`.
    """

    img_size: int = 28
    in_chans: int = 3
    num_classes: int = 2
    patch_size: int | None = None
    dim: int = 8
    heads: int = 2
    depth: int = 1
    mlp_dim: int = 8
    pool: Pool = "mean"
    dropout: float = 0.0
    projection: Projection = field(default_factory=Quantum)

    def __post_init__(self) -> None:
        for name in ("img_size", "in_chans", "num_classes", "dim", "heads", "depth", "mlp_dim"):
            check_size(name, getattr(self, name))
        if self.dim % self.heads:
            raise ModelError(f"dim={self.dim} cannot be split among heads={self.heads}; use a multiple.")
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.pool not in tuple(POOLS):  # which takes values of any type
            *others, last = (f"'{name}'" for name in POOLS)
            raise ModelError(f"pool must be {', '.join(others)} or {last}, got '{self.pool}'.")
        if self.patch_size is not None:
            check_size("patch_size", self.patch_size)
        patch = self.patch
        if self.img_size % patch:
            raise ModelError(
                f"img_size={self.img_size} is not divisible by patch_size={patch}; "
                f"patches that fit: {', '.join(str(p) for p in _divisors(self.img_size))}."
            )
        check_at_most("The number of patches of an image", self.tokens, MOST_TOKENS)
        most_in_projections = 3 * self.depth * self.dim**2
        check_at_most("The number of weights", self.weights_without_circuits + most_in_projections, MOST_WEIGHTS)

    @property
    def tokens(self) -> int:
        """The number of tokens of an image."""
        return (self.img_size // self.patch) ** 2 + (self.pool == "cls")

    @property
    def weights_without_circuits(self) -> int:
        """The number of weights outside the projections to queries, keys and values."""
        width, hidden = self.dim, self.mlp_dim
        embedding = width * (self.in_chans * self.patch**2 + 1 + self.tokens + (self.pool == "cls"))
        block = 4 * width + width * (width + 1) + hidden * (width + 1) + width * (hidden + 1)
        return embedding + self.depth * block + 2 * width + self.num_classes * (width + 1)

    @property
    def patch(self) -> int:
        """The patch size in use, in pixels."""
        return default_patch_size(self.img_size) if self.patch_size is None else self.patch_size


def _divisors(size: int) -> list[int]:
    return [p for p in range(1, size + 1) if size % p == 0]


def check_images(images: Tensor, *, in_chans: int, img_size: int, models: tuple[int, ...] = ()) -> None:
    """Raise `ModelError` unless images are `(*models, b, in_chans, img_size, img_size)`, of bytes or floats."""
    expected, lead = (in_chans, img_size, img_size), len(models)
    if images.ndim != 4 + lead or images.shape[1 + lead :] != expected or images.shape[:lead] != models:
        wanted = [*models, "b", *expected]
        raise ModelError(f"Expected images ({', '.join(map(str, wanted))}), got {tuple(images.shape)}.")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ModelError(f"Expected uint8 images or floats in [0, 1], got {images.dtype}.")


class Preprocess(nn.Module):
    """Normalises images of bytes 0–255 or floats 0–1; part of the model, so that prediction cannot forget it.

    `mean` and `std` `(c,)` on the 0–1 scale are buffers, saved with the weights; of a stack `(m, c)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((in_chans,), 0.5))
        self.register_buffer("std", torch.full((in_chans,), 0.5))

    def set_statistics(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Normalise by these statistics of the training images from now on."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-3))

    def forward(self, images: Images) -> Float[Tensor, "*m b c y x"]:
        """Return images of mean 0 and deviation 1, as far as `mean` and `std` describe them."""
        return normalised(plain(images), self.mean, self.std)  # the one place where every network takes images in


_EMBEDDINGS = {(nn.Conv2d, Preprocess), (StackedPatches, Preprocess)}  # layers that `embed` computes at once
# The layers after the projections that `mix` computes at once.
_PLAIN = {(dense, LayerNorm, dense, nn.GELU, dense) for dense in (nn.Linear, StackedLinear)}


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm_attention = LayerNorm(config.dim, across=True)
        self.attention = Attention(config.projection.build(config.dim, config.heads), config.dim)
        self.norm_mlp = LayerNorm(config.dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, config.mlp_dim), nn.GELU(), nn.Linear(config.mlp_dim, config.dim)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Float[Tensor, "*m b n d"]) -> Float[Tensor, "*m b n d"]:
        """Return the tokens after attention and MLP, each added to what came in."""
        if self._is_plain():
            queries, keys, values = self.attention.project(self.norm_attention(tokens))
            weights = self._weights()
            if may_mix(tokens, queries, keys, values, weights):
                return mix_by_kernel(tokens, queries, keys, values, weights)
            tokens = tokens + self.attention.gather(queries, keys, values)
        else:
            tokens = tokens + self.dropout(self.attention(self.norm_attention(tokens)))
        return tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))

    def _is_plain(self) -> bool:
        """Return whether all that follows the projections is as it was built, and nobody watches or drops any of it."""
        attention, mlp, dropped = self.attention, self.mlp, self.training and self.dropout.p > 0.0
        if type(attention) is not Attention or type(mlp) is not nn.Sequential or dropped:
            return False
        layers = attention.out, self.norm_mlp, *mlp
        return tuple(map(type, layers)) in _PLAIN and unhooked(attention, mlp, self.dropout, *layers)

    def _weights(self) -> MixWeights:
        out, norm, up, down = self.attention.out, self.norm_mlp, self.mlp[0], self.mlp[2]
        dense: Any = up.weight, up.bias, down.weight, down.bias, norm.eps
        return MixWeights(out.weight, out.bias, norm.weight, norm.bias, *dense)


class Classifier(nn.Module):
    """Base of all our networks: preprocessing, and a head that timm's methods read and replace."""

    config: Any
    preprocess: Preprocess
    num_classes: int
    num_features: int
    head: nn.Module
    draws = False  # whether training takes random numbers, such as dropout's, from functions that take a generator

    def get_classifier(self) -> nn.Module:
        """Return the classification head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one for `num_classes` classes; 0 removes it."""
        if num_classes < 0:
            raise ModelError(f"num_classes must not be negative, got {num_classes}.")
        self.num_classes = num_classes
        if num_classes:
            self.config = replace(self.config, num_classes=num_classes)
        like = self.preprocess.mean
        self.head = (
            nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )


class ViT(Classifier):
    """A vision transformer from images `(b, c, s, s)`, uint8 or floats in [0, 1], to logits `(b, num_classes)`.

    The method names are timm's: `forward_features`, `forward_head`, `get_classifier`, `reset_classifier`.

    Where shapes begin with `*m`, they are those of a stack of m models (see `models.stack`), each with images of its
    own; of one model they begin with `b`.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes, self.num_features = config.num_classes, config.dim
        self.draws = config.dropout > 0.0
        self.preprocess = Preprocess(config.in_chans)
        self.patch_embed = nn.Conv2d(config.in_chans, config.dim, config.patch, stride=config.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "cls" else None
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, config.tokens, config.dim), std=0.02))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.num_classes)

    @property
    def models(self) -> tuple[int, ...]:
        """The number of models of a stack, `(m,)`; of one model `()`."""
        return tuple(self.pos_embed.shape[:-3])

    def forward(self, images: Tensor) -> Float[Tensor, "*m b k"]:
        """Return the logits of images `(*m, b, c, s, s)`; raises `ModelError` for another shape or dtype."""
        if self._averages_at_once():
            norm = self.norm
            return self.head(norm_mean(self.blocks(self.embed(images)), norm.weight, norm.bias, norm.eps))
        return self.forward_head(self.forward_features(images))

    def _averages_at_once(self) -> bool:
        """Return whether the last norm and the pooling are one operation.

        Only to train: predictions have the same digits whether or not features are asked for besides.
        """
        plain = type(self) is ViT and type(self.norm) is LayerNorm and self.config.pool == "mean"
        return self.training and plain and unhooked(self.norm)

    def forward_features(self, images: Tensor) -> Float[Tensor, "*m b n d"]:
        """Return the normalised tokens of the last block, the class token first if there is one."""
        return self.norm(self.blocks(self.embed(images)))

    def forward_with_attention(self, images: Tensor) -> tuple[Float[Tensor, "*m b n d"], Float[Tensor, "*m b y x"]]:
        """Return what `forward_features` does, and the share of attention each patch receives in the last block.

        The shares are means over heads and over the tokens that give attention, including the class token; what that
        receives is left out, and each map sums to 1.
        """
        last = self.blocks[-1]
        assert isinstance(last, Block)
        tokens = self.blocks[:-1](self.embed(images))
        received = last.attention.weights(last.norm_attention(tokens)).mean(dim=(-3, -2))
        patches = received if self.cls_token is None else received[..., 1:]
        patches = patches / patches.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(patches.dtype).tiny)
        side = self.config.img_size // self.config.patch
        return self.norm(last(tokens)), rearrange(patches, "... (y x) -> ... y x", y=side)

    def embed(self, images: Tensor) -> Float[Tensor, "*m b n d"]:
        """Return the tokens that enter the first block."""
        check_images(images, in_chans=self.config.in_chans, img_size=self.config.img_size, models=self.models)
        patches, prepared, own = self.patch_embed, self.preprocess, self.pos_embed if self.cls_token is None else None
        if self._embeds_at_once():
            assert patches.bias is not None
            statistics = prepared.mean, prepared.std
            tokens = embed(images, *statistics, patches.weight, patches.bias, own, self.config.patch)
            if own is not None:
                return tokens
        else:
            tokens = rearrange(patches(prepared(images)), "... d y x -> ... (y x) d")
        if self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(*tokens.shape[:-2], 1, -1), tokens), dim=-2)
        # Positions come first, as the sum takes their layout in memory, token after token, not the convolution's.
        return self.pos_embed + tokens

    def _embeds_at_once(self) -> bool:
        """Return whether normalising and embedding are one operation: nobody watches, and the layers are as built."""
        patches, prepared, patch = self.patch_embed, self.preprocess, self.config.patch
        if (type(patches), type(prepared)) not in _EMBEDDINGS or patches.bias is None:
            return False
        shape = self.config.dim, self.config.in_chans, patch, patch
        built = patches.stride == (patch, patch) and patches.padding == (0, 0) and patches.weight.shape[-4:] == shape
        return built and unhooked(patches, prepared)

    def forward_head(self, tokens: Float[Tensor, "*m b n d"], *, pre_logits: bool = False) -> Float[Tensor, "*m b k"]:
        """Return the logits of pooled tokens, or with `pre_logits` the pooled features `(*m, b, d)`."""
        pooled = POOLS[self.config.pool](tokens)
        return pooled if pre_logits else self.head(pooled)
