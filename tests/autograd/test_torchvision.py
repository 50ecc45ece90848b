"""torchvision's models, one or two of each family: forward and backward against torch, in double precision.

All of it is slow: some minutes on one core.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchopt_course import autograd

torchvision = pytest.importorskip("torchvision")

pytestmark = pytest.mark.slow

# By their smallest pictures, or clips.
CLASSIFICATION = {
    64: ["alexnet", "vgg11", "vgg11_bn", "squeezenet1_0", "squeezenet1_1", "googlenet"],
    32: [
        *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "mobilenet_v2"),
        *("mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "efficientnet_v2_s"),
        *("regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "swin_t", "swin_v2_t"),
    ],
    96: ["inception_v3"],
    224: ["vit_b_16", "maxvit_t"],
}
SEGMENTATION = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
DETECTION = [
    *("fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"),
    *("retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large"),
]
VIDEO = ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b"]


def total(output: Any) -> Any:
    """Everything that a model gives, as one number in which no two elements count alike."""
    if isinstance(output, Tensor):
        return (
            output * torch.linspace(1, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
        ).mean()
    return sum(total(each) for each in (output.values() if isinstance(output, dict) else output))


def agrees(model: nn.Module, *inputs: Any) -> None:
    """A step of both, from the same numbers: the losses and the gradients of all parameters."""
    model = model.double().train()
    found = []
    for ours in (False, True):
        each = copy.deepcopy(model)
        torch.manual_seed(1)
        if ours:
            with autograd.record(each):
                loss = total(each(*copy.deepcopy(inputs)))
        else:
            loss = total(each(*copy.deepcopy(inputs)))
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in each.named_parameters()}))
    (loss, gradients), (mine, other) = found
    assert math.isclose(loss, mine, rel_tol=1e-9)
    # Torch's hardsigmoid has its 1/6 in single precision, for doubles as well.
    atol = 1e-7 * max(float(g.abs().max()) for g in gradients.values() if g is not None)
    for name, g in gradients.items():
        assert (g is None) == (other[name] is None), name
        if g is not None:
            torch.testing.assert_close(other[name], g, rtol=1e-6, atol=atol, msg=name)


def made(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def numbers(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "size"), [(n, size) for size, names in CLASSIFICATION.items() for n in names]
)
def test_classification(name: str, size: int):
    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name == "inception_v3":
        options["aux_logits"] = False  # they need pictures of 299 pixels
    agrees(made(name, num_classes=3, **options), numbers(2, 3, size, size))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation(name: str):
    agrees(made(name, weights_backbone=None, num_classes=3), numbers(2, 3, 64, 64))


@pytest.mark.parametrize("name", DETECTION)
def test_detection(name: str):
    few = {"rpn_post_nms_top_n_train": 30, "box_batch_size_per_image": 16} if "rcnn" in name else {}
    model = made(name, weights_backbone=None, num_classes=3, **few)
    if hasattr(model, "transform"):
        model.transform.min_size, model.transform.max_size = (96,), 128
    box = torch.tensor([[8.0, 8.0, 60.0, 70.0], [30.0, 20.0, 90.0, 88.0]], dtype=torch.float64)
    target = {"boxes": box, "labels": torch.tensor([1, 2])}
    if name.startswith("mask"):
        target["masks"] = torch.ones(2, 96, 96, dtype=torch.uint8)
    if name.startswith("keypoint"):
        target["keypoints"] = (
            torch.cat([box[:, None, :2] + 5.0, torch.ones(2, 1, 1)], 2).expand(2, 17, 3).float()
        )
        target["labels"] = torch.ones(2, dtype=torch.long)
    agrees(model, [numbers(3, 96, 96), numbers(3, 96, 96).flip(1)], [target, copy.deepcopy(target)])


@pytest.mark.parametrize("name", VIDEO)
def test_video(name: str):
    frames, size = {"s3d": (14, 224), "mvit_v1_b": (16, 224)}.get(name, (4, 32))
    agrees(made(name, num_classes=3), numbers(1 if size > 100 else 2, 3, frames, size, size))


def test_what_does_not_train_says_so():
    """Its pooling gets a tensor whose channels lie last in memory."""
    model = made("swin3d_t", num_classes=3).double()
    with pytest.raises(NotImplementedError, match="adaptive_avg_pool3d"), autograd.record(model):
        model(numbers(1, 3, 4, 32, 32))
