"""The transformer: images in, logits out, gradients everywhere, and it learns."""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qvit.errors import ModelError
from qvit.models import ViT, ViTConfig, create_model, zoo
from qvit.models.controls import Linear
from qvit.models.preprocess import Preprocess
from qvit.models.vit import default_patch_size

Images = Callable[..., Tensor]

KINDS = list(zoo.KINDS)  # one for every projection
TWO = ["qvit", "vit"]  # where it is the rest of the model that counts


# --- images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TWO)
def test_bytes_and_floats_are_the_same_image(kind: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h")
    pixels = images(model.config)
    expected = model(pixels)
    torch.testing.assert_close(model(pixels.float() / 255), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(pixels.double() / 255), expected, atol=1e-5, rtol=0)
    assert expected.dtype == torch.float32


def test_default_statistics_map_to_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert Preprocess(1)(pixels).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-6)


def test_statistics_normalise_each_channel(images: Images) -> None:
    preprocess = Preprocess(3)
    pixels = (images(ViTConfig(), 11).float() / 255) * torch.tensor([1.0, 0.5, 0.1])[:, None, None]
    preprocess.set_statistics(pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)))
    normal = preprocess(pixels)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_a_channel_without_contrast_stays_finite(images: Images) -> None:
    preprocess = Preprocess(3)
    preprocess.set_statistics(torch.full((3,), 0.5), torch.zeros(3))
    assert preprocess(images(ViTConfig())).isfinite().all()


def test_statistics_are_saved_with_the_weights_and_not_trained(images: Images) -> None:
    model, other = (create_model("qvit_4q2h") for _ in range(2))
    pixels = images(model.config)
    before = model(pixels)
    model.preprocess.set_statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    assert (model(pixels) - before).abs().max() > 1e-3
    assert {"preprocess.mean", "preprocess.std"} <= set(model.state_dict())
    assert not any("preprocess" in name for name, _ in model.named_parameters())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(pixels), model(pixels))


