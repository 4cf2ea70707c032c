"""Matrix products."""

import numpy as np

import cuframe as cf

from .core import FLOATS, HALVES, ErrorInput, OpInfo, Sample

SOME_INTS = ("int32", "int64", "uint8")


def pairs(*shapes):
    def samples(make):
        for groups in shapes:
            yield Sample(tuple(make(*shape) for shape in groups))

    return samples


MATMUL_SHAPES = (
    ((3,), (3,)), ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (5, 3, 4)), ((5, 2, 3), (3,)),
    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((2, 1, 2, 3), (3, 3, 4)), ((1, 2, 3), (5, 3, 2)),
    ((2, 5, 1, 3), (2, 1, 3, 2)), ((3,), (2, 2, 3, 2)), ((2, 0, 3), (3, 2)), ((0, 2, 3), (0, 3, 2)), ((2, 0), (0, 3)),
    ((1, 1), (1, 1)),
)  # fmt: skip


def reference_matmul(x, y):
    return np.matmul(x, y, dtype=x.dtype)


def errors_matmul(make):
    a = make(2, 3)
    message = (
        r"matmul: shapes \(2, 3\) and \(4, 5\): the last dimension of the first, 3, must equal dimension -2 of the "
        r"second, 4"
    )
    yield ErrorInput((a, make(4, 5)), {}, RuntimeError, message)
    yield ErrorInput((a, make(2)), {}, RuntimeError, r"dimension -1 of the second, 2")
    yield ErrorInput((a, make()), {}, RuntimeError, r"matmul: both must have at least 1 dimension")
    yield ErrorInput((make(2, 2, 3), make(3, 3, 2)), {}, RuntimeError, r"matmul: .* batch dimensions \(2,\) and \(3,\)")
    yield ErrorInput((a, 3.0), {}, TypeError, r"matmul: other must be a Tensor, got float")
    yield ErrorInput((a, make(3, dtype="int64")), {}, RuntimeError, r"one dtype, got float32 and int64")


def wrong_dims(name, good, bad, argument, want):
    def errors(make):
        args = tuple(make(*s) for s in good[:-1]) + (make(*bad),)
        yield ErrorInput(args, {}, RuntimeError, rf"{name}: {argument} must have {want} dimension\(s\)")

    return errors


def dot_errors(make):
    yield from wrong_dims("dot", ((3,), ()), (3, 2), "tensor", 1)(make)
    yield ErrorInput((make(3), make(2)), {}, RuntimeError, "dot: input and tensor must be of one length, got 3 and 2")


def errors_bmm(make):
    yield ErrorInput((make(2, 3), make(2, 3, 4)), {}, RuntimeError, r"bmm: input must have 3 dimension\(s\)")
    yield ErrorInput(
        (make(2, 3, 4), make(3, 4, 2)), {}, RuntimeError, r"bmm: mat2 must have the batch size of input, 2, got 3"
    )


def affine(shapes, *, out):
    def samples(make):
        yield Sample(tuple(make(*s) for s in shapes))
        yield Sample(tuple(make(*s) for s in (out, *shapes[1:])), {"beta": 2, "alpha": 3})
        yield Sample(tuple(make(*s) for s in ((), *shapes[1:])), {"beta": 0})

    return samples


def affine_reference(product):
    def reference(c, a, b, beta=1, alpha=1):
        p = product(a, b) * a.dtype.type(alpha)
        return p if beta == 0 else p + c * c.dtype.type(beta)

    return reference


def errors_addmm(make):
    a, b = make(2, 3), make(3, 4)
    yield ErrorInput((make(3), a, b), {}, RuntimeError, r"addmm: input must broadcast to \(2, 4\), got \(3,\)")
    yield ErrorInput((make(4), a, a), {}, RuntimeError, r"addmm: mat1 of shape \(2, 3\) cannot be multiplied")
    ints = tuple(make(*s, dtype="int64") for s in ((4,), (2, 3), (3, 4)))
    yield ErrorInput(ints, {"alpha": 0.5}, RuntimeError, r"addmm: for integer tensors beta and alpha must be integers")


def errors_addbmm(make):
    yield ErrorInput(
        (make(1), make(2, 3, 4), make(2, 3, 4)), {}, RuntimeError, r"addbmm: batch1 of shape .* cannot be multiplied"
    )


