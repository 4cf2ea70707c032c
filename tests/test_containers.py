"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import cuframe as cf
from cuframe import nn


def layers(n, start=1):
    return [nn.Linear(i, i + 1) for i in range(start, start + n)]


# -- Sequential ---------------------------------------------------------------------------------------------------


def test_sequential_runs_in_order():
    a, b = layers(2)
    net = nn.Sequential(a, nn.ReLU(), b)
    x = cf.ones(3, 1)
    np.testing.assert_array_equal(net(x).detach().array, b(a(x).relu()).detach().array)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    named = nn.Sequential(OrderedDict(first=a, second=b))
    assert named.first is a and list(named.state_dict())[0] == "first.weight"


def test_sequential_as_a_list():
    a, b, c, d = layers(4)
    net = nn.Sequential(a, b, c)
    assert len(net) == 3 and net[0] is a and net[-1] is c and list(net) == [a, b, c] and b in net and d not in net
    part = net[1:]
    assert isinstance(part, nn.Sequential) and list(part) == [b, c] and list(part.state_dict())[0] == "1.weight"
    assert net.append(d) is net and net[3] is d
    net.insert(0, d)
    assert list(net) == [d, a, b, c, d] and list(net._modules) == ["0", "1", "2", "3", "4"]
    del net[0]
    del net[-1:]
    assert list(net) == [a, b, c]
    net[1] = d
    assert list(net) == [a, d, c] and net.pop(1) is d and list(net) == [a, c]
    assert list(net._modules) == ["0", "1"]
    assert list(net.extend([d])) == [a, c, d]
    assert list(net + nn.Sequential(b)) == [a, c, d, b] and len(net) == 3
    net += nn.Sequential(b)
    assert list(net) == [a, c, d, b]
    assert list(nn.Sequential(a) * 2) == list(2 * nn.Sequential(a)) == [a, a]
    net = nn.Sequential(a, b)
    net *= 2
    assert list(net) == [a, b, a, b]


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda s: nn.Sequential(3), TypeError, "Sequential: expected a Module, got int"),
        (lambda s: s[2], IndexError, "index 2 is out of range for 2 item"),
        (lambda s: s["0"], TypeError, "str"),
        (lambda s: s.append(3), TypeError, "Sequential.append: expected a Module, got int"),
        (lambda s: s.insert(5, nn.ReLU()), IndexError, "index 5 is out of range for 2"),
        (lambda s: s.insert(0, 3), TypeError, "insert: expected a Module"),
        (lambda s: s.extend("ab"), TypeError, "expected modules, got str"),
        (lambda s: s.__setitem__(0, 3), TypeError, "expected a Module"),
        (lambda s: s + 3, TypeError, "unsupported"),
        (lambda s: s * 0, ValueError, "at least once, got 0"),
    ],
)
def test_sequential_errors(act, error, text):
    s = nn.Sequential(nn.ReLU(), nn.ReLU())
    with pytest.raises(error, match=text):
        act(s)
    assert len(s) == 2


# -- ModuleList and ModuleDict ------------------------------------------------------------------------------------


def test_module_list():
    a, b, c = layers(3)
    m = nn.ModuleList([a, b])
    assert list(m + [c]) == [a, b, c] and isinstance(m[:1], nn.ModuleList) and list(m[:1]) == [a]
    m += [c]
    m.insert(1, c)
    assert list(m) == [a, c, b, c] and m.pop() is c and m.pop(slice(0, 1))[0] is a
    m[0] = a
    assert list(m) == [a, b] and list(m.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert "0" not in dir(m)
    with pytest.raises(NotImplementedError, match="loop over its modules"):
        m(1)
    assert repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(1, 1)])) == (
        "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Linear(in_features=1, out_features=1, bias=True)\n)"
    )
    assert repr(nn.ModuleList()) == "ModuleList()"


