"""nn.Module: attributes, iteration, state, conversion, hooks, copies and texts."""

import copy
import gc
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn
from cuframe.nn import hooks


class Block(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(cf.ones(width))
        self.register_buffer("count", cf.tensor(0))
        self.register_buffer("scratch", cf.zeros(2), persistent=False)

    def forward(self, x):
        return self.inner(x) * self.scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.second = Block()
        self.head = nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.head(self.second(self.first(x)))


NAMES = ["first.scale", "first.inner.weight", "first.inner.bias", "second.scale", "second.inner.weight",
         "second.inner.bias", "head.weight"]  # fmt: skip
KEYS = ["first.scale", "first.count", "first.inner.weight", "first.inner.bias", "second.scale", "second.count",
        "second.inner.weight", "second.inner.bias", "head.weight"]  # fmt: skip


def snapshot(module):
    return {k: v.array.copy() for k, v in module.state_dict().items()}


def unchanged(module, before):
    after = module.state_dict()
    return all(np.array_equal(after[k].array, v) for k, v in before.items())


# -- attributes ---------------------------------------------------------------------------------------------------


def test_attributes_are_found_by_kind():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_buffers()] == ["first.count", "first.scratch", "second.count", "second.scratch"]
    assert list(net.state_dict()) == KEYS
    assert isinstance(net.state_dict(), OrderedDict)
    assert [n for n, _ in net.named_modules()] == ["", "first", "first.inner", "second", "second.inner", "head"]
    assert [n for n, _ in net.named_children()] == ["first", "second", "head"]
    assert list(net.children()) == [net.first, net.second, net.head]
    assert list(net.modules())[0] is net
    assert len(list(net.parameters(recurse=False))) == 0
    assert len(list(net.first.buffers(recurse=False))) == 2
    assert [n for n, _ in net.head.named_parameters(prefix="p")] == ["p.weight"]
    assert "scale" in dir(net.first) and "count" in dir(net.first) and "inner" in dir(net.first)


def test_shared_parameters_and_modules_come_once():
    net = Net()
    net.second = net.first
    net.tied = net.first.inner.weight
    assert [n for n, _ in net.named_parameters()] == [
        "tied", "first.scale", "first.inner.bias", "head.weight"]  # fmt: skip
    every = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert every.count("first.inner.weight") == every.count("second.inner.weight") == every.count("tied") == 1
    assert [n for n, _ in net.named_children()] == ["first", "head"]
    assert len(list(net.named_modules(remove_duplicate=False))) == 6


def test_attributes_change_kind():
    m = nn.Module()
    m.x = 1
    m.x = nn.Parameter([1.0])
    assert "x" not in m.__dict__ and list(m._parameters) == ["x"]
    m.x = None
    assert m.x is None and list(m.parameters()) == []
    m.x = nn.Linear(1, 1)
    assert list(m._modules) == ["x"] and not m._parameters
    m.x = nn.Parameter([2.0])
    assert list(m._parameters) == ["x"] and not m._modules
    del m.x
    assert not hasattr(m, "x")
    m.register_buffer("b", None)
    assert m.b is None and m.state_dict() == {}
    m.b = cf.ones(2)
    assert list(m.state_dict()) == ["b"]
    del m.b
    with pytest.raises(AttributeError):
        del m.b