EINSUM = (
    ("ij->ji", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("ij->", (2, 3)), ("ij->i", (2, 3)), ("iji->j", (2, 3, 2)),
    ("ijij->ij", (2, 3, 2, 3)), ("iii->i", (2, 2, 2)), ("i...->...", (2, 3, 2)), ("...", (2, 3)),
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("Ba,aC", (2, 3), (3, 2)),
    ("bij,bjk->bik", (2, 3, 2), (2, 2, 2)), ("...ij,...jk->...ik", (3, 1, 2, 2), (2, 2, 3)),
    ("b...i,ij->b...j", (2, 3, 2), (2, 2)), ("i,j->ij", (2,), (3,)), ("ij,ij->", (2, 3), (2, 3)),
    ("ij,kj->", (2, 3), (4, 3)), ("iij,j->i", (3, 3, 2), (2,)), ("ii,ij->j", (3, 3), (3, 2)), (",ij->ij", (), (2, 3)),
    ("ij,ij->ij", (2, 1), (2, 3)), ("ab,ca->cb", (1, 3), (2, 4)), ("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
    ("bi,oij,bj->bo", (2, 3), (2, 3, 2), (2, 2)), ("a,b,c,d->dbac", (2,), (2,), (2,), (2,)),
    ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 2)),
)  # fmt: skip


def samples_einsum(make):
    for subscripts, *shapes in EINSUM:
        yield Sample((subscripts, *(make(*s) for s in shapes)))
    yield Sample((make(2, 3), [0, 1], make(3, 2), [1, 2], [2, 0]))
    yield Sample((make(2, 3), [Ellipsis, 0], make(3, 4), [0, 1]))
    yield Sample(("ij,jk->ik", [make(2, 3), make(3, 2)]))


def reference_einsum(*args):
    if isinstance(args[0], str) and isinstance(args[1], list):
        args = (args[0], *args[1])
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    return np.einsum(*args).astype(arrays[0].dtype)


def errors_einsum(make):
    a = make(2, 3)
    yield ErrorInput(("ij,jk", a, a), {}, RuntimeError, r"einsum: label 'j' has size 3 in operand 0 and 2 in operand 1")
    yield ErrorInput(("ij", a, a), {}, ValueError, r"einsum: 'ij' names 1 operand\(s\), got 2")
    yield ErrorInput(("i.j", a), {}, ValueError, r"einsum: subscripts must be letters")
    yield ErrorInput(("...i...", a), {}, ValueError, r"einsum: '...' may occur once")
    yield ErrorInput(("ij->ijj", a), {}, RuntimeError, r"einsum: the result names label 'j' more than once")
    yield ErrorInput(("ij->k", a), {}, RuntimeError, r"einsum: the result's label 'k' occurs in no operand")
    yield ErrorInput(("ijk", a), {}, RuntimeError, r"einsum: operand 0 has shape \(2, 3\), but its subscripts name 3")
    yield ErrorInput((a, [0, 99]), {}, ValueError, r"einsum: labels must be integers from 0 to 51")
    yield ErrorInput(("ij",), {}, ValueError, r"einsum: needs at least one operand")


def samples_tensordot(make):
    yield Sample((make(2, 3, 4), make(3, 4, 2)))
    yield Sample((make(2, 3), make(3, 2)), {"dims": 1})
    yield Sample((make(2, 3), make(2)), {"dims": 0})
    yield Sample((make(2, 3, 4), make(4, 2, 3)), {"dims": ([0, -1], [1, 0])})


def errors_tensordot(make):
    a, b = make(2, 3), make(4, 5)
    yield ErrorInput((a, b, 1), {}, RuntimeError, r"tensordot: dimension 1 of a has size 3, dimension 0 of b 4")
    yield ErrorInput((a, b, 3), {}, RuntimeError, r"tensordot: dims must be from 0 to 2")
    yield ErrorInput((a, b, ([5], [0])), {}, IndexError, r"tensordot: a has 2 dimension\(s\), got dimension 5")
    yield ErrorInput((a, b, ([0, 0], [0, 1])), {}, RuntimeError, r"tensordot: dims must pair different dimensions")


