"""Tensors that are neither plain nor sparse: lazy conjugates, other layouts, gradients with parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.testing._internal.two_tensor import TwoTensor

import torchopt_course as oc

from ..helpers import ENGINES, NAMES, ours, theirs

# With `fused=True` the fused engine would refuse them.
WAYS: list[dict[str, bool]] = [{}, ENGINES["foreach"], ENGINES["eager"]]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@every_way
@pytest.mark.parametrize("name", NAMES)
def test_lazily_conjugated_parameter_is_stepped_as_its_copy(name: str, way: dict[str, bool]) -> None:
    """torch's SGD can do that; its others refuse. The truth: the same numbers without the lazy bit."""
    numbers = torch.tensor([1 + 2j, -3j, 0.5], dtype=torch.complex128)
    lazy, plain = numbers.conj(), numbers.conj().resolve_conj().clone()
    assert lazy.is_conj()
    for param in (lazy, plain):
        optimizer = ours(name)([param], lr=0.1, **way)
        for step in range(3):
            param.grad = torch.tensor([1j, 1 - 1j, 2], dtype=torch.complex128) * (step + 1)
            optimizer.step()
    torch.testing.assert_close(lazy, plain)


@every_way
@pytest.mark.parametrize("name", NAMES)
def test_lazily_negated_parameter_is_stepped_as_its_copy(name: str, way: dict[str, bool]) -> None:
    lazy = torch.tensor([1 + 2j, -3j, 0.5]).conj().imag
    plain = lazy.resolve_neg().clone()
    assert lazy.is_neg()
    for param in (lazy, plain):
        optimizer = ours(name)([param], lr=0.1, **way)
        for step in range(3):
            param.grad = torch.tensor([1.0, -1.0, 2.0]) * (step + 1)
            optimizer.step()
    torch.testing.assert_close(lazy.resolve_neg(), plain)


@every_way
@pytest.mark.parametrize("name", NAMES)
def test_meta_parameters_are_stepped_beside_real_ones(name: str, way: dict[str, bool]) -> None:
    """A dry run: states are made and counted, nothing is computed. DLPack knows no such device."""
    seen = []
    for make in (ours(name), theirs(name)):
        dry, real = (Parameter(torch.ones(3, device=device)) for device in ("meta", "cpu"))
        optimizer = make([dry, real], lr=0.1, foreach=way.get("foreach"))
        optimizer.param_groups[0].update(way)
        for step in range(3):
            dry.grad, real.grad = torch.ones(3, device="meta"), torch.ones(3) * (step - 1.5)
            optimizer.step()
        state = optimizer.state[dry]
        seen.append({key: (value.device.type, value.dtype, value.shape) for key, value in state.items()})
        seen.append(real.detach())
        if "step" in state:
            assert state["step"] == 3
    assert seen[0] == seen[2]
    torch.testing.assert_close(seen[1], seen[3])


def jagged() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.parametrize("name", NAMES)
def test_jagged_parameter_is_not_a_sparse_one(name: str) -> None:
    nested, plain = Parameter(jagged()), Parameter(torch.ones(5))
    for param in (nested, plain):
        optimizer = ours(name)([param], lr=0.1)
        for _ in range(3):
            param.grad = torch.ones_like(param)
            optimizer.step()
    torch.testing.assert_close(nested.values(), plain)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without MKL-DNN")
@pytest.mark.parametrize("name", ["SGD", "Momentum", "RMSprop", "Adam", "AdamW"])
def test_mkldnn_parameter_is_refused(name: str) -> None:
    """torch's SGD can step it, one by one; torch cannot subtract two of them."""
    param = torch.ones(3).to_mkldnn()
    param.grad = torch.ones(3).to_mkldnn()
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0 has the layout torch._mkldnn"):
        ours(name)([param]).step()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_parameter_is_refused() -> None:
    param = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    param.grad = param.clone()
    with pytest.raises(RuntimeError, match=r"dtype torch.qint8, which torch does not calculate with"):
        oc.Adam([param]).step()


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
@every_way
@pytest.mark.parametrize("kind", ["mask", "two"])
def test_plain_parameter_cannot_hold_what_its_gradient_has_besides(kind: str, way: dict[str, bool]) -> None:
    """torch raises for a mask; the numbers under it are none."""
    param = Parameter(torch.ones(2))
    mask = torch.tensor([True, False])
    param.grad = (
        torch.masked.masked_tensor(torch.ones(2), mask)
        if kind == "mask"
        else TwoTensor(torch.ones(2), torch.zeros(2))
    )
    with pytest.raises(RuntimeError, match=r"its gradient a (MaskedTensor|TwoTensor)"):
        oc.SGD([param], lr=0.1, **way).step()
    assert torch.equal(param, torch.ones(2))


@every_way
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_another_kind_of_number(name: str, way: dict[str, bool]) -> None:
    """Real ones of complex parameters are complex ones; complex ones of real parameters have no room."""
    ends = []
    for dtype in (torch.float64, torch.complex128):
        param = Parameter(torch.tensor([1 + 2j, -3j], dtype=torch.complex128))
        param.grad_dtype = None
        optimizer = ours(name)([param], lr=0.1, **way)
        for step in range(3):
            param.grad = torch.tensor([1.0, -2.0 + step]).to(dtype)
            optimizer.step()
        ends.append(param.detach())
    torch.testing.assert_close(*ends)
    first, last = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    last.grad_dtype = None
    first.grad, last.grad = torch.ones(2), torch.ones(2, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match=r"gradient of parameter 1 of group 0 has dtype torch\.complex64"):
        ours(name)([first, last], **way).step()
    assert torch.equal(first, torch.ones(2))