def test_a_buffer_made_persistent_again_is_saved():
    m = nn.Module()
    m.register_buffer("b", cf.ones(1), persistent=False)
    assert list(m.state_dict()) == []
    m.register_buffer("b", cf.ones(1))
    assert list(m.state_dict()) == ["b"]


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda m: setattr(m, "weight", cf.ones(2)), TypeError, "Linear.weight is a parameter.*got Tensor"),
        (lambda m: setattr(m, "child", 3), TypeError, "Linear.child is a module.*got int"),
        (lambda m: setattr(m, "buf", 3), TypeError, "Linear.buf is a buffer.*got int"),
        (lambda m: m.wieght, AttributeError, "Linear has no attribute 'wieght'; did you mean 'weight'"),
        (lambda m: m.qqqq, AttributeError, "Linear has no attribute 'qqqq'$"),
        (lambda m: m.register_parameter("a.b", None), KeyError, "must not contain '.'"),
        (lambda m: m.register_parameter("", None), KeyError, "must not be empty"),
        (lambda m: m.register_parameter(3, None), TypeError, "must be a string, got int"),
        (lambda m: m.register_parameter("forward", None), KeyError, "already has an attribute 'forward'"),
        (lambda m: m.register_parameter("p", cf.ones(1)), TypeError, "must be a Parameter or None, got Tensor"),
        (lambda m: m.register_buffer("b", np.ones(1)), TypeError, "must be a Tensor or None, got ndarray"),
        (lambda m: m.register_buffer("weight", cf.ones(1)), KeyError, "already has an attribute 'weight'"),
        (lambda m: m.add_module("m", 3), TypeError, "must be a Module or None, got int"),
        (lambda m: m.get_submodule("child.none"), AttributeError, "Module has no module 'none' .in 'child.none'"),
        (lambda m: m.get_parameter("child.p"), AttributeError, "Module has no parameter 'p'"),
        (lambda m: m.get_buffer("child.p"), AttributeError, "Module has no buffer 'p'"),
        (lambda m: nn.Module()(1), NotImplementedError, "Module: forward is not defined"),
        (lambda m: m.train("yes"), ValueError, "train: mode must be a bool, got str"),
        (lambda m: m.to("int32"), TypeError, "floating point dtypes only, got int32"),
        (lambda m: m.to(speed=3), TypeError, "unknown argument.*speed"),
        (lambda m: m.register_forward_hook(3), TypeError, "hook must be callable, got int"),
        (lambda m: m.load_state_dict(3), TypeError, "must be a mapping from names, got int"),
        (lambda m: m.load_state_dict({3: cf.ones(1)}), TypeError, "keys must be strings, got 3 of int"),
        (lambda m: m.get_extra_state(), NotImplementedError, "get_extra_state is not defined"),
    ],
)
def test_errors(act, error, text):
    m = nn.Linear(2, 2)
    m.child = nn.Module()
    m.register_buffer("buf", cf.zeros(1))
    with pytest.raises(error, match=text):
        act(m)


def test_a_parameter_must_be_a_leaf():
    p = nn.Parameter([1.0])
    p.node = (p * 2).node
    with pytest.raises(ValueError, match="must be a leaf"):
        nn.Module().register_parameter("p", p)


class _Hasty(nn.Module):
    def __init__(self, kind):
        if kind == "parameter":
            self.p = nn.Parameter([1.0])
        elif kind == "module":
            self.m = nn.Linear(1, 1)
        else:
            self.register_buffer("b", cf.ones(1))


@pytest.mark.parametrize("kind", ["parameter", "module", "buffer"])
def test_init_must_run_first(kind):
    with pytest.raises(AttributeError, match=r"_Hasty: super\(\).__init__\(\) must run before"):
        _Hasty(kind)


def test_a_failing_property_shows_its_own_error():
    class Broken(nn.Module):
        @property
        def size(self):
            return self.head.in_features

    with pytest.raises(AttributeError, match="Broken has no attribute 'head'"):
        Broken().size  # noqa: B018


def test_paths():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("first.inner") is net.first.inner
    assert net.get_parameter("first.inner.bias") is net.first.inner.bias
    assert net.get_buffer("second.count") is net.second.count
    new = nn.Linear(3, 3)
    net.set_submodule("second.inner", new)
    assert net.second.inner is new


# -- state --------------------------------------------------------------------------------------------------------


def test_state_dict_shares_memory_and_detaches():
    net = Net()
    state = net.state_dict()
    assert state["head.weight"].array is net.head.weight.array and not state["head.weight"].requires_grad
    assert net.state_dict(keep_vars=True)["head.weight"] is net.head.weight
    assert list(net.state_dict(prefix="x.")) == ["x." + k for k in KEYS]
    into = {}
    assert net.state_dict(destination=into) is into and len(into) == len(KEYS)


@pytest.mark.parametrize("form", ["tensor", "numpy", "float64"])
def test_load_state_dict_copies_in_place(form):
    source, target = Net(), Net()
    state = source.state_dict()
    if form != "tensor":
        state = {k: v.array.astype(np.float64) if form == "float64" else v.array.copy() for k, v in state.items()}
    arrays = {n: p.array for n, p in target.named_parameters()}
    result = target.load_state_dict(state)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert str(result) == "<All keys matched successfully>"
    for (n, a), b in zip(target.named_parameters(), source.parameters()):
        assert a.array is arrays[n] and a.dtype == np.float32
        np.testing.assert_array_equal(a.array, b.array)
        assert a.array is not b.array


