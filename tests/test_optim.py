"""Optimizers: update rules against formulas written out, groups, state, hooks, sparse gradients and errors.

`tests/parity/test_optimizers.py` compares them with PyTorch's.
"""

import copy
import math
import pickle

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn, optim
from cuframe.backend import base
from cuframe.backend.cpu import CpuBackend
from cuframe.optim import blocks
from cuframe.sparse import SparseGrad


def param(*shape, seed=0, dtype="float64"):
    return nn.Parameter(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def gradient(step, shape):
    return np.random.default_rng(100 + step).standard_normal(shape)


# The rules as their papers and PyTorch's documentation write them, in float64, one array at a time. Each is a generator
# that is sent gradients and gives the parameter.
def sgd(p, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    b = None
    while True:
        g = yield p
        g = g + weight_decay * p
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        p = p - lr * g


def adam(p, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, decoupled=False):
    m = v = top = 0.0
    t = 0
    while True:
        g = yield p
        t += 1
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        top = np.maximum(top, v) if amsgrad else v
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(top / (1 - betas[1] ** t)) + eps)


def adamax(p, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m = u = 0.0
    t = 0
    while True:
        g = yield p
        t += 1
        g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        u = np.maximum(betas[1] * u, abs(g) + eps)
        p = p - lr / (1 - betas[0] ** t) * m / u


def nadam(p, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3):
    m = v = 0.0
    product = 1.0
    t = 0
    while True:
        g = yield p
        t += 1
        g = g + weight_decay * p
        mu, nxt = (betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        product *= mu
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        hat = nxt * m / (1 - product * nxt) + (1 - mu) * g / (1 - product)
        p = p - lr * hat / (np.sqrt(v / (1 - betas[1] ** t)) + eps)


def radam(p, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m = v = 0.0
    t = 0
    longest = 2 / (1 - betas[1]) - 1
    while True:
        g = yield p
        t += 1
        g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        hat = m / (1 - betas[0] ** t)
        rho = longest - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
            hat = hat * r * math.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)
        p = p - lr * hat


def rmsprop(p, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    v = mean = b = 0.0
    while True:
        g = yield p
        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        g = g / (np.sqrt(v - mean * mean if centered else v) + eps)
        b = momentum * b + g
        p = p - lr * b


def adagrad(p, lr, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    total = initial_accumulator_value
    t = 0
    while True:
        g = yield p
        t += 1
        g = g + weight_decay * p
        total = total + g * g
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(total) + eps)


def adadelta(p, lr, rho=0.9, eps=1e-6, weight_decay=0.0):
    v = u = 0.0
    while True:
        g = yield p
        g = g + weight_decay * p
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d * d
        p = p - lr * d


CASES = [
    (optim.SGD, sgd, {"lr": 0.1}, {}),
    (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.1}, {}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}, {}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {}),
    (optim.Adam, adam, {"lr": 0.01}, {}),
    (optim.Adam, adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-2, "weight_decay": 0.1}, {}),
    (optim.Adam, adam, {"lr": 0.01, "betas": (0.8, 0.9), "amsgrad": True}, {}),
    (optim.AdamW, adam, {"lr": 0.01, "weight_decay": 0.1}, {"decoupled": True}),
    (optim.AdamW, adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}, {"decoupled": True}),
    (optim.Adamax, adamax, {"lr": 0.01, "weight_decay": 0.1}, {}),
    (optim.NAdam, nadam, {"lr": 0.01, "weight_decay": 0.1}, {}),
    (optim.RAdam, radam, {"lr": 0.01, "weight_decay": 0.1}, {}),
    (optim.RMSprop, rmsprop, {"lr": 0.01}, {}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}, {}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "momentum": 0.9, "centered": True, "alpha": 0.9}, {}),
    (optim.Adagrad, adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}, {}),
    (optim.Adadelta, adadelta, {"lr": 0.5, "weight_decay": 0.1}, {}),
]
IDS = [f"{c.__name__}-{'-'.join(map(str, k))}" for c, _, k, _ in CASES]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("cls", "rule", "options", "extra"), CASES, ids=IDS)
def test_update_rule(cls, rule, options, extra, maximize):
    p, q = param(3, 4), param(5, seed=1)
    rules = [rule(x.array.copy(), **options, **extra) for x in (p, q)]
    expected = [next(r) for r in rules]
    opt = cls([p, q], **options, maximize=maximize)
    for step in range(30):
        grads = [gradient(step, p.shape), gradient(1000 + step, q.shape)]
        p.grad, q.grad = (cf.tensor(-g if maximize else g) for g in grads)
        opt.step()
        expected = [r.send(g) for r, g in zip(rules, grads)]
        np.testing.assert_allclose(p.array, expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(q.array, expected[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cls", "rule", "options", "extra"), CASES, ids=IDS)
def test_blocks_do_not_show(cls, rule, options, extra, monkeypatch):
    """The same bits whether a parameter is one block, several, or several and a rest."""
    results = []
    for size in (1000, 32, 50):
        monkeypatch.setattr(blocks, "BLOCK", size)
        p = param(16, 10, dtype="float32")
        opt = cls([p], **options)
        for step in range(3):
            p.grad = cf.tensor(gradient(step, p.shape), dtype="float32")
            opt.step()
        results.append(p.array)
    # BLAS may add the last elements of a block in another order of instructions, with and without FMA.
    np.testing.assert_allclose(results[1], results[0], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(results[2], results[0], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.RMSprop])
def test_memory_layouts(cls):
    """Parameters that are not plain memory are updated all the same, and in place."""
    base = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    raw = np.zeros(base.nbytes + 1, np.uint8)
    layouts = {
        "plain": base.copy(),
        "columns": np.asfortranarray(base),
        "strided": np.repeat(base, 2, axis=1)[:, ::2],
        "misaligned": raw[1:].view(np.float32).reshape(4, 6),
    }
    layouts["misaligned"][...] = base
    results = {}
    for name, array in layouts.items():
        p = nn.Parameter(array)
        opt = cls([p], lr=0.1, momentum=0.9) if cls is not optim.Adam else cls([p], lr=0.1)
        for step in range(3):
            g = gradient(step, base.shape).astype(np.float32)
            p.grad = cf.tensor(g if name == "plain" else np.asfortranarray(g))
            opt.step()
        assert p.array is array
        results[name] = array
    for name in layouts:
        np.testing.assert_array_equal(results[name], results["plain"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_half_precision_is_computed_in_float32(cls, dtype):
    half, full = nn.Parameter(cf.ones(8, dtype=dtype)), nn.Parameter(cf.ones(8))
    for p in (half, full):
        opt = cls([p], lr=0.125)
        p.grad = cf.ones(8, dtype=p.dtype)
        opt.step()
        assert all(v.dtype == p.dtype for v in opt.state[p].values() if isinstance(v, cf.Tensor))
    assert half.dtype.name == dtype
    np.testing.assert_allclose(half.array.astype(np.float64), full.array, rtol=2**-8)


class DeviceArray(np.ndarray):
    """Stands for the arrays of a device: not NumPy's own class, so without BLAS and blocks."""


class DeviceBackend(CpuBackend):
    name, array_type = "stand-in", DeviceArray

    def from_host(self, array, where):
        return array.view(DeviceArray)


@pytest.mark.parametrize(("cls", "rule", "options", "extra"), CASES, ids=IDS)
def test_arrays_of_a_device(cls, rule, options, extra, monkeypatch):
    monkeypatch.setitem(base._by_type, DeviceArray, DeviceBackend())
    host, there = param(300, 200), param(300, 200)
    there.data = cf.Tensor(there.array.view(DeviceArray))
    a, b = cls([host], **options), cls([there], **options)
    for step in range(3):
        host.grad = cf.tensor(gradient(step, host.shape))
        there.grad = cf.Tensor(host.grad.array.copy().view(DeviceArray))
        a.step()
        b.step()
    assert type(there.array) is DeviceArray
    # BLAS multiplies and adds with one rounding.
    np.testing.assert_allclose(host.array, there.array, rtol=1e-12, atol=1e-14)


def test_empty_and_scalar_parameters():
    for cls in (optim.SGD, optim.Adam, optim.RMSprop, optim.Adagrad, optim.Adadelta):
        p, q = nn.Parameter(cf.zeros(0, 3)), nn.Parameter(cf.tensor(1.0))
        opt = cls([p, q])
        p.grad, q.grad = cf.zeros(0, 3), cf.tensor(1.0)
        opt.step()
        assert q.item() < 1 and p.shape == (0, 3)


def test_parameters_without_gradient_stay():
    p, q = param(2), param(2, seed=1)
    opt = optim.Adam([p, q], lr=0.1)
    before = q.array.copy()
    opt.step()
    p.grad = cf.ones(2, dtype="float64")
    opt.step()
    np.testing.assert_array_equal(q.array, before)
    assert q not in opt.state and opt.state[p]["step"] == 1


def test_training_finds_the_minimum():
    cf.manual_seed(0)
    for cls, options in ((optim.SGD, {"lr": 0.1, "momentum": 0.9}), (optim.Adam, {"lr": 0.1})):
        net = nn.Linear(3, 1)
        opt = cls(net.parameters(), **options)
        x = cf.tensor(np.random.default_rng(0).standard_normal((50, 3)), dtype="float32")
        y = x @ cf.tensor([[1.0], [-2.0], [0.5]]) + 3
        for _ in range(200):
            opt.zero_grad()
            loss = ((net(x) - y) ** 2).mean()
            loss.backward()
            opt.step()
        assert loss.item() < 1e-4
        np.testing.assert_allclose(net.weight.array[0], [1, -2, 0.5], atol=0.01)


def test_backward_notices_a_step():
    p = param(2)
    y = (p * p).sum()
    opt = optim.SGD([p], lr=0.1)
    p.grad = cf.ones(2, dtype="float64")
    opt.step()
    with pytest.raises(RuntimeError, match="changed in place by the optimizer's step"):
        y.backward()


def test_a_step_allocates_little():
    import tracemalloc

    p = nn.Parameter(cf.zeros(1000, 1000))
    p.grad = cf.ones(1000, 1000)
    for cls in (optim.Adam, optim.SGD, optim.RMSprop):
        opt = cls([p])
        opt.step()
        tracemalloc.start()
        opt.step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000, f"{cls.__name__} allocated {peak} bytes for a parameter of 4 MB"


# -- groups and calls ---------------------------------------------------------------------------------------------


def test_groups_have_their_own_options():
    p, q, r = param(2), param(2), param(2)
    opt = optim.SGD([{"params": [p], "lr": 1.0}, {"params": q, "name": "slow"}], lr=0.1)
    opt.add_param_group({"params": [r], "momentum": 0.5})
    assert [g["lr"] for g in opt.param_groups] == [1.0, 0.1, 0.1] and opt.param_groups[1]["name"] == "slow"
    assert opt.param_groups[2]["momentum"] == 0.5 and opt.defaults["momentum"] == 0
    before = p.array.copy()
    for x in (p, q, r):
        x.grad = cf.ones(2, dtype="float64")
    opt.step()
    np.testing.assert_allclose(p.array, before - 1)
    np.testing.assert_allclose(q.array, before - 0.1)


def test_named_parameters():
    net = nn.Linear(2, 2)
    opt = optim.SGD(net.named_parameters(), lr=0.1)
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    assert opt.param_groups[0]["params"][0] is net.weight
    assert opt.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_zero_grad():
    p = param(2)
    opt = optim.SGD([p], lr=0.1)
    opt.zero_grad()
    p.grad = g = cf.ones(2, dtype="float64")
    opt.zero_grad(set_to_none=False)
    assert p.grad is g and g.tolist() == [0, 0]
    opt.zero_grad()
    assert p.grad is None


def test_closure_runs_with_gradients():
    p = nn.Parameter([2.0])
    opt = optim.SGD([p], lr=0.25)

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with cf.no_grad():
        assert opt.step(closure).item() == 4
    assert p.item() == 1


def test_step_hooks():
    p, log = param(1), []
    opt = optim.SGD([p], lr=0.1)
    a = opt.register_step_pre_hook(lambda o, args, kwargs: log.append(("pre", o is opt, args)))
    b = opt.register_step_post_hook(lambda o, args, kwargs: log.append("post"))
    opt.step()
    assert log == [("pre", True, ()), "post"]
    a.remove()
    b.remove()
    opt.step()
    assert len(log) == 2
    opt.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        opt.step()


def test_an_own_optimizer():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with cf.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.sub_(p.grad.sign() * group["lr"])
            return "done"

    p, log = nn.Parameter([1.0]), []
    opt = Sign([p], 0.25)
    opt.register_step_post_hook(lambda *args: log.append(1))
    p.grad = cf.tensor([-3.0])
    assert opt.step() == "done" and p.item() == 1.25 and log == [1]

    class Nothing(optim.Optimizer):
        pass

    with pytest.raises(NotImplementedError, match="neither step nor update_group"):
        Nothing([p], {}).step()


def test_repr():
    text = repr(optim.SGD([param(1)], lr=0.5))
    assert text == (
        "SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.5\n    maximize: False\n    momentum: 0\n"
        "    nesterov: False\n    weight_decay: 0\n)"
    )


# -- state --------------------------------------------------------------------------------------------------------


def run(cls, p, opt, steps, start=0):
    for step in range(start, start + steps):
        p.grad = cf.tensor(gradient(step, p.shape))
        opt.step()


STATEFUL = {
    optim.SGD: ({"lr": 0.1, "momentum": 0.9}, {"momentum_buffer"}),
    optim.Adam: ({"amsgrad": True}, {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    optim.AdamW: ({}, {"step", "exp_avg", "exp_avg_sq"}),
    optim.Adamax: ({}, {"step", "exp_avg", "exp_inf"}),
    optim.NAdam: ({}, {"step", "exp_avg", "exp_avg_sq", "mu_product"}),
    optim.RAdam: ({}, {"step", "exp_avg", "exp_avg_sq"}),
    optim.RMSprop: ({"momentum": 0.5, "centered": True}, {"step", "square_avg", "grad_avg", "momentum_buffer"}),
    optim.Adagrad: ({}, {"step", "sum"}),
    optim.Adadelta: ({}, {"step", "square_avg", "acc_delta"}),
}


@pytest.mark.parametrize("cls", STATEFUL)
@pytest.mark.parametrize("form", ["tensors", "arrays", "string keys"])
def test_state_dict_resumes(cls, form):
    options, names = STATEFUL[cls]
    p = param(3, 2)
    opt = cls([param(1), p], **options)
    run(cls, p, opt, 5)
    state = opt.state_dict()
    assert set(state) == {"state", "param_groups"} and set(state["state"]) == {1}
    assert set(state["state"][1]) == names and state["param_groups"][0]["params"] == [0, 1]
    if "step" in names:
        assert state["state"][1]["step"].item() == 5 and state["state"][1]["step"].dtype == np.float32
    if form == "arrays":
        state["state"] = {i: {k: v.array for k, v in s.items()} for i, s in state["state"].items()}
    elif form == "string keys":
        state["state"] = {str(i): s for i, s in state["state"].items()}
    q = nn.Parameter(p.array.copy())
    other = cls([param(1), q], **{**options, "lr": 99.0})
    other.load_state_dict(state)
    assert other.param_groups[0]["lr"] == opt.param_groups[0]["lr"]
    run(cls, p, opt, 5, start=5)
    run(cls, q, other, 5, start=5)
    np.testing.assert_array_equal(q.array, p.array)


def test_loading_copies_and_casts():
    p = param(2, dtype="float32")
    opt = optim.Adam([p])
    values = {"step": 3, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    state = {"state": {0: values}, "param_groups": [{"lr": 0.5, "betas": [0.8, 0.9], "params": [0]}]}
    opt.load_state_dict(state)
    assert opt.state[p]["exp_avg"].dtype == np.float32 and opt.state[p]["step"] == 3
    assert opt.param_groups[0]["betas"] == (0.8, 0.9) and opt.param_groups[0]["eps"] == 1e-8
    p.grad = cf.ones(2)
    opt.step()
    assert values["exp_avg"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("state"), "the state_dict has no 'state'"),
        (lambda s: s["param_groups"].append({"params": []}), r"has 1 parameter group\(s\), the state_dict 2"),
        (lambda s: s["param_groups"][0]["params"].append(1), r"group 0 has 1 parameter\(s\), .* 2"),
        (lambda s: s["state"][0].update(exp_avg=np.ones(3)), r"exp_avg must have .* shape \(2,\), got \(3,\)"),
    ],
)  # fmt: skip
def test_loading_what_does_not_fit_changes_nothing(change, text):
    p = param(2)
    opt = optim.Adam([p], lr=0.5)
    run(optim.Adam, p, opt, 2)
    state = opt.state_dict()
    before = opt.state[p]["exp_avg"]
    change(state)
    state["param_groups"][0]["lr"] = 7.0
    with pytest.raises(ValueError, match=text):
        opt.load_state_dict(state)
    assert opt.state[p]["exp_avg"] is before and opt.param_groups[0]["lr"] == 0.5


def test_state_dict_hooks():
    p = param(2)
    opt, log = optim.Adam([p]), []
    opt.register_state_dict_pre_hook(lambda o: log.append("save"))
    opt.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1})
    opt.register_load_state_dict_pre_hook(lambda o, s: log.append("load"))
    opt.register_load_state_dict_post_hook(lambda o: log.append("loaded"))
    state = opt.state_dict()
    assert state["extra"] == 1
    opt.load_state_dict(state)
    assert log == ["save", "load", "loaded"]


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_go_on_alike(twin_of):
    p = param(3)
    opt = optim.Adam([p], lr=0.1)
    run(optim.Adam, p, opt, 3)
    twin = twin_of(opt)
    (q,) = twin.param_groups[0]["params"]
    assert q is not p and twin._scratch == {}
    run(optim.Adam, p, opt, 3, start=3)
    run(optim.Adam, q, twin, 3, start=3)
    np.testing.assert_array_equal(p.array, q.array)


# -- errors -------------------------------------------------------------------------------------------------------

PARAM = nn.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: optim.SGD([]), ValueError, "SGD: the list of parameters is empty"),
        (lambda: optim.SGD(PARAM), TypeError, "must be a list of Tensors or dicts, got one Tensor"),
        (lambda: optim.SGD([3]), TypeError, "parameters must be Tensors, got int at position 0"),
        (lambda: optim.SGD([PARAM, PARAM]), ValueError, r"parameter 1 of shape \(1,\) is given twice"),
        (lambda: optim.SGD([{"params": [PARAM]}, {"params": [PARAM]}]), ValueError, "is given twice"),
        (lambda: optim.SGD([{"params": {PARAM}}]), TypeError, "must have an order .*, got a set"),
        (lambda: optim.SGD([PARAM * 2]), ValueError, "parameter 0 is the result of <MulBackward0>"),
        (lambda: optim.SGD([{"param": [PARAM]}]), TypeError, 'must be a dict with "params"'),
        (lambda: optim.SGD([{"params": [PARAM], "weight_decy": 1}]), TypeError,
         "unknown option 'weight_decy'; did you mean 'weight_decay'"),
        (lambda: optim.SGD([PARAM], lr=-1), ValueError, "SGD: lr must be >= 0, got -1"),
        (lambda: optim.SGD([PARAM], lr=math.nan), ValueError, "lr must be >= 0, got nan"),
        (lambda: optim.SGD([PARAM], nesterov=True), ValueError, "nesterov needs momentum > 0"),
        (lambda: optim.Adam([PARAM], betas=(0.9, 1.0)), ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        (lambda: optim.Adam([PARAM], betas=(0.9,)), ValueError, "betas must be two numbers"),
        (lambda: optim.AdamW([PARAM], eps=-1), ValueError, "AdamW: eps must be >= 0"),
        (lambda: optim.Adadelta([PARAM], rho=2), ValueError, r"rho must be in \[0, 1\], got 2"),
        (lambda: optim.RMSprop([PARAM], alpha=-1), ValueError, "RMSprop: alpha must be >= 0"),
        (lambda: optim.Adagrad([PARAM], lr_decay=-1), ValueError, "Adagrad: lr_decay must be >= 0"),
        (lambda: optim.Optimizer([PARAM], {"lr": optim.optimizer.required}), ValueError, "lacks the option 'lr'"),
    ],
)  # fmt: skip
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


# -- sparse gradients ---------------------------------------------------------------------------------------------


def sparse(step, rows=(3, 1, 3)):
    data = np.random.default_rng(step).standard_normal((len(rows), 2))
    return SparseGrad(np.array(rows), data, (5, 2))


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("cls", [optim.SGD, optim.Adagrad])
def test_sparse_gradients_change_their_rows_only(cls, maximize):
    p, q = param(5, 2), param(5, 2)
    sparse_opt, dense_opt = (cls([x], lr=0.1, maximize=maximize) for x in (p, q))
    before = p.array.copy()
    for step in range(4):
        p.grad = sparse(step)
        q.grad = sparse(step).to_dense()
        sparse_opt.step()
        dense_opt.step()
        np.testing.assert_allclose(p.array, q.array, rtol=1e-12)
    assert (p.array[[0, 2, 4]] == before[[0, 2, 4]]).all() and (p.array[[1, 3]] != before[[1, 3]]).all()


def test_sparse_adam():
    p, q = param(5, 2), param(2, 2)
    q.array[...] = p.array[[1, 3]]
    opt, dense = optim.SparseAdam([p], lr=0.1), optim.Adam([q], lr=0.1, eps=0)
    opt.param_groups[0]["eps"] = 0
    for step in range(5):
        p.grad = sparse(step)
        q.grad = cf.tensor(sparse(step).to_dense().array[[1, 3]])
        opt.step()
        dense.step()
        np.testing.assert_allclose(p.array[[1, 3]], q.array, rtol=1e-12)
    # A row that is left out keeps its averages; a dense Adam would let them fade.
    kept = opt.state[p]["exp_avg"].array[1].copy()
    p.grad = sparse(9, rows=(3,))
    opt.step()
    np.testing.assert_array_equal(opt.state[p]["exp_avg"].array[1], kept)
    p.grad = cf.ones(5, 2, dtype="float64")
    with pytest.raises(RuntimeError, match="gradient of parameter 0 is dense"):
        opt.step()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: optim.Adam([p]), "Adam: sparse gradients are not supported; use SGD, Adagrad or SparseAdam"),
        (lambda p: optim.RMSprop([p]), "RMSprop: sparse gradients are not supported"),
        (lambda p: optim.SGD([p], lr=0.1, momentum=0.9), "without momentum and weight_decay only"),
        (lambda p: optim.Adagrad([p], weight_decay=0.1), "without weight_decay only, got 0.1"),
    ],
)
def test_sparse_errors(make, text):
    p = param(5, 2)
    opt, before = make(p), p.array.copy()
    p.grad = sparse(0)
    with pytest.raises(RuntimeError, match=text):
        opt.step()
    np.testing.assert_array_equal(p.array, before)


def test_embedding_trains_with_sparse_gradients():
    table = nn.Embedding(6, 2, sparse=True)
    table.weight.array[...] = np.arange(12).reshape(6, 2)  # so that differences are exact
    before = table.weight.array.copy()
    opt = optim.SGD(table.parameters(), lr=0.5)
    table(cf.tensor([1, 4, 1])).sum().backward()
    opt.step()
    np.testing.assert_allclose(before - table.weight.array, [[0] * 2, [1] * 2, [0] * 2, [0] * 2, [0.5] * 2, [0] * 2])
