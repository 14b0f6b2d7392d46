"""Maps by their definitions: finite differences, loops over patches, products of attention written out."""

import numpy as np
import pytest
import torch

from qvit.answers.maps import Maps, alike, maps_of, randomised
from qvit.models.networks import Network
from qvit.models.vit import ViT
from qvit.models.zoo import create_model

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 12, 12), dtype=np.uint8)


def made(name: str = "vit_4q2h", **options: object) -> ViT | Network:
    torch.manual_seed(0)
    return create_model(name, img_size=12, num_classes=3, **options).double().eval()


def scores(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixels)


def test_saliency_is_the_largest_slope_of_the_colours() -> None:
    model = made("vit_4q1h", patch_size=4)
    found = maps_of(model, IMAGE, "multi-class", 2).saliency
    assert found.shape == (12, 12)
    pixels = torch.from_numpy(IMAGE[None]).double() / 255
    step = 1e-5
    for y, x in ((0, 0), (5, 7), (11, 11)):
        slopes = []
        for colour in range(3):
            moved = pixels.repeat(2, 1, 1, 1)
            moved[0, colour, y, x] += step
            moved[1, colour, y, x] -= step
            up, down = scores(model, moved)[:, 2]
            slopes.append(abs(float(up - down)) / (2 * step))
        assert found[y, x] == pytest.approx(max(slopes), rel=1e-3)


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_occlusion_is_how_much_the_probability_falls(task: str) -> None:
    model = made("vit_4q1h", patch_size=4)
    model.preprocess.set_statistics(torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.3, 0.3, 0.3]))

    def probability(image: np.ndarray) -> float:
        logits = scores(model, torch.from_numpy(image[None]))[0].double()
        return float(logits.sigmoid()[1] if task == "multi-label" else logits.softmax(dim=0)[1])

    expected = np.zeros((3, 3))
    for y in range(3):
        for x in range(3):
            covered = IMAGE.copy()
            covered[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = np.array([51, 102, 153], np.uint8)[:, None, None]
            expected[y, x] = probability(IMAGE) - probability(covered)
    assert maps_of(model, IMAGE, task, 1).occlusion == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_attention_through_all_blocks(pool: str) -> None:
    model = made(patch_size=4, depth=2, pool=pool)
    assert isinstance(model, ViT)
    found = maps_of(model, IMAGE, "multi-class", 0)
    with torch.no_grad():
        tokens, each = model.embed(torch.from_numpy(IMAGE[None])), []
        for block in model.blocks:
            each.append(block.attention.weights(block.norm_attention(tokens))[0].numpy())  # type: ignore[union-attr]
            tokens = block(tokens)
    one, other = ((weights.mean(axis=0) + np.eye(len(weights[0]))) / 2 for weights in each)
    flow = other @ one
    pooled = flow[0, 1:] / flow[0, 1:].sum() if pool == "cls" else flow.mean(axis=0)
    assert found.rollout is not None
    assert found.rollout.reshape(-1) == pytest.approx(pooled)
    assert found.rollout.sum() == pytest.approx(1)
    assert found.heads is not None
    assert found.heads.shape == (2, 2, 3, 3)
    first = 1 if pool == "cls" else 0
    assert found.heads[1, 0].reshape(-1) == pytest.approx(each[1][0].mean(axis=0)[first:])


@pytest.mark.parametrize("kind", ["qvit", "no_entangler", "frozen"])
def test_wires_are_what_the_circuits_measure(kind: str) -> None:
    model = made(f"{kind}_4q2h", patch_size=4)
    assert isinstance(model, ViT)
    found = maps_of(model, IMAGE, "multi-class", 0).wires
    assert found is not None
    assert found.shape == (1, 3, 8, 3, 3)
    assert np.abs(found).max() <= 1
    block = model.blocks[0]
    with torch.no_grad():
        tokens = block.norm_attention(model.embed(torch.from_numpy(IMAGE[None])))  # type: ignore[operator]
        keys = block.attention.project(tokens)[1][0].numpy()  # type: ignore[union-attr]
    for head in range(2):
        for wire in range(4):
            assert found[0, 1, 4 * head + wire].reshape(-1) == pytest.approx(keys[head, :, wire])


def test_models_without_attention_or_circuits() -> None:
    found = maps_of(made(patch_size=4), IMAGE, "multi-class", 0)
    assert found.wires is None
    torch.manual_seed(0)
    network = create_model("resnet18", img_size=12, num_classes=3, width=0.125)
    other = maps_of(network, IMAGE, "multi-class", 0)
    assert (other.rollout, other.heads, other.wires) == (None, None, None)
    assert set(other.shown) == {"saliency", "occlusion"}
    assert other.occlusion.shape == (6, 6), "of two pixels, as a seventh of twelve is rounded up"
    assert network.training, "as it was"
    plain = maps_of(create_model("nearest", img_size=12, num_classes=3), IMAGE, "multi-class", 0)
    assert set(plain.shown) == {"occlusion"}, "it has no gradients"


def test_a_model_with_random_weights_keeps_its_preprocessing() -> None:
    model = made(patch_size=4)
    model.preprocess.set_statistics(torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.3, 0.3, 0.3]))
    fresh = randomised(model)
    assert torch.allclose(fresh.preprocess.mean.double(), model.preprocess.mean.double())
    assert not torch.equal(fresh.head.weight.double(), model.head.weight)  # type: ignore[arg-type]
    again = randomised(model)
    assert torch.equal(fresh.head.weight, again.head.weight)  # type: ignore[arg-type]


def test_how_alike_maps_are() -> None:
    def of(saliency: list[float], occlusion: list[float]) -> Maps:
        return Maps(np.array([saliency]).reshape(2, 2), np.array([occlusion]).reshape(2, 2), None, None, None)

    rising, falling, flat = [1.0, 2.0, 3.0, 40.0], [4.0, 3.0, 2.0, 1.0], [1.0] * 4
    found = alike([of(rising, rising), of(rising, flat)], [of(falling, rising), of(rising, rising)])
    assert found == {"saliency": pytest.approx(1), "occlusion": pytest.approx(0.5)}, "in whichever direction"