def test_load_state_dict_lists_everything_and_changes_nothing():
    net = Net()
    before = snapshot(net)
    state = {k: np.full(v.shape, 7, v.dtype) for k, v in before.items()}
    del state["first.scale"], state["second.inner.bias"]
    state["head.weight"] = np.zeros((2, 4), np.float32)
    state["first.inner.weight"] = np.zeros(3, np.float32)
    state["second.inner.weight"] = "text"
    state["extra"] = np.zeros(1)
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "does not fit Net (nothing was loaded)" in text
    assert 'missing key(s): "first.scale", "second.inner.bias"' in text
    assert 'unexpected key(s): "extra"' in text
    assert "head.weight: size mismatch, the state_dict has shape (2, 4), the module (2, 3)" in text
    assert "first.inner.weight: size mismatch, the state_dict has shape (3,), the module (3, 3)" in text
    assert "second.inner.weight: expected a Tensor or an array, got str" in text
    assert unchanged(net, before)


def test_load_state_dict_not_strict():
    net = Net()
    result = net.load_state_dict({"head.weight": np.ones((2, 3)), "other": np.ones(1)}, strict=False)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert (net.head.weight.array == 1).all()
    before = snapshot(net)
    with pytest.raises(RuntimeError, match=r"head.weight: size mismatch.*\(1,\).*\(2, 3\)"):
        net.load_state_dict({"first.scale": np.zeros(3), "head.weight": np.ones(1)}, strict=False)
    assert unchanged(net, before)


def test_hints_for_prefixes_and_misspelt_keys():
    net = Net()
    state = net.state_dict()
    with pytest.raises(RuntimeError, match=r'every key starts with "module\."'):
        net.load_state_dict({"module." + k: v for k, v in state.items()})
    wrapped = nn.Sequential(OrderedDict(module=net))
    with pytest.raises(RuntimeError, match=r'names all start with "module\.".*"module"'):
        wrapped.load_state_dict(state)
    state["head.wieght"] = state.pop("head.weight")
    with pytest.raises(RuntimeError, match=r'"head.wieght": did you mean "head.weight"\?'):
        net.load_state_dict(state)


def test_load_state_dict_assign():
    net = Net()
    state = {k: cf.tensor(v.array.astype(np.float64) if v.dtype == np.float32 else v.array)
             for k, v in net.state_dict().items()}  # fmt: skip
    net.head.weight.requires_grad_(False)
    net.load_state_dict(state, assign=True)
    assert net.head.weight.array is state["head.weight"].array
    assert isinstance(net.head.weight, nn.Parameter) and not net.head.weight.requires_grad
    assert net.first.scale.requires_grad and net.first.scale.dtype == np.float64
    assert net.first.count is state["first.count"]


def test_a_scalar_takes_one_element():
    m = nn.Module()
    m.p = nn.Parameter(cf.tensor(0.0))
    m.load_state_dict({"p": np.array([5.0])})
    assert m.p.item() == 5


def test_loading_is_noticed_by_backward():
    m = nn.Linear(2, 2)
    x = cf.ones(1, 2, requires_grad=True)
    y = (m.weight * m.weight).sum() + m(x).sum()
    m.load_state_dict({k: v.array + 1 for k, v in m.state_dict().items()})
    with pytest.raises(RuntimeError, match="changed in place by load_state_dict"):
        y.backward()


class _Extra(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 3

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


def test_extra_state():
    m = nn.Sequential(_Extra())
    state = m.state_dict()
    assert state == {"0._extra_state": {"steps": 3}}
    m[0].steps = 0
    m.load_state_dict(state)
    assert m[0].steps == 3
    with pytest.raises(RuntimeError, match="missing key.*0._extra_state"):
        m.load_state_dict({})


def _drop_scale(module, state, prefix, metadata):
    del state[prefix + "scale"]


def test_state_dict_hooks():
    net, seen = Net(), []
    net.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(("pre", prefix, keep)))
    handle = net.first.register_state_dict_post_hook(_drop_scale)
    assert list(net.state_dict()) == KEYS[1:]
    assert seen == [("pre", "", False)]
    handle.remove()
    assert list(net.state_dict()) == KEYS


