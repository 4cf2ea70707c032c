"""What the documentation of torch.nn 1.2 promises, as data: every class and function with parameters and defaults.

Signatures are written as documented. `added` names parameters that PyTorch has since put between the documented ones;
what it has appended needs no mention. `made` are arguments to build one with, `parameters` the shapes of the parameters
and buffers that it then has (documented under "Variables"), `unkept` the parameters of the constructor that are no
attributes of the same name.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

REQUIRED = object()


@dataclass(frozen=True)
class Entry:
    """One documented class or function, by its name below `cuframe`."""

    name: str
    signature: str
    made: tuple = ()
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unkept: str = ""
    methods: dict[str, str] = field(default_factory=dict)
    added: str = ""

    @property
    def documented(self) -> dict[str, Any]:
        return parse(self.signature)


def parse(signature: str) -> dict[str, Any]:
    """`"(a, b=1)"` as {"a": REQUIRED, "b": 1}."""
    (function,) = ast.parse(f"def f{signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    args, defaults = function.args.args, function.args.defaults
    values = [REQUIRED] * (len(args) - len(defaults)) + [_value(d) for d in defaults]
    return {a.arg: v for a, v in zip(args, values)}


def _value(node: ast.expr) -> Any:
    return ast.literal_eval(node)


def _recurrent(gates: int) -> dict[str, tuple[int, ...]]:
    """Two layers, both directions, input 10, hidden 20."""
    rows = 20 * gates
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, width in ((0, 10), (1, 40)):
        for direction in ("", "_reverse"):
            shapes[f"weight_ih_l{layer}{direction}"] = (rows, width)
            shapes[f"weight_hh_l{layer}{direction}"] = (rows, 20)
            shapes[f"bias_ih_l{layer}{direction}"] = (rows,)
            shapes[f"bias_hh_l{layer}{direction}"] = (rows,)
    return shapes


def _cell(gates: int) -> dict[str, tuple[int, ...]]:
    rows = 20 * gates
    return {"weight_ih": (rows, 10), "weight_hh": (rows, 20), "bias_ih": (rows,), "bias_hh": (rows,)}


_TWO_LAYERS = (10, 20, 2, True, False, 0.0, True)
_STATISTICS: dict[str, tuple[int, ...]] = {"running_mean": (6,), "running_var": (6,), "num_batches_tracked": ()}
_AFFINE: dict[str, tuple[int, ...]] = {"weight": (6,), "bias": (6,)}
_MASKS = (
    "src_mask=None, tgt_mask=None, memory_mask=None, src_key_padding_mask=None, tgt_key_padding_mask=None, "
    "memory_key_padding_mask=None"
)
_DECODER_MASKS = "tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None, memory_key_padding_mask=None"
_LOSS = "size_average=None, reduce=None, reduction='mean'"
_OLD = "size_average reduce"

RECURRENT = [
    Entry(
        "nn.RNN",
        "(input_size, hidden_size, num_layers=1, nonlinearity='tanh', bias=True, batch_first=False, dropout=0.0, "
        "bidirectional=False)",
        (10, 20, 2, "tanh", True, False, 0.0, True), _recurrent(1), methods={"forward": "(input, hx=None)"},
    ),
    Entry(
        "nn.LSTM",
        "(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False)",
        _TWO_LAYERS, _recurrent(4), methods={"forward": "(input, hx=None)"},
    ),
    Entry(
        "nn.GRU",
        "(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False)",
        _TWO_LAYERS, _recurrent(3), methods={"forward": "(input, hx=None)"},
    ),
    Entry("nn.RNNCell", "(input_size, hidden_size, bias=True, nonlinearity='tanh')", (10, 20), _cell(1),
          methods={"forward": "(input, hx=None)"}),
    Entry("nn.LSTMCell", "(input_size, hidden_size, bias=True)", (10, 20), _cell(4),
          methods={"forward": "(input, hx=None)"}),
    Entry("nn.GRUCell", "(input_size, hidden_size, bias=True)", (10, 20), _cell(3),
          methods={"forward": "(input, hx=None)"}),
]  # fmt: skip

TRANSFORMER = [
    Entry(
        "nn.Transformer",
        "(d_model=512, nhead=8, num_encoder_layers=6, num_decoder_layers=6, dim_feedforward=2048, dropout=0.1, "
        "custom_encoder=None, custom_decoder=None)",
        (8, 2, 1, 1, 16),
        unkept="num_encoder_layers num_decoder_layers dim_feedforward dropout custom_encoder custom_decoder",
        methods={"forward": f"(src, tgt, {_MASKS})", "generate_square_subsequent_mask": "(sz)"},
        added="activation",
    ),
    Entry("nn.TransformerEncoder", "(encoder_layer, num_layers, norm=None)", unkept="encoder_layer",
          methods={"forward": "(src, mask=None, src_key_padding_mask=None)"}),
    Entry("nn.TransformerDecoder", "(decoder_layer, num_layers, norm=None)", unkept="decoder_layer",
          methods={"forward": f"(tgt, memory, {_DECODER_MASKS})"}),
    Entry("nn.TransformerEncoderLayer", "(d_model, nhead, dim_feedforward=2048, dropout=0.1)", (8, 2, 16),
          unkept="d_model nhead dim_feedforward",
          methods={"forward": "(src, src_mask=None, src_key_padding_mask=None)"}),
    Entry("nn.TransformerDecoderLayer", "(d_model, nhead, dim_feedforward=2048, dropout=0.1)", (8, 2, 16),
          unkept="d_model nhead dim_feedforward", methods={"forward": f"(tgt, memory, {_DECODER_MASKS})"}),
]  # fmt: skip

LINEAR = [
    Entry("nn.Identity", "()", methods={"forward": "(input)"}),
    Entry("nn.Linear", "(in_features, out_features, bias=True)", (20, 30), {"weight": (30, 20), "bias": (30,)},
          methods={"forward": "(input)"}),
    Entry("nn.Bilinear", "(in1_features, in2_features, out_features, bias=True)", (20, 30, 40),
          {"weight": (40, 20, 30), "bias": (40,)}, methods={"forward": "(input1, input2)"}),
]  # fmt: skip

DROPOUT = [
    Entry(f"nn.{name}", "(p=0.5, inplace=False)", (0.2,), methods={"forward": "(input)"})
    for name in ("Dropout", "Dropout2d", "Dropout3d", "AlphaDropout")
]

NORMALISATION = [
    *(
        Entry(f"nn.BatchNorm{d}d", "(num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)",
              (6,), {**_AFFINE, **_STATISTICS}, methods={"forward": "(input)"})
        for d in (1, 2, 3)
    ),
    Entry("nn.GroupNorm", "(num_groups, num_channels, eps=1e-05, affine=True)", (3, 6), _AFFINE,
          methods={"forward": "(input)"}),
    Entry(
        "nn.SyncBatchNorm",
        "(num_features, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, process_group=None)",
        (6,), {**_AFFINE, **_STATISTICS},
        methods={"forward": "(input)", "convert_sync_batchnorm": "(module, process_group=None)"},
    ),
    *(
        Entry(f"nn.InstanceNorm{d}d", "(num_features, eps=1e-05, momentum=0.1, affine=False, "
              "track_running_stats=False)", (6,), methods={"forward": "(input)"})
        for d in (1, 2, 3)
    ),
    Entry("nn.LayerNorm", "(normalized_shape, eps=1e-05, elementwise_affine=True)", ((6,),), _AFFINE,
          methods={"forward": "(input)"}),
]  # fmt: skip

SPARSE = [
    Entry(
        "nn.Embedding",
        "(num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, "
        "sparse=False, _weight=None)",
        (10, 3), {"weight": (10, 3)}, unkept="_weight",
        methods={
            "forward": "(input)",
            "from_pretrained": "(embeddings, freeze=True, padding_idx=None, max_norm=None, norm_type=2.0, "
            "scale_grad_by_freq=False, sparse=False)",
        },
    ),
    Entry(
        "nn.EmbeddingBag",
        "(num_embeddings, embedding_dim, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode='mean', "
        "sparse=False, _weight=None)",
        (10, 3), {"weight": (10, 3)}, unkept="_weight",
        methods={
            "forward": "(input, offsets=None, per_sample_weights=None)",
            "from_pretrained": "(embeddings, freeze=True, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, "
            "mode='mean', sparse=False)",
        },
    ),
]  # fmt: skip

DISTANCE = [
    Entry("nn.CosineSimilarity", "(dim=1, eps=1e-08)", methods={"forward": "(x1, x2)"}),
    Entry("nn.PairwiseDistance", "(p=2.0, eps=1e-06, keepdim=False)", methods={"forward": "(x1, x2)"},
          unkept="p"),
]  # fmt: skip

_PAIR = {"forward": "(input, target)"}
_WEIGHTED = f"(weight=None, {_LOSS})"
_CLASSES = "(weight=None, size_average=None, ignore_index=-100, reduce=None, reduction='mean')"
_TWO = {"forward": "(input1, input2, target)"}

LOSSES = [
    *(
        Entry(f"nn.{name}", f"({_LOSS})", unkept=_OLD, methods=_PAIR)
        for name in (
            "L1Loss", "MSELoss", "KLDivLoss", "MultiLabelMarginLoss", "SmoothL1Loss", "SoftMarginLoss",
        )
    ),
    *(
        Entry(f"nn.{name}", _WEIGHTED, unkept=_OLD, methods=_PAIR)
        for name in ("BCELoss", "MultiLabelSoftMarginLoss")
    ),
    Entry("nn.CrossEntropyLoss", _CLASSES, unkept=_OLD, methods=_PAIR),
    Entry("nn.NLLLoss", _CLASSES, unkept=_OLD, methods=_PAIR),
    Entry("nn.CTCLoss", "(blank=0, reduction='mean', zero_infinity=False)",
          methods={"forward": "(log_probs, targets, input_lengths, target_lengths)"}),
    Entry(
        "nn.PoissonNLLLoss",
        "(log_input=True, full=False, size_average=None, eps=1e-08, reduce=None, reduction='mean')",
        unkept=_OLD, methods={"forward": "(log_input, target)"},
    ),
    Entry("nn.BCEWithLogitsLoss", f"(weight=None, {_LOSS}, pos_weight=None)", unkept=_OLD, methods=_PAIR),
    Entry("nn.MarginRankingLoss", f"(margin=0.0, {_LOSS})", unkept=_OLD, methods=_TWO),
    Entry("nn.HingeEmbeddingLoss", f"(margin=1.0, {_LOSS})", unkept=_OLD, methods=_PAIR),
    Entry("nn.CosineEmbeddingLoss", f"(margin=0.0, {_LOSS})", unkept=_OLD, methods=_TWO),
    Entry("nn.MultiMarginLoss", f"(p=1, margin=1.0, weight=None, {_LOSS})", unkept=_OLD, methods=_PAIR),
    Entry("nn.TripletMarginLoss", f"(margin=1.0, p=2.0, eps=1e-06, swap=False, {_LOSS})", unkept=_OLD,
          methods={"forward": "(anchor, positive, negative)"}),
    Entry(
        "nn.AdaptiveLogSoftmaxWithLoss", "(in_features, n_classes, cutoffs, div_value=4.0, head_bias=False)",
        (16, 20, [5, 10]),
        {"head.weight": (7, 16), "tail.0.0.weight": (4, 16), "tail.0.1.weight": (5, 4), "tail.1.0.weight": (1, 16),
         "tail.1.1.weight": (10, 1)},
        methods={"forward": "(input, target)", "log_prob": "(input)", "predict": "(input)"},
    ),
]  # fmt: skip

VISION = [
    Entry("nn.PixelShuffle", "(upscale_factor)", (3,), methods={"forward": "(input)"}),
    Entry("nn.Upsample", "(size=None, scale_factor=None, mode='nearest', align_corners=None)", (4,),
          methods={"forward": "(input)"}),
    Entry("nn.UpsamplingNearest2d", "(size=None, scale_factor=None)", (4,), methods={"forward": "(input)"}),
    Entry("nn.UpsamplingBilinear2d", "(size=None, scale_factor=None)", (4,), methods={"forward": "(input)"}),
]

UTILITIES = [
    Entry("nn.utils.clip_grad_norm_", "(parameters, max_norm, norm_type=2)"),
    Entry("nn.utils.clip_grad_value_", "(parameters, clip_value)"),
    Entry("nn.utils.parameters_to_vector", "(parameters)"),
    Entry("nn.utils.vector_to_parameters", "(vec, parameters)"),
    Entry("nn.utils.weight_norm", "(module, name='weight', dim=0)"),
    Entry("nn.utils.remove_weight_norm", "(module, name='weight')"),
    Entry("nn.utils.spectral_norm", "(module, name='weight', n_power_iterations=1, eps=1e-12, dim=None)"),
    Entry("nn.utils.remove_spectral_norm", "(module, name='weight')"),
    Entry("nn.utils.rnn.PackedSequence", "(data, batch_sizes=None, sorted_indices=None, unsorted_indices=None)"),
    Entry("nn.utils.rnn.pack_padded_sequence", "(input, lengths, batch_first=False, enforce_sorted=True)"),
    Entry("nn.utils.rnn.pad_packed_sequence",
          "(sequence, batch_first=False, padding_value=0.0, total_length=None)"),
    Entry("nn.utils.rnn.pad_sequence", "(sequences, batch_first=False, padding_value=0)"),
    Entry("nn.utils.rnn.pack_sequence", "(sequences, enforce_sorted=True)"),
]  # fmt: skip

PARALLEL = [
    Entry("nn.DataParallel", "(module, device_ids=None, output_device=None, dim=0)",
          parameters={"module.weight": (2, 2), "module.bias": (2,)}, unkept="device_ids"),
    Entry(
        "nn.parallel.DistributedDataParallel",
        "(module, device_ids=None, output_device=None, dim=0, broadcast_buffers=True, process_group=None, "
        "bucket_cap_mb=25, find_unused_parameters=False, check_reduction=False)",
        methods={"no_sync": "()"}, added="init_sync"),
]  # fmt: skip

# Under the headings of the documentation.
SECTIONS: dict[str, list[Entry]] = {
    "Recurrent layers": RECURRENT,
    "Transformer layers": TRANSFORMER,
    "Linear layers": LINEAR,
    "Dropout layers": DROPOUT,
    "Normalization layers": NORMALISATION,
    "Sparse layers": SPARSE,
    "Distance functions": DISTANCE,
    "Loss functions": LOSSES,
    "Vision layers": VISION,
    "Distributed": PARALLEL,
    "Utilities": UTILITIES,
}
ENTRIES = [entry for entries in SECTIONS.values() for entry in entries]