def errors_inner(make):
    yield ErrorInput((make(2, 3), make(2)), {}, RuntimeError, r"inner: the last dimensions must agree")


def square(make, *shape):
    """Well away from singular."""
    n = shape[-1]
    t = make(*shape, low=-0.5, high=0.5)
    t.array += (2 * np.eye(n)).astype(t.dtype)
    return t


def samples_power(make):
    for n in (0, 1, 2, 5):
        yield Sample((square(make, 3, 3), n))
    yield Sample((square(make, 2, 2, 2), 3))
    if make.dtype.kind == "f":
        yield Sample((square(make, 2, 2, 2), -2))


def errors_power(make):
    yield ErrorInput((make(2, 3), 2), {}, RuntimeError, r"matrix_power: input must be square")
    yield ErrorInput((make(2, 2), 2.0), {}, TypeError, r"matrix_power: n must be an int, got float")


def samples_inverse(make):
    yield Sample((square(make, 3, 3),))
    yield Sample((square(make, 2, 1, 2, 2),))


def errors_inverse(make):
    yield ErrorInput((make(2, 3),), {}, RuntimeError, r"inverse: input must be square")
    yield ErrorInput((cf.zeros(2, 2),), {}, RuntimeError, r"inverse: input of shape \(2, 2\) holds a singular matrix")
    yield ErrorInput((make(2, 2, dtype="int64"),), {}, TypeError, r"inverse: input must be floating point, got int64")


def samples_linear(make):
    yield Sample((make(2, 3), make(4, 3), make(4)))
    yield Sample((make(2, 3), make(4, 3)))
    yield Sample((make(2, 2, 3), make(4, 3), make(4)))
    yield Sample((make(3), make(4, 3), make(4)))
    yield Sample((make(2, 3), make(3), make()))
    yield Sample((make(0, 3), make(4, 3), make(4)))
    yield Sample((make(2, 3, requires_grad=False), make(4, 3), make(4)))
    yield Sample((make(2, 3), make(4, 3, requires_grad=False)))


def errors_linear(make):
    x = make(2, 128)
    yield ErrorInput(
        (x, make(64, 256)), {}, RuntimeError, r"linear: weight must be \(out_features, 128\), got \(64, 256\)"
    )
    yield ErrorInput((make(), make(3, 2)), {}, RuntimeError, r"linear: input must have at least 1 dimension")
    yield ErrorInput((x, make(4, 128), make(3)), {}, RuntimeError, r"linear: bias must be \(4,\), got \(3,\)")
    yield ErrorInput(
        (x, make(4, 128, dtype="float64")), {}, RuntimeError, r"linear: input and weight must have one dtype"
    )


def samples_bilinear(make):
    yield Sample((make(2, 2), make(2, 3), make(2, 2, 3), make(2)))
    yield Sample((make(2), make(3), make(1, 2, 3)))
    yield Sample((make(2, 1, 2), make(2, 1, 3), make(2, 2, 3)))


def errors_bilinear(make):
    w = make(4, 2, 3)
    yield ErrorInput((make(2, 2), make(3, 3), w), {}, RuntimeError, r"bilinear: input1 and input2 must agree")
    yield ErrorInput((make(2, 3), make(2, 3), w), {}, RuntimeError, r"bilinear: weight must be \(out_features, 3, 3\)")
    yield ErrorInput((make(2), make(3), w, make(2)), {}, RuntimeError, r"bilinear: bias must be \(4,\), got \(2,\)")


def reference_linear(x, w, b=None):
    y = np.matmul(x, w.T)
    return y if b is None else y + b


def reference_bilinear(a, b, w, bias=None):
    y = np.einsum("...i,oij,...j->...o", a, w, b)
    return y if bias is None else y + bias


VECTORS = pairs(((3,), (3,)), ((0,), (0,)))
PRODUCT_TYPES = (*FLOATS, *HALVES, *SOME_INTS)