def test_load_state_dict_hooks_rename_old_keys():
    net, seen = Net(), []

    def rename(module, state, prefix, metadata, strict, missing, unexpected, errors):
        state[prefix + "weight"] = state.pop(prefix + "kernel")

    net.head.register_load_state_dict_pre_hook(rename)
    net.register_load_state_dict_post_hook(lambda m, keys: seen.append((m, list(keys.missing_keys))))
    old = net.state_dict()
    old["head.kernel"] = old.pop("head.weight")
    net.load_state_dict(old)
    assert seen == [(net, [])] and "head.kernel" in old
    net.register_load_state_dict_post_hook(lambda m, keys: keys)
    with pytest.raises(RuntimeError, match="post-hook must return None"):
        net.load_state_dict(old)


def test_a_subclass_reads_an_older_layout():
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *rest):
            if prefix + "w" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, *rest)

    m = nn.Sequential(Renamed(2, 2, bias=False))
    m.load_state_dict({"0.w": np.full((2, 2), 4.0)})
    assert (m[0].weight.array == 4).all()


# -- modes and conversion -----------------------------------------------------------------------------------------


def test_train_and_eval():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_requires_grad_and_zero_grad():
    net = Net()
    net(cf.ones(1, 3)).sum().backward()
    grads = [p.grad.array for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    assert all((g == 0).all() for g in grads) and net.head.weight.grad.array is grads[-1]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net and not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda m: m.double(), "float64"),
        (lambda m: m.half(), "float16"),
        (lambda m: m.bfloat16(), "bfloat16"),
        (lambda m: m.double().float(), "float32"),
        (lambda m: m.to(cf.float64), "float64"),
        (lambda m: m.to("float64"), "float64"),
        (lambda m: m.to("cpu", cf.float64), "float64"),
        (lambda m: m.to(cf.ones(1, dtype=cf.float64)), "float64"),
        (lambda m: m.to(device="cpu", dtype=cf.float16), "float16"),
        (lambda m: m.to("cpu").cpu(), "float32"),
    ],
)
def test_conversion_keeps_parameters_and_integers(convert, dtype):
    net = Net()
    params = list(net.parameters())
    net(cf.ones(1, 3)).sum().backward()
    assert convert(net) is net
    for old, new in zip(params, net.parameters()):
        assert old is new and new.dtype.name == dtype and new.requires_grad
        assert new.grad.dtype.name == dtype and new.node.dtype == new.dtype
    assert net.first.count.dtype == np.int64 and net.first.scratch.dtype.name == dtype


def test_sparse_gradients_are_converted():
    m = nn.Embedding(4, 2, sparse=True)
    m(cf.tensor([1, 3])).sum().backward()
    m.double()
    assert m.weight.grad.is_sparse and m.weight.grad.dtype == np.float64
    assert m.weight.grad.to_dense().tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_gradients_flow_after_conversion():
    net = Net().double()
    net.zero_grad()
    net(cf.ones(1, 3, dtype=cf.float64)).sum().backward()
    assert net.head.weight.grad.dtype == np.float64
    assert net.type(cf.float32).first.count.dtype == np.float32


def test_apply_visits_children_first():
    net, order = Net(), []
    assert net.apply(lambda m: order.append(type(m).__name__)) is net
    assert order == ["Linear", "Block", "Linear", "Block", "Linear", "Net"]


# -- hooks --------------------------------------------------------------------------------------------------------


def test_forward_hooks_see_and_replace():
    m, log = nn.Linear(2, 2), []
    a = m.register_forward_pre_hook(lambda mod, args: log.append("pre") or (args[0] * 2,))
    b = m.register_forward_hook(lambda mod, args, out: log.append("post") or out + 1)
    x = cf.ones(1, 2)
    np.testing.assert_allclose(m(x).detach().array, m.forward(x * 2).detach().array + 1)
    assert log == ["pre", "post"]
    a.remove()
    with b:
        m(x)
    assert log == ["pre", "post", "post"]
    assert not m._hooks  # back on the fast path
    m(x)
    assert len(log) == 3


