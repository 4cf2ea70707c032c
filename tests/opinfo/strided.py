"""Views with strides of one's own. What they show depends on the memory, so tests/test_strided.py has the values."""

from .core import FLOATS, ErrorInput, OpInfo, Sample


def samples(make):
    yield Sample((make(3, 3), (2, 2), (1, 2), 1))
    yield Sample((make(7), (2, 3), (1, 2), 0))
    yield Sample((make(4), (3, 2, 2), (0, 1, 1), 1))
    yield Sample((make(2), (), (), 1))
    yield Sample((make(2), (0, 3), (5, 5), 0))


def errors(make):
    x = make(2, 3)
    for args, text in (
        (((2, 2), (1,)), r"as_strided: size and stride must be of one length, got \(2, 2\) and \(1,\)"),
        (((2, -2), (1, 1)), r"as_strided: size must not be negative, got \(2, -2\)"),
        (((2,), (-1,)), r"as_strided: stride must not be negative, got \(-1,\)"),
        (((2,), (1,), -1), "as_strided: storage_offset must not be negative, got -1"),
        (((3,), (3,)), r"size \(3,\) and stride \(3,\) from place 0 on need 7 elements of memory, the tensor has 6"),
        (((1,), (1,), 6), "from place 6 on need 7 elements of memory, the tensor has 6"),
    ):
        yield ErrorInput((x, *args), {}, RuntimeError, text)
    yield ErrorInput((x, (1.5,), (1,)), {}, TypeError, "as_strided: sizes must be ints")
    yield ErrorInput(([1], (1,), (1,)), {}, TypeError, "as_strided: input must be a Tensor, got list")


OPS = [OpInfo("as_strided", samples=samples, dtypes=(*FLOATS, "int64", "bool"), errors=errors)]
