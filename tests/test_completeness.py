"""Nothing public without a docstring, type hints and a test: what is added must bring them along."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cuframe as cf
import cuframe.data
import cuframe.distributed
import cuframe.distributed.checkpoint
from tests.opinfo import FAMILIES, OP_DB
from tests.opinfo.core import OpInfo

ROOT = Path(__file__).parent.parent
SPACES: dict[str, ModuleType] = {
    "cuframe": cf,
    "cuframe.ops": cf.ops,
    "cuframe.nn": cf.nn,
    "cuframe.nn.functional": cf.nn.functional,
    "cuframe.nn.init": cf.nn.init,
    "cuframe.nn.parallel": cf.nn.parallel,
    "cuframe.nn.parallel.hooks": cf.nn.parallel.hooks,
    "cuframe.nn.utils": cf.nn.utils,
    "cuframe.nn.utils.parametrizations": cf.nn.utils.parametrizations,
    "cuframe.nn.utils.parametrize": cf.nn.utils.parametrize,
    "cuframe.nn.utils.rnn": cf.nn.utils.rnn,
    "cuframe.optim": cf.optim,
    "cuframe.optim.lr_scheduler": cf.optim.lr_scheduler,
    "cuframe.autograd": cf.autograd,
    "cuframe.autograd.functional": cf.autograd.functional,
    "cuframe.cuda": cf.cuda,
    "cuframe.data": cuframe.data,
    "cuframe.distributed": cuframe.distributed,
    "cuframe.distributed.checkpoint": cuframe.distributed.checkpoint,
}

# Public names that are no operations of the table, under the test file that covers them; with the module where an
# operation has the same name.
FILES: dict[str, str] = {
    "test_adaptive.py": (
        "AdaptiveLogSoftmaxWithLoss CosineSimilarity PairwiseDistance MultiLabelMarginLoss "
        "MultiLabelSoftMarginLoss MultiMarginLoss TripletMarginWithDistanceLoss"
    ),
    "test_attention.py": "MultiheadAttention",
    "test_autograd.py": (
        "enable_grad inference_mode is_grad_enabled is_inference_mode_enabled no_grad set_grad_enabled "
        "GradcheckError detect_anomaly gradcheck gradgradcheck is_anomaly_enabled set_detect_anomaly"
    ),
    "test_containers.py": "ModuleDict ModuleList ParameterDict ParameterList Sequential ReLU",
    "test_conv.py": (
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Fold Unfold"
    ),
    "test_ctc.py": "CTCLoss",
    "test_cuda_driver.py": (
        "Event Stream current_device current_stream device empty_cache get_device_name get_device_properties "
        "max_memory_allocated mem_get_info memory_allocated memory_reserved memory_stats reset_peak_memory_stats "
        "set_device stream synchronize kernel"
    ),
    "test_data.py": (
        "BatchSampler ConcatDataset DataLoader Dataset IterableDataset LengthBatchSampler RandomSampler "
        "SequentialSampler Subset SubsetRandomSampler TensorDataset WeightedRandomSampler WorkerInfo "
        "default_collate get_worker_info pad_collate random_split"
    ),
    "test_data_parallel.py": (
        "DataParallel data_parallel parallel_apply replicate nn.parallel.gather nn.parallel.scatter"
    ),
    "test_ddp.py": "DistributedDataParallel GradBucket",
    "test_ddp_data.py": "DistributedSampler",
    "test_ddp_options.py": (
        "Future PowerSGDState allreduce_hook bf16_compress_hook fp16_compress_hook powerSGD_hook"
    ),
    "test_distributed_checkpoint.py": "exists of_this_job distributed.checkpoint.load distributed.checkpoint.save",
    "test_distributed_run.py": "mark_step",
    "test_distributed_shm.py": (
        "ProcessGroup ReduceOp Work all_gather all_gather_into_tensor all_reduce barrier "
        "broadcast broadcast_object destroy_process_group get_backend get_global_rank get_group_rank get_local_rank "
        "get_process_group_ranks get_rank get_world_size init_process_group irecv is_initialized isend new_group recv "
        "reduce_scatter send shared_empty"
    ),
    "rank_helpers.py": "all_to_all all_to_all_single distributed.gather distributed.scatter reduce_scatter_tensor",
    "test_nccl.py": "P2POp batch_isend_irecv distributed.reduce",
    "test_distributed_store.py": "DistributedError DistributedTimeout Store",
    "test_dtypes.py": (
        "Device as_dtype get_default_dtype iinfo is_floating promote_types result_type set_default_dtype"
    ),
    "test_embedding_bag.py": "EmbeddingBag",
    "test_engine.py": "backward end_of_backward grad",
    "test_flatten.py": (
        "Flatten Unflatten celu_ elu_ hardtanh_ leaky_relu_ relu_ rrelu_ selu_ threshold_"
    ),
    "test_function.py": "Function FunctionCtx once_differentiable",
    "test_functional_derivatives.py": "hessian hvp jacobian jvp vhp vjp",
    "test_kernel_launch.py": "Kernel",
    "test_kernel_rnn_both.py": "allow_tf32 set_allow_tf32",
    "test_kernel_rnn_persistent.py": "persistent_limits",
    "test_sim_device.py": "device_count is_available set_sim_device_count sim_device_count",
    "test_init.py": (
        "calculate_gain constant_ dirac_ eye_ kaiming_normal_ kaiming_uniform_ ones_ orthogonal_ sparse_ "
        "trunc_normal_ xavier_normal_ xavier_uniform_ zeros_"
    ),
    "test_layers.py": (
        "CELU ELU GELU GLU SELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax "
        "Mish PReLU RReLU ReLU6 SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh "
        "Tanhshrink Threshold AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout "
        "Bilinear Identity BCELoss BCEWithLogitsLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss "
        "HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss NLLLoss PoissonNLLLoss "
        "SmoothL1Loss SoftMarginLoss TripletMarginLoss"
    ),
    "test_module.py": "Parameter Module Linear",
    "test_nn_utils.py": (
        "clip_grad_norm_ clip_grad_value_ clip_grads_with_norm_ get_total_norm parameters_to_vector skip_init "
        "ParametrizationList cached is_parametrized register_parametrization remove_parametrizations "
        "type_before_parametrizations "
        "vector_to_parameters invert_permutation pack_padded_sequence pack_sequence pad_packed_sequence "
        "pad_sequence unpack_sequence unpad_sequence"
    ),
    "test_norm.py": (
        "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d GroupNorm "
        "LayerNorm LocalResponseNorm RMSNorm SyncBatchNorm"
    ),
    "test_norm_hooks.py": "weight_norm remove_weight_norm spectral_norm remove_spectral_norm",
    "test_orthogonal.py": "orthogonal",
    "test_optim.py": (
        "Adadelta Adagrad Adam AdamW Adamax NAdam Optimizer RAdam RMSprop SGD SparseAdam"
    ),
    "test_padding.py": (
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d "
        "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d "
        "ZeroPad3d"
    ),
    "test_philox.py": "Generator initial_seed manual_seed seed finfo",
    "test_pooling.py": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d "
        "AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d LPPool3d MaxPool1d "
        "MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "test_random.py": "get_rng_state set_rng_state normal_ uniform_",
    "test_reference_examples.py": (
        "BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor LongTensor ShortTensor"
    ),
    "test_repr.py": "set_printoptions",
    "test_resize.py": (
        "ChannelShuffle PixelShuffle PixelUnshuffle Upsample UpsamplingBilinear2d UpsamplingNearest2d"
    ),
    "test_rnn_modules.py": "GRU LSTM RNN GRUCell LSTMCell RNNCell PackedSequence",
    "test_schedulers.py": (
        "ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR "
        "LRScheduler LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR "
        "ReduceLROnPlateau SequentialLR StepLR"
    ),
    "test_serialization.py": "load save",
    "test_sparse.py": "Embedding",
    "test_tensor.py": "Tensor",
    "test_torch_pt.py": "CheckpointError Size load_torch",
    "test_transformer.py": (
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder "
        "TransformerEncoderLayer"
    ),
}
COVERED_BY = {name: file for file, names in FILES.items() for name in names.split()}
# Bases that are tested through one of their kinds.
BASES = {"RNNBase": "LSTM", "RNNCellBase": "GRUCell", "Sampler": "RandomSampler"}


def public() -> Iterator[tuple[str, Any]]:
    """Functions and classes of the public namespaces, each once, under its first name."""
    seen: set[int] = set()
    for space, module in SPACES.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, ModuleType) or not callable(thing) or id(thing) in seen:
                continue
            if isinstance(thing, type) and issubclass(thing, np.generic):
                continue  # dtypes are NumPy's
            seen.add(id(thing))
            yield f"{space}.{name}", thing


PUBLIC = dict(public())
every = pytest.mark.parametrize("name", PUBLIC)


@every
def test_docstring(name: str) -> None:
    text = PUBLIC[name].__doc__ or ""
    assert len(text.strip()) >= 10, f"{name} has no docstring"


def unhinted(function: Any, where: str) -> list[str]:
    signature = inspect.signature(function)
    missing = [
        f"{where}({p.name})"
        for i, p in enumerate(signature.parameters.values())
        if p.annotation is p.empty and not (i == 0 and p.name in ("self", "cls"))
    ]
    if signature.return_annotation is signature.empty:
        missing.append(f"{where} -> ?")
    return missing


@every
def test_type_hints(name: str) -> None:
    thing = PUBLIC[name]
    if not isinstance(thing, type):
        assert not unhinted(thing, name)
        return
    missing = []
    for attribute, member in vars(thing).items():
        member = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        if inspect.isfunction(member) and (not attribute.startswith("_") or attribute == "__init__"):
            if member.__module__.startswith("cuframe.ops"):
                continue  # an operation as method is checked as function
            missing += unhinted(member, f"{name}.{attribute}")
    assert not missing


def words_of(path: Path) -> set[str]:
    return set(re.findall(r"\w+", path.read_text(encoding="utf-8")))


TESTS = ROOT / "tests"
WORDS = {path.name: words_of(path) for path in (*sorted(TESTS.glob("test_*.py")), TESTS / "rank_helpers.py")}


def entered(name: str) -> bool:
    """True if the table has an entry for this name or for the same function under another name."""
    entry = name.removeprefix("cuframe.").removeprefix("ops.")
    return any(info.name == entry or info.function is PUBLIC[name] for info in OP_DB)


@every
def test_tested(name: str) -> None:
    """By an entry of the table, or in the file that is named here, which must mention it."""
    short = name.rpartition(".")[2]
    if entered(name):
        return
    if short in BASES:
        kinds = [thing for key, thing in PUBLIC.items() if key.rpartition(".")[2] == BASES[short]]
        assert all(issubclass(kind, PUBLIC[name]) for kind in kinds) and kinds
        return
    file = COVERED_BY.get(name.removeprefix("cuframe."), COVERED_BY.get(short))
    assert file, f"{name} has neither an entry in tests/opinfo nor a test file named in FILES"
    assert file in WORDS, f"{name}: tests/{file} does not exist"
    assert short in WORDS[file], f"{name} is not mentioned in tests/{file}"


def test_list_is_not_stale() -> None:
    known = {known for name in PUBLIC for known in (name.rpartition(".")[2], name.removeprefix("cuframe."))}
    assert not sorted({*COVERED_BY, *BASES} - known), "in FILES, but not public"
    in_table = {name.rpartition(".")[2] for name in PUBLIC if entered(name)}
    assert not sorted(set(COVERED_BY) & in_table), "in FILES, and in the table"


def test_methods_of_tensor_have_docstrings() -> None:
    bare = [
        name
        for name, member in vars(cf.Tensor).items()
        if not name.startswith("_")
        and not inspect.ismemberdescriptor(member)
        and not (inspect.getdoc(member.fget if isinstance(member, property) else member) or "").strip()
    ]
    assert not bare


def test_entries_are_unique_and_whole() -> None:
    ids = [info.id for info in OP_DB]
    assert len(ids) == len(set(ids)), f"twice in the table: {sorted({i for i in ids if ids.count(i) > 1})}"
    for info in OP_DB:
        assert isinstance(info, OpInfo) and callable(info.function) and info.samples is not None, info.id
    for name, family in FAMILIES.items():
        assert family.OPS, f"tests/opinfo/{name}.py has no entries"


def test_every_method_that_takes_an_operation_in_place_exists() -> None:
    from cuframe.ops.methods import INPLACE

    missing = [f"{name}_" for name in INPLACE if not hasattr(cf.Tensor, f"{name}_")]
    assert not missing