# zero_size=False where an empty first dimension changes what the other dimensions must be.
OPS = [
    OpInfo(
        "matmul", zero_size=False, samples=pairs(*MATMUL_SHAPES), reference=reference_matmul,
        dtypes=PRODUCT_TYPES, errors=errors_matmul,
    ),
    OpInfo(
        "mm", samples=pairs(((2, 3), (3, 4)), ((0, 3), (3, 2))), reference=np.matmul, dtypes=PRODUCT_TYPES,
        errors=wrong_dims("mm", ((2, 3), ()), (2, 3, 4), "mat2", 2),
    ),
    OpInfo(
        "bmm", samples=pairs(((2, 3, 4), (2, 4, 3)),), reference=reference_matmul, dtypes=PRODUCT_TYPES,
        errors=errors_bmm,
    ),
    OpInfo(
        "mv", samples=pairs(((2, 3), (3,))), reference=np.matmul, dtypes=PRODUCT_TYPES,
        errors=wrong_dims("mv", ((2, 3), ()), (3, 2), "vec", 1),
    ),
    OpInfo(
        "dot", samples=VECTORS, reference=np.dot, dtypes=PRODUCT_TYPES,
        errors=dot_errors,
    ),
    OpInfo("vdot", samples=VECTORS, reference=np.vdot, dtypes=(*FLOATS, *SOME_INTS)),
    OpInfo(
        "outer", samples=pairs(((2,), (3,)), ((0,), (3,))), reference=np.multiply.outer, dtypes=PRODUCT_TYPES,
        errors=wrong_dims("outer", ((3,), ()), (3, 2), "vec2", 1),
    ),
    OpInfo("ger", samples=pairs(((2,), (3,))), reference=np.multiply.outer),
    OpInfo(
        "inner", samples=pairs(((2, 3), (4, 3)), ((3,), (3,)), ((2, 3), ()), ((2, 2, 3), (3,))),
        reference=lambda a, b: np.asarray(np.inner(a, b), a.dtype), dtypes=PRODUCT_TYPES, errors=errors_inner,
    ),
    OpInfo(
        "addmm", samples=affine(((4,), (2, 3), (3, 4)), out=(2, 4)), reference=affine_reference(np.matmul),
        dtypes=(*FLOATS, "int64"), errors=errors_addmm,
    ),
    OpInfo("addmv", samples=affine(((2,), (2, 3), (3,)), out=(1,)), reference=affine_reference(np.matmul)),
    OpInfo(
        "baddbmm", samples=affine(((4,), (2, 2, 3), (2, 3, 4)), out=(2, 2, 4)), reference=affine_reference(np.matmul)
    ),
    OpInfo(
        "addbmm", samples=affine(((4,), (2, 2, 3), (2, 3, 4)), out=(2, 4)),
        reference=affine_reference(lambda a, b: np.matmul(a, b).sum(0)), errors=errors_addbmm,
    ),
    OpInfo("addr", samples=affine(((3,), (2,), (3,)), out=(2, 3)), reference=affine_reference(np.multiply.outer)),
    OpInfo(
        "einsum", samples=samples_einsum, reference=reference_einsum, dtypes=(*FLOATS, "bfloat16", "int64"),
        errors=errors_einsum,
    ),
    OpInfo(
        "tensordot", samples=samples_tensordot, reference=lambda a, b, dims=2: np.tensordot(a, b, dims),
        dtypes=(*FLOATS, "int64"), errors=errors_tensordot,
    ),
    OpInfo(
        "kron", samples=pairs(((2, 3), (2, 2)), ((2,), (3,)), ((2,), (2, 3)), ((), (2,)), ((2, 1, 2), (2, 2))),
        reference=np.kron, dtypes=(*FLOATS, "int64"),
    ),
    OpInfo(
        "inverse", zero_size=False, samples=samples_inverse, reference=np.linalg.inv, errors=errors_inverse,
        # The inverse of a matrix with condition number c is known to c roundings.
        tolerances={"float32": (1e-5, 1e-5)},
    ),
    OpInfo(
        "matrix_power", zero_size=False, samples=samples_power, reference=np.linalg.matrix_power,
        dtypes=(*FLOATS, "int64"),
        errors=errors_power, tolerances={"float32": (1e-5, 1e-5)},  # four products, each rounded
    ),
    OpInfo(
        "nn.functional.linear", samples=samples_linear, reference=reference_linear, dtypes=(*FLOATS, *HALVES),
        errors=errors_linear,
    ),
    OpInfo("nn.functional.bilinear", samples=samples_bilinear, reference=reference_bilinear, errors=errors_bilinear),
]  # fmt: skip