@pytest.mark.parametrize(("size", "patch"), [(28, 4), (32, 4), (56, 4), (64, 8), (128, 16), (224, 16), (8, 4)])
def test_sizes(size: int, patch: int, images: Images) -> None:
    assert default_patch_size(size) == patch
    model = create_model("qvit_4q2h", img_size=size)
    assert model.config.patch == patch
    pixels = images(model.config, 2)
    assert model(pixels).shape == (2, 2)
    assert model.forward_features(pixels).shape == (2, (size // patch) ** 2, 8)


def test_default_patch_size_is_the_smallest_that_fits() -> None:
    for size in range(1, 300):
        fits = [p for p in range(4, size) if size % p == 0 and 2 <= size // p <= 14]
        if fits:
            assert default_patch_size(size) == min(fits)
        else:
            with pytest.raises(ModelError, match=rf"No patch size suits images of {size} pixels"):
                default_patch_size(size)


def test_patches_are_cut_row_by_row() -> None:
    """Token (y, x) is the embedding of the pixels at that place, all channels of it."""
    model = create_model("identity_4q2h", img_size=12, patch_size=3)
    pixels = torch.rand(2, 3, 12, 12)
    seen: list[Tensor] = []
    model.blocks.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model(pixels)
    weight = model.patch_embed.weight.flatten(1)
    for y in range(4):
        for x in range(4):
            patch = pixels[:, :, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].flatten(1)
            expected = (patch - 0.5) / 0.5 @ weight.T + model.patch_embed.bias + model.pos_embed[0, 4 * y + x]
            torch.testing.assert_close(seen[0][:, 4 * y + x], expected, atol=1e-5, rtol=0)


# --- timm's interface --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "tokens"), [("mean", 49), ("cls", 50)])
def test_features_and_head(pool: str, tokens: int, images: Images) -> None:
    model = create_model("qvit_4q2h", num_classes=5, pool=pool)
    pixels = images(model.config, 3)
    features = model.forward_features(pixels)
    assert features.shape == (3, tokens, 8)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features[:, 0] if pool == "cls" else features.mean(1))
    torch.testing.assert_close(model.forward_head(features), pooled @ model.head.weight.T + model.head.bias)
    torch.testing.assert_close(model.forward_head(features), model(pixels))


def test_features_are_normalised(images: Images) -> None:
    features = create_model("qvit_4q2h").forward_features(images(ViTConfig()))
    torch.testing.assert_close(features.mean(-1), torch.zeros(5, 49), atol=1e-5, rtol=0)


def test_the_class_token_comes_first_and_is_used(images: Images) -> None:
    model = create_model("identity_4q2h", pool="cls")
    before = model(images(model.config))
    assert model.cls_token is not None
    nn.init.normal_(model.cls_token)
    seen: list[Tensor] = []
    model.blocks.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    after = model(images(model.config))
    torch.testing.assert_close(seen[0][:, 0], (model.cls_token + model.pos_embed[:, :1])[0].expand(5, 8))
    assert (after - before).abs().max() > 1e-3
    assert create_model("identity_4q2h").cls_token is None


def test_classifier_can_be_read_replaced_and_removed(images: Images) -> None:
    model = create_model("qvit_4q2h", num_classes=5).double()
    pixels = images(model.config)
    head = model.get_classifier()
    assert (model.num_classes, model.num_features) == (5, 8)
    assert isinstance(head, nn.Linear)
    assert head.out_features == 5
    model.reset_classifier(3)
    assert model.num_classes == 3
    assert model.get_classifier() is not head
    assert model(pixels).shape == (5, 3)
    assert model(pixels).dtype == torch.float64  # the fresh head has the dtype of the rest
    model.reset_classifier(0)
    assert model.num_classes == 0
    features = model.forward_head(model.forward_features(pixels), pre_logits=True)
    assert torch.equal(model(pixels), features)


def test_a_new_classifier_is_part_of_the_configuration(images: Images) -> None:
    model = create_model("qvit_4q2h", num_classes=5, pool="cls")
    before = model.config
    for count in (3, 1, 9):
        model.reset_classifier(count)
        assert model.config == replace(before, num_classes=count)
        twin = ViT(model.config)
        twin.load_state_dict(model.state_dict())  # so what was saved can be loaded again
        pixels = images(model.config)
        assert torch.equal(twin(pixels), model(pixels))
    assert before.num_classes == 5
    model.reset_classifier(0)
    assert (model.num_classes, model.config.num_classes) == (0, 9)  # no configuration is without classes


# --- blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TWO)
def test_a_block_adds_attention_and_mlp_to_what_came_in(kind: str) -> None:
    block = create_model(f"{kind}_4q2h", mlp_dim=11).blocks[0]
    for norm in (block.norm_attention, block.norm_mlp):
        nn.init.normal_(norm.weight)  # so that neither norm stands in for the other
    tokens = torch.randn(2, 7, 8)
    middle = tokens + block.attention(block.norm_attention(tokens))
    torch.testing.assert_close(block(tokens), middle + block.mlp(block.norm_mlp(middle)))


def test_dropout_acts_on_attention_and_on_the_mlp() -> None:
    """A rate of nearly one leaves only the residual stream."""
    block = create_model("qvit_4q2h", dropout=1 - 1e-9).blocks[0]
    tokens = torch.randn(2, 7, 8)
    assert torch.equal(block(tokens), tokens)
    assert not torch.equal(block.eval()(tokens), tokens)


# --- initialisation and gradients --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "identity"])
def test_blocks_differ_at_initialisation(kind: str) -> None:
    model = create_model(f"{kind}_4q2h", depth=3)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        pairs = zip(model.blocks[first].named_parameters(), model.blocks[second].parameters(), strict=True)
        equal = {name for (name, a), b in pairs if torch.equal(a, b)}
        assert equal == {f"{norm}.{kind}" for norm in ("norm_attention", "norm_mlp") for kind in ("weight", "bias")}


@pytest.mark.parametrize(("kind", "pool"), [*((kind, "mean") for kind in KINDS), ("qvit", "cls")])
def test_every_number_gets_a_gradient(kind: str, pool: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h", num_classes=3, depth=2, pool=pool, img_size=12).double()
    loss = nn.functional.cross_entropy(model(images(model.config, 6)), torch.arange(6) % 3)
    loss.backward()
    for name, parameter in model.named_parameters():
        if kind == "frozen" and "project" in name:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        alive = parameter.grad.abs() > 1e-10
        if name.endswith("project.dense.bias"):
            # A bias of the keys adds one number to all scores of a query; softmax does not see it.
            assert not alive[8:16].any()
            alive[8:16] = True
        assert alive.all(), (name, parameter.grad)


@pytest.mark.parametrize("kind", TWO)
def test_different_images_have_different_logits(kind: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h", num_classes=3)
    logits = model(images(model.config, 7))
    assert torch.pdist(logits).min() > 1e-4


@pytest.mark.parametrize("kind", TWO)
def test_the_loss_starts_near_that_of_guessing(kind: str, images: Images) -> None:
    for classes in (2, 5, 11):
        model = create_model(f"{kind}_4q2h", num_classes=classes)
        labels = torch.arange(55) % classes
        loss = nn.functional.cross_entropy(model(images(model.config, 55)), labels).item()
        assert loss == pytest.approx(math.log(classes), abs=0.3)


# --- learning ----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("kind", TWO)
def test_one_batch_can_be_learnt_by_heart(kind: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h", num_classes=3, in_chans=1, img_size=8)
    pixels, labels = images(model.config, 9), torch.arange(9) % 3
    assert (model(pixels).argmax(1) == labels).float().mean() < 0.7
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
    assert torch.equal(model(pixels).argmax(1), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_model(kind: str) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return create_model(f"{kind}_4q2h", depth=2).state_dict()

    first, again, other = build(5), build(5), build(6)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


# --- like any other module ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("kind", TWO)
def test_a_batch_is_its_singles(kind: str, pool: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h", depth=2, pool=pool, dropout=0.5).eval()
    pixels = images(model.config, 7)
    singles = torch.cat([model(image[None]) for image in pixels])
    torch.testing.assert_close(model(pixels), singles, atol=1e-5, rtol=0)
    assert model(pixels[:0]).shape == (0, 2)


def test_dropout_acts_in_training_only(images: Images) -> None:
    model = create_model("qvit_4q2h", dropout=0.5)
    pixels = images(model.config)
    assert not torch.equal(model(pixels), model(pixels))
    model.eval()
    assert torch.equal(model(pixels), model(pixels))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_the_same_model(kind: str, images: Images, tmp_path: Path) -> None:
    model = create_model(f"{kind}_4q2h", depth=2, img_size=8)
    pixels = images(model.config)
    expected = model(pixels)
    torch.save(model, tmp_path / "model.pt")
    fresh = ViT(model.config)
    assert not torch.equal(fresh(pixels), expected)
    fresh.load_state_dict(model.state_dict())
    copies = [
        fresh,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ]
    nn.init.zeros_(model.head.weight)
    for twin in copies:
        assert twin.config == model.config
        assert torch.equal(twin(pixels), expected)


@pytest.mark.parametrize("kind", TWO)
def test_autocast(kind: str, images: Images) -> None:
    model = create_model(f"{kind}_4q2h")
    pixels = images(model.config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(pixels)
    torch.testing.assert_close(cast.float(), model(pixels), atol=0.05, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_whoever_watches_a_layer_sees_it_and_nothing_else_changes(training: bool, images: Images) -> None:
    """Though layers are passed over by operations that do several at once."""
    model = ViT(ViTConfig(projection=Linear())).train(training)
    pixels, names = images(model.config, 5), [name for name, _ in model.named_modules() if name]
    plain = model(pixels)
    for watched in names:
        seen: list[str] = []
        module = model.get_submodule(watched)
        hook = module.register_forward_hook(lambda *_, name=watched, seen=seen: seen.append(name))
        found = model(pixels)
        hook.remove()
        assert set(seen) == {watched}
        torch.testing.assert_close(found, plain)
    assert torch.equal(model(pixels), plain)


def test_layers_that_were_replaced_are_used(images: Images) -> None:
    model = ViT(ViTConfig(projection=Linear()))
    pixels = images(model.config, 5)
    model.patch_embed = nn.Conv2d(3, 8, 6, stride=4, padding=1)
    expected = model.pos_embed + model.patch_embed(model.preprocess(pixels)).flatten(2).mT
    torch.testing.assert_close(model.embed(pixels), expected)
    block = model.blocks[0]
    tokens = torch.randn(5, 49, 8)

    def layer_by_layer() -> Tensor:
        after = tokens + block.attention(block.norm_attention(tokens))  # type: ignore[operator]
        return after + block.mlp(block.norm_mlp(after))  # type: ignore[operator, no-any-return]

    torch.testing.assert_close(block(tokens), layer_by_layer())
    block.mlp[0] = nn.Linear(8, 5, bias=False)  # type: ignore[operator, index]
    block.mlp[2] = nn.Linear(5, 8)  # type: ignore[operator, index]
    torch.testing.assert_close(block(tokens), layer_by_layer())
    block.mlp[2] = nn.Linear(6, 8)  # type: ignore[operator, index]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        block(tokens)
    block.mlp = nn.Identity()
    torch.testing.assert_close(block(tokens), layer_by_layer())