def test_hook_order_prepend_and_kwargs():
    class Add(nn.Module):
        def forward(self, x, *, bias=0):
            return x + bias

    m, log = Add(), []
    m.register_forward_pre_hook(lambda mod, args: log.append("second"))
    m.register_forward_pre_hook(lambda mod, args: log.append("first"), prepend=True)
    m.register_forward_pre_hook(lambda mod, args, kw: (args, {"bias": kw["bias"] + 1}), with_kwargs=True)
    m.register_forward_hook(lambda mod, args, kw, out: log.append(kw["bias"]), with_kwargs=True)
    m.register_forward_hook(lambda mod, args, out: log.append("early"), prepend=True)
    assert m(cf.tensor(1.0), bias=2).item() == 4
    assert log == ["first", "second", "early", 3]
    m.register_forward_pre_hook(lambda mod, args, kw: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        m(cf.tensor(1.0), bias=2)


def test_a_hook_registered_twice_is_removed_once():
    m, log = nn.Linear(1, 1), []

    def hook(mod, args, out):
        log.append(1)

    first, _ = m.register_forward_hook(hook), m.register_forward_hook(hook)
    first.remove()
    first.remove()
    m(cf.ones(1, 1))
    assert log == [1]


def test_always_call_runs_when_forward_raises():
    m, log = nn.Module(), []
    m.register_forward_hook(lambda mod, args, out: log.append("skipped"))
    m.register_forward_hook(lambda mod, args, out: log.append(out), always_call=True)
    with pytest.raises(NotImplementedError):
        m(1)
    assert log == [None]


def test_full_backward_hooks_see_both_ends():
    m, seen = nn.Linear(2, 3, bias=False), []
    m.register_full_backward_pre_hook(lambda mod, g: seen.append(("pre", g[0].array.copy())))
    m.register_full_backward_hook(lambda mod, gi, go: seen.append((gi[0].array.copy(), go[0].array.copy())))
    x = cf.ones(4, 2, requires_grad=True)
    (m(x) * 2).sum().backward()
    (tag, pre), (gi, go) = seen
    assert tag == "pre" and (pre == 2).all() and pre.shape == (4, 3)
    np.testing.assert_array_equal(go, pre)
    np.testing.assert_allclose(gi, go @ m.weight.array)
    np.testing.assert_allclose(x.grad.array, gi)
    np.testing.assert_allclose(m.weight.grad.array, go.T @ x.array)


def test_full_backward_hooks_replace():
    m = nn.Linear(2, 2, bias=False)
    m.register_full_backward_pre_hook(lambda mod, g: (g[0] * 3,))
    m.register_full_backward_hook(lambda mod, gi, go: (gi[0] * 0 + 5,))
    x = cf.ones(1, 2, requires_grad=True)
    m(x).sum().backward()
    assert (x.grad.array == 5).all()
    np.testing.assert_array_equal(m.weight.grad.array, 3)
    m.register_full_backward_hook(lambda mod, gi, go: (gi[0], gi[0]))
    with pytest.raises(RuntimeError, match="as many gradients as it was given, 1, got 2"):
        m(x).sum().backward()


def test_full_backward_hook_without_input_gradient():
    m, seen = nn.Linear(2, 2), []
    m.register_full_backward_hook(lambda mod, gi, go: seen.append((gi, go[0].shape)))
    m(cf.ones(1, 2)).sum().backward()
    assert seen == [((None,), (1, 2))]
    with cf.no_grad():
        m(cf.ones(1, 2))
    assert len(seen) == 1


def test_full_backward_hook_with_several_outputs_and_unused_ones():
    class Two(nn.Module):
        def forward(self, x, y, flag):
            return x * 2, y * 3, flag

    m, seen = Two(), []
    m.register_full_backward_hook(lambda mod, gi, go: seen.append((gi, go)))
    x, y = cf.ones(2, requires_grad=True), cf.ones(3)
    a, b, flag = m(x, y, "flag")
    assert flag == "flag" and not b.requires_grad
    a.sum().backward()
    (gi, go) = seen[0]
    assert gi[1] is None and gi[2] is None and go[1] is None and go[2] is None
    assert gi[0].tolist() == [2, 2] and go[0].tolist() == [1, 1]


def test_full_backward_hooks_under_create_graph():
    m = nn.Linear(2, 1, bias=False)
    m.register_full_backward_hook(lambda mod, gi, go: (gi[0] * 2,))
    x = cf.ones(1, 2, requires_grad=True)
    (g,) = cf.autograd.grad((m(x) ** 2).sum(), x, create_graph=True)
    (h,) = cf.autograd.grad(g.sum(), m.weight)
    w = m.weight.array[0]
    np.testing.assert_allclose(g.detach().array[0], 4 * w.sum() * w, rtol=1e-5)
    np.testing.assert_allclose(h.array[0], 4 * (w.sum() + w.sum()), rtol=1e-5)


def test_a_hooked_graph_is_freed_at_once():
    m = nn.Linear(2, 2)
    m.register_full_backward_hook(lambda mod, gi, go: None)
    x = cf.ones(1, 2, requires_grad=True)
    y = m(x)
    alive = weakref.ref(y.node)
    gc.disable()
    try:
        del y
        assert alive() is None
    finally:
        gc.enable()


def test_full_backward_hooks_refuse_inputs_changed_in_place():
    m = nn.ReLU(inplace=True)
    m.register_full_backward_hook(lambda mod, gi, go: None)
    x = cf.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="ReLU: an input was changed in place"):
        m(x * 2)
    with cf.no_grad():
        assert m(x * -2).tolist() == [0, 0]


