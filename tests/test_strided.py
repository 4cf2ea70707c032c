"""Strided views: what they show, their gradients, and writes through them."""

import numpy as np
import pytest

import cuframe as cf


def test_memory_is_shown_and_shared():
    x = cf.tensor(np.arange(9.0).reshape(3, 3))
    v = cf.as_strided(x, (2, 2), (1, 2), 1)
    assert v.tolist() == [[1, 3], [2, 4]] and np.shares_memory(v.array, x.array)
    assert x.as_strided((3,), (4,)).tolist() == [0, 4, 8]
    v[0, 0] = 9
    assert x.tolist()[0] == [0, 9, 2]
    # A transposed tensor's memory is still that of the rows.
    assert x.t().as_strided((3,), (1,)).tolist() == [0, 9, 2]
    assert x[1:].as_strided((2,), (1,)).tolist() == [3, 4]  # begins where the view does
    assert x[1:].as_strided((2,), (1,), 0).tolist() == [0, 9]  # unless told otherwise
    f = cf.Tensor(np.asfortranarray(np.arange(4.0).reshape(2, 2)))
    assert f.as_strided((4,), (1,)).tolist() == [0, 2, 1, 3]
    halves = cf.Tensor(np.arange(2, dtype=np.float64).view(np.int32))
    assert halves.as_strided((2,), (2,), 1).tolist() == [0, 1072693248]
    # A result in the order of its permuted input.
    p = cf.tensor(np.arange(8.0).reshape(2, 2, 2)).permute(1, 2, 0) + 1
    assert p.array.base is None and not p.is_contiguous() and p.as_strided((8,), (1,)).tolist() == list(range(1, 9))


class Foreign:
    """Memory with gaps that NumPy does not know as an array."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def test_memory_with_gaps_is_refused():
    x = cf.Tensor(np.asarray(Foreign(np.arange(6.0)[::2])))
    with pytest.raises(RuntimeError, match="as_strided: the tensor's memory is another library's and has gaps"):
        x.as_strided((2,), (1,))


def test_gradient_adds_up_what_is_shown_several_times():
    x = cf.tensor(np.arange(4.0), requires_grad=True)
    windows = x.as_strided((3, 2), (1, 1))
    windows.backward(cf.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]], dtype="float64"))
    assert x.grad.tolist() == [1, 2 + 4, 8 + 16, 32]


def test_memory_outside_of_the_input_takes_no_gradient():
    x = cf.Tensor(np.arange(6.0)[2:4]).requires_grad_()
    x.as_strided((2, 2), (1, 2), 1).sum().backward()  # places 1, 3, 2, 4; the input has 2 and 3
    assert x.grad.tolist() == [1, 1]


def test_an_expanded_input_shares_its_gradient():
    # As PyTorch: each of the three places of the input that show one element takes a third.
    x = cf.tensor([2.0], requires_grad=True)
    y = x.expand(3)
    g = cf.autograd.grad(y.as_strided((1,), (1,)).sum(), y)[0]
    np.testing.assert_allclose(g.array, [1 / 3] * 3)


def test_second_derivatives_and_other_layouts():
    x = cf.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)

    def f(x):
        y = (x * x).t()
        return y.as_strided((2, 2), (2, 1), 1) ** 2

    assert cf.autograd.gradcheck(f, (x,)) and cf.autograd.gradgradcheck(f, (x,))


def test_recorded_writes_are_followed():
    x = cf.tensor(np.arange(4.0), requires_grad=True)
    y = x * 1
    y.as_strided((2,), (3,)).mul_(10)
    assert y.tolist() == [0, 1, 2, 30]
    y.sum().backward()
    assert x.grad.tolist() == [10, 1, 1, 10]


@pytest.mark.parametrize(
    "array", [np.asfortranarray(np.ones((2, 2))), np.ones(6)[1:]], ids=["columns first", "beyond its base"]
)
def test_writes_that_cannot_be_followed_are_refused(array):
    x = cf.tensor(1.0, dtype="float64", requires_grad=True)
    base = cf.Tensor(array)
    base.mul_(x)
    with pytest.raises(RuntimeError, match="mul_: .* cannot be changed in place where operations are recorded"):
        base.as_strided((2,), (1,), 0).mul_(2)
