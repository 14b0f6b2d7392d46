"""The vision transformer (Dosovitskiy et al. 2021); its projection makes it quantum or classical."""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from qvit.errors import ModelError
from qvit.models.attention import Attention
from qvit.models.block import MixWeights, may_mix, mix_by_kernel
from qvit.models.embedding import embed, embed_maps
from qvit.models.features import Features, check_features, count_features
from qvit.models.limits import MOST_TOKENS, MOST_WEIGHTS, check_at_most, check_size
from qvit.models.norm import LayerNorm, norm_mean
from qvit.models.pools import POOLS, AttentionPool, PoolName, check_pool
from qvit.models.positions import Positions, check_positions, gathered, table_size, waves
from qvit.models.preprocess import PatchFeatures, Preprocess
from qvit.models.projections import Projection, Quantum, values_of
from qvit.models.stacked_layers import StackedLinear, StackedPatches
from qvit.torch_private import unhooked


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
    `heads`; `mlp_dim` the width of the MLP's hidden layer; `depth` the number of blocks, and `loops` how often they
    are gone through, with the same weights; `dropout` the rate after attention and MLP. `features` says what is
    embedded of a patch, its pixels or fixed features of them (`models.features`), `positions` how tokens learn their
    place (`models.positions`), `pool` how tokens become one vector (`models.pools`). Scores of attention are
    multiplied by `attention_scale`, an inverse temperature; with a `learned_scale` each head begins there.
    Raises `ModelError` for sizes that do not fit together or exceed `models.limits`.
    """

    img_size: int = 28
    in_chans: int = 3
    num_classes: int = 2
    patch_size: int | None = None
    dim: int = 8
    heads: int = 2
    depth: int = 1
    loops: int = 1
    mlp_dim: int = 8
    features: Features = "raw"
    positions: Positions = "learned"
    pool: PoolName = "mean"
    attention_scale: float = 1.0
    learned_scale: bool = False
    dropout: float = 0.0
    projection: Projection = field(default_factory=Quantum)

    def __post_init__(self) -> None:
        for name in ("img_size", "in_chans", "num_classes", "dim", "heads", "depth", "loops", "mlp_dim"):
            check_size(name, getattr(self, name))
        if self.dim % self.heads:
            raise ModelError(f"dim={self.dim} cannot be split among heads={self.heads}; use a multiple.")
        if not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"dropout must be in [0, 1), got {self.dropout}.")
        check_pool(self.pool)
        check_positions(self.positions)
        if not 0.0 < self.attention_scale < inf:
            raise ModelError(f"attention_scale must be positive, got {self.attention_scale}.")
        if self.patch_size is not None:
            check_size("patch_size", self.patch_size)
        patch = self.patch
        if self.img_size % patch:
            raise ModelError(
                f"img_size={self.img_size} is not divisible by patch_size={patch}; "
                f"patches that fit: {', '.join(str(p) for p in _divisors(self.img_size))}."
            )
        check_features(self.features, patch)
        check_at_most("The number of patches of an image", self.tokens, MOST_TOKENS)
        most_in_projections = 3 * self.depth * self.dim**2
        check_at_most("The number of weights", self.weights_without_circuits + most_in_projections, MOST_WEIGHTS)

    @property
    def side(self) -> int:
        """The number of patches along a side of an image."""
        return self.img_size // self.patch

    @property
    def tokens(self) -> int:
        """The number of tokens of an image."""
        return self.side**2 + (self.pool == "cls")

    @property
    def values(self) -> int:
        """The number of values that the projection gives of a token, all heads together."""
        return self.heads * values_of(self.projection, self.dim // self.heads)

    @property
    def described(self) -> int:
        """The numbers that describe a patch before it is embedded."""
        return self.in_chans * (self.patch**2 if self.features == "raw" else count_features(self.features))

    @property
    def weights_without_circuits(self) -> int:
        """The number of weights outside the projections to queries, keys and values."""
        width, hidden, own = self.dim, self.mlp_dim, self.pool == "cls"
        positions = 0 if self.positions == "sincos" else table_size(self.positions, self.side)
        embedding = width * (self.described + 1 + positions + own * (1 + (positions > 0)))
        block = 4 * width + width * (self.values + 1) + hidden * (width + 1) + width * (hidden + 1)
        block += self.heads * self.learned_scale
        head = self.num_classes * (POOLS[self.pool].vectors * width + 1) + width * (self.pool == "attention")
        return embedding + self.depth * block + 2 * width + head

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


# Layers that `embed` computes at once.
_EMBEDDINGS = {(layer, first) for layer in (nn.Conv2d, StackedPatches) for first in (Preprocess, PatchFeatures)}
# The layers after the projections that `mix` computes at once.
_PLAIN = {(dense, LayerNorm, dense, nn.GELU, dense) for dense in (nn.Linear, StackedLinear)}


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm_attention = LayerNorm(config.dim, across=True)
        self.attention = Attention(
            config.projection.build(config.dim, config.heads),
            config.dim,
            values=config.values,
            scale=config.attention_scale,
            learned=config.heads if config.learned_scale else None,
        )
        self.norm_mlp = LayerNorm(config.dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, config.mlp_dim), nn.GELU(), nn.Linear(config.mlp_dim, config.dim)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Float[Tensor, "*m b n d"]) -> Float[Tensor, "*m b n d"]:
        """Return the tokens after attention and MLP, each added to what came in."""
        if self._is_plain():
            queries, keys, values = self.attention.prepared(self.norm_attention(tokens), scaled=False)
            weights = self._weights()
            if may_mix(tokens, queries, keys, values, weights):
                return mix_by_kernel(tokens, queries, keys, values, weights)
            tokens = tokens + self.attention.gather(queries * weights.scale, keys, values)
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
        dense: Any = up.weight, up.bias, down.weight, down.bias, norm.eps, self.attention.scale
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
        self.num_classes, self.num_features = config.num_classes, POOLS[config.pool].vectors * config.dim
        self.draws = config.dropout > 0.0
        self.preprocess, cell = Preprocess(config.in_chans), config.patch
        if config.features != "raw":  # maps of features, of which a patch is one point
            self.preprocess, cell = PatchFeatures(config.in_chans, config.features, config.patch), 1
        self.patch_embed = nn.Conv2d(config.described // cell**2, config.dim, cell, stride=cell)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.pool == "cls" else None
        self._add_positions(config)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = LayerNorm(config.dim)
        self.pool = AttentionPool(config.dim) if config.pool == "attention" else None
        self.head = nn.Linear(self.num_features, config.num_classes)

    def _add_positions(self, config: ViTConfig) -> None:
        """Add the table of positions `(1, k, d)`, the class token's first: to be learned, or not even to be saved."""
        if config.positions == "sincos":
            self.register_buffer("pos_embed", waves(config.side, config.dim), persistent=False)
            return
        size = table_size(config.positions, config.side) + (config.pool == "cls")
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, size, config.dim), std=0.02))

    @property
    def models(self) -> tuple[int, ...]:
        """The number of models of a stack, `(m,)`; of one model `()`."""
        return tuple(self.pos_embed.shape[:-3])

    def positions(self) -> Float[Tensor, "*m 1 n d"]:
        """Return what is added to the tokens of all patches, row by row, for their place."""
        kind, table = self.config.positions, self.pos_embed
        if kind == "sincos":
            return table
        return gathered(table if self.cls_token is None else table[..., 1:, :], kind, self.config.side)

    def forward(self, images: Tensor) -> Float[Tensor, "*m b k"]:
        """Return the logits of images `(*m, b, c, s, s)`; raises `ModelError` for another shape or dtype."""
        if self._averages_at_once():
            norm = self.norm
            return self.head(norm_mean(self._through_blocks(images), norm.weight, norm.bias, norm.eps))
        return self.forward_head(self.forward_features(images))

    def _averages_at_once(self) -> bool:
        """Return whether the last norm and the pooling are one operation.

        Only to train: predictions have the same digits whether or not features are asked for besides.
        """
        plain = type(self) is ViT and type(self.norm) is LayerNorm and self.config.pool == "mean"
        return self.training and plain and unhooked(self.norm)

    def forward_features(self, images: Tensor) -> Float[Tensor, "*m b n d"]:
        """Return the normalised tokens of the last block, the class token first if there is one."""
        return self.norm(self._through_blocks(images))

    def _through_blocks(self, images: Tensor) -> Float[Tensor, "*m b n d"]:
        tokens = self.embed(images)
        for _ in range(self.config.loops):
            tokens = self.blocks(tokens)
        return tokens

    def forward_with_attention(self, images: Tensor) -> tuple[Float[Tensor, "*m b n d"], Float[Tensor, "*m b y x"]]:
        """Return what `forward_features` does, and the share of attention each patch receives in the last block.

        The shares are means over heads and over the tokens that give attention, including the class token; what that
        receives is left out, and each map sums to 1.
        """
        last = self.blocks[-1]
        assert isinstance(last, Block)
        tokens = self.embed(images)
        for _ in range(self.config.loops - 1):
            tokens = self.blocks(tokens)
        tokens = self.blocks[:-1](tokens)
        received = last.attention.weights(last.norm_attention(tokens)).mean(dim=(-3, -2))
        patches = received if self.cls_token is None else received[..., 1:]
        patches = patches / patches.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(patches.dtype).tiny)
        return self.norm(last(tokens)), rearrange(patches, "... (y x) -> ... y x", y=self.config.side)

    def embed(self, images: Tensor) -> Float[Tensor, "*m b n d"]:
        """Return the tokens that enter the first block."""
        check_images(images, in_chans=self.config.in_chans, img_size=self.config.img_size, models=self.models)
        patches, prepared, positions = self.patch_embed, self.preprocess, self.positions()
        if self._embeds_at_once():
            assert patches.bias is not None
            weights = patches.weight, patches.bias, positions
            if isinstance(prepared, PatchFeatures):
                maps, statistics = prepared.features(images), (prepared.feature_mean, prepared.feature_std)
                tokens = embed_maps(maps, *statistics, *weights)
            else:
                tokens = embed(images, prepared.mean, prepared.std, *weights, self.config.patch)
        else:
            # Positions come first, as the sum takes their layout in memory, token after token, not the convolution's.
            tokens = positions + rearrange(patches(prepared(images)), "... d y x -> ... (y x) d")
        if self.cls_token is None:
            return tokens
        token = self.cls_token if self.config.positions == "sincos" else self.cls_token + self.pos_embed[..., :1, :]
        return torch.cat((token.expand(*tokens.shape[:-2], 1, -1), tokens), dim=-2)

    def _embeds_at_once(self) -> bool:
        """Return whether normalising and embedding are one operation: nobody watches, and the layers are as built."""
        patches, prepared, config = self.patch_embed, self.preprocess, self.config
        if (type(patches), type(prepared)) not in _EMBEDDINGS or patches.bias is None:
            return False
        patch = config.patch if config.features == "raw" else 1
        shape = config.dim, config.described // patch**2, patch, patch
        built = patches.stride == (patch, patch) and patches.padding == (0, 0) and patches.weight.shape[-4:] == shape
        return built and unhooked(patches, prepared)

    def forward_head(self, tokens: Float[Tensor, "*m b n d"], *, pre_logits: bool = False) -> Float[Tensor, "*m b k"]:
        """Return the logits of pooled tokens, or with `pre_logits` the pooled features `(*m, b, num_features)`."""
        pool = POOLS[self.config.pool].function or self.pool
        assert pool is not None
        pooled = pool(tokens)
        return pooled if pre_logits else self.head(pooled)