def test_global_hooks():
    log = []
    with hooks.register_module_forward_pre_hook(lambda m, args: log.append(("pre", type(m).__name__))):
        with hooks.register_module_forward_hook(lambda m, args, out: log.append(("post", type(m).__name__))):
            nn.Sequential(nn.Linear(1, 1))(cf.ones(1, 1))
    assert log == [("pre", "Sequential"), ("pre", "Linear"), ("post", "Linear"), ("post", "Sequential")]
    with hooks.register_module_full_backward_hook(lambda m, gi, go: log.append("back")):
        with hooks.register_module_full_backward_pre_hook(lambda m, go: log.append("before")):
            nn.Linear(1, 1)(cf.ones(1, 1)).sum().backward()
    assert log[4:] == ["before", "back"] and not hooks.GLOBAL


# -- copies and texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_keep_sharing_and_flags(twin_of):
    net = Net().eval()
    net.second.inner.weight = net.first.inner.weight
    net.head.weight.requires_grad_(False)
    twin = twin_of(net)
    assert twin.second.inner.weight is twin.first.inner.weight
    assert twin.first.inner.weight is not net.first.inner.weight
    assert not twin.head.weight.requires_grad and twin.first.scale.requires_grad
    assert not twin.training and isinstance(twin.first.scale, nn.Parameter)
    assert unchanged(twin, snapshot(net))
    x = cf.ones(1, 3)
    np.testing.assert_array_equal(twin(x).detach().array, net(x).detach().array)
    twin.first.scale.array[...] = 9
    assert net.first.scale.array[0] == 1


def test_deepcopy_keeps_hooks_apart():
    m, log = nn.Linear(1, 1), []
    m.register_forward_hook(lambda mod, args, out: log.append(1))
    twin = copy.deepcopy(m)
    twin(cf.ones(1, 1))
    assert log == [1]
    twin._hooks.clear()
    m(cf.ones(1, 1))
    assert log == [1, 1]


def test_repr():
    assert repr(nn.Linear(2, 3)) == "Linear(in_features=2, out_features=3, bias=True)"
    assert repr(nn.Module()) == "Module()"
    net = Net()
    assert repr(net) == (
        "Net(\n"
        "  (first): Block(\n    (inner): Linear(in_features=3, out_features=3, bias=True)\n  )\n"
        "  (second): Block(\n    (inner): Linear(in_features=3, out_features=3, bias=True)\n  )\n"
        "  (head): Linear(in_features=3, out_features=2, bias=False)\n)"
    )

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def extra_repr(self):
            return "width=3\ndepth=2"

    assert repr(Told()) == (
        "Told(\n  width=3\n  depth=2\n  (inner): Linear(in_features=1, out_features=1, bias=True)\n)"
    )