def test_module_dict():
    a, b, c = layers(3)
    m = nn.ModuleDict({"a": a, "b": b})
    m["c"] = c
    assert list(m) == list(m.keys()) == ["a", "b", "c"] and m["a"] is a and "c" in m and len(m) == 3
    assert list(m.values()) == [a, b, c] and list(m.items())[1] == ("b", b)
    assert m.pop("b") is b and list(m.state_dict())[0] == "a.weight"
    m.update([("a", c)])
    assert m["a"] is c
    m.update(nn.ModuleDict({"z": b}))
    assert m["z"] is b
    m.clear()
    assert len(m) == 0
    with pytest.raises(KeyError, match="already has an attribute 'keys'"):
        m["keys"] = a
    with pytest.raises(TypeError, match="expected a mapping or pairs, got int"):
        m.update(3)
    with pytest.raises(NotImplementedError, match="cannot be called"):
        m(1)


# -- ParameterList and ParameterDict ------------------------------------------------------------------------------


def test_parameter_list():
    p = nn.ParameterList([nn.Parameter([1.0]), cf.tensor([2.0, 3.0])])
    assert [type(q) for q in p] == [nn.Parameter] * 2 and list(p.state_dict()) == ["0", "1"]
    p.append(cf.tensor(4.0)).extend([cf.tensor(5.0)])
    p += [cf.tensor(6.0)]
    assert len(p) == 5 and p[-1].item() == 6 and [q.item() for q in p[2:]] == [4, 5, 6]
    p[0] = cf.tensor([9.0])
    assert len(list(p.parameters())) == 5 and p[0].item() == 9
    with pytest.raises(IndexError, match="out of range"):
        p[5]
    with pytest.raises(TypeError, match="expected a list"):
        p.extend(cf.ones(2))
    assert repr(p[:1]) == "ParameterList(\n    (0): Parameter containing: [float32 of size 1]\n)"
    mixed = nn.ParameterList([3, "text"])
    assert list(mixed) == [3, "text"] and not list(mixed.parameters())


def test_parameter_dict():
    p = nn.ParameterDict([("b", cf.tensor([1.0])), ("a", nn.Parameter([2.0]))])
    assert list(p) == ["b", "a"] == list(p.keys()) and isinstance(p["b"], nn.Parameter) and p.b is p["b"]
    assert list(p.state_dict()) == ["b", "a"] and list(reversed(p)) == ["a", "b"]
    p["c"] = cf.tensor(3.0)
    assert p.get("d") is None and p.setdefault("d", cf.tensor(4.0)).item() == 4
    assert [v.item() for v in p.values()] == [1, 2, 3, 4] and p.pop("c").item() == 3 and "c" not in p
    assert list(nn.ParameterDict({"b": cf.ones(1), "a": cf.ones(1)})) == ["a", "b"]
    assert list(nn.ParameterDict(OrderedDict(b=cf.ones(1), a=cf.ones(1)))) == ["b", "a"]
    key, last = p.popitem()
    assert key == "d" and last.item() == 4
    q = p.copy()
    assert q["a"] is p["a"]
    both = p | nn.ParameterDict({"z": cf.tensor(5.0)})
    assert list(both) == ["b", "a", "z"]
    p |= both
    assert list(p) == ["b", "a", "z"]
    assert list(p.fromkeys(["u", "v"], 3).items()) == [("u", 3), ("v", 3)]
    assert "(b): Parameter containing: [float32 of size 1]" in repr(p)
    del p["b"]
    assert list(p.state_dict()) == ["a", "z"]
    p.clear()
    assert len(p) == 0 and not list(p.parameters())
    for act in (lambda: p["no"], lambda: p.__delitem__("no"), lambda: p.__setitem__("forward", 1)):
        with pytest.raises(KeyError):
            act()
    with pytest.raises(TypeError, match="a key must be a string"):
        p[3] = cf.ones(1)


@pytest.mark.parametrize("make", [
    lambda: nn.Sequential(*layers(2)), lambda: nn.ModuleList(layers(2)),
    lambda: nn.ModuleDict({"a": nn.Linear(1, 1)}), lambda: nn.ParameterList([cf.ones(2)]),
    lambda: nn.ParameterDict({"k": cf.ones(2)}),
])  # fmt: skip
def test_containers_copy_and_load(make):
    m = make()
    twin = copy.deepcopy(m)
    for p in twin.parameters():
        p.array[...] = 7
    assert not any((p.array == 7).all() for p in m.parameters())
    m.load_state_dict(twin.state_dict())
    assert all((p.array == 7).all() for p in m.parameters())
    assert m.double() is m and all(p.dtype == np.float64 for p in m.parameters())
