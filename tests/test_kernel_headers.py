"""The headers in kernels/common mean the same to NVRTC as to the simulator."""

from __future__ import annotations

import pytest

from cuframe.cuda import nvrtc
from cuframe.cuda.sources import read_source
from tests.sim_helpers import KERNELS
from tests.test_sim import ALL

pytestmark = pytest.mark.cupy


@pytest.mark.parametrize("arch", ["sm_75", "sm_90a"])
def test_every_feature_kernel_compiles_for_gpus(arch):
    source = read_source(KERNELS / "features.cu")
    made = nvrtc.compile_cubin(source.text, str(source.path), arch, ALL,
                               ("-default-device", *(f"-I{folder}" for folder in source.folders)))
    assert made.cubin[:4] == b"\x7fELF" and set(made.names) == set(ALL)
