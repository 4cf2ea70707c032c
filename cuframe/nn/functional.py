"""Operations of networks as functions, under PyTorch's names. Each is defined in `cuframe.ops`; nothing is here."""

from ..ops.activation import *  # noqa: F403
from ..ops.activation import __all__ as _activation
from ..ops.activation_inplace import *  # noqa: F403
from ..ops.activation_inplace import __all__ as _activation_inplace
from ..ops.adaptive_pooling import *  # noqa: F403
from ..ops.adaptive_pooling import __all__ as _adaptive_pooling
from ..ops.attention import *  # noqa: F403
from ..ops.attention import __all__ as _attention
from ..ops.convolution import *  # noqa: F403
from ..ops.convolution import __all__ as _convolution
from ..ops.ctc import *  # noqa: F403
from ..ops.ctc import __all__ as _ctc
from ..ops.distance import *  # noqa: F403
from ..ops.distance import __all__ as _distance
from ..ops.dropout import *  # noqa: F403
from ..ops.dropout import __all__ as _dropout
from ..ops.elementwise import sigmoid as sigmoid
from ..ops.elementwise import tanh as tanh
from ..ops.embedding import *  # noqa: F403
from ..ops.embedding import __all__ as _embedding
from ..ops.embedding_bag import *  # noqa: F403
from ..ops.embedding_bag import __all__ as _embedding_bag
from ..ops.fold import *  # noqa: F403
from ..ops.fold import __all__ as _fold
from ..ops.linear import *  # noqa: F403
from ..ops.linear import __all__ as _linear
from ..ops.loss import *  # noqa: F403
from ..ops.loss import __all__ as _loss
from ..ops.mask import one_hot as one_hot
from ..ops.max_pooling import *  # noqa: F403
from ..ops.max_pooling import __all__ as _max_pooling
from ..ops.multi_head import *  # noqa: F403
from ..ops.multi_head import __all__ as _multi_head
from ..ops.multi_label import *  # noqa: F403
from ..ops.multi_label import __all__ as _multi_label
from ..ops.normalization import *  # noqa: F403
from ..ops.normalization import __all__ as _norm
from ..ops.padding import *  # noqa: F403
from ..ops.padding import __all__ as _padding
from ..ops.pairs import pdist as pdist
from ..ops.pooling import *  # noqa: F403
from ..ops.pooling import __all__ as _pooling
from ..ops.resize import *  # noqa: F403
from ..ops.resize import __all__ as _resize
from ..ops.shuffle import *  # noqa: F403
from ..ops.shuffle import __all__ as _shuffle
from ..ops.softmax import *  # noqa: F403
from ..ops.softmax import __all__ as _softmax

__all__ = sorted(
    ["one_hot", "pdist", "sigmoid", "tanh", *_activation, *_activation_inplace, *_adaptive_pooling, *_attention,
     *_convolution, *_ctc, *_distance, *_dropout, *_embedding, *_embedding_bag, *_fold, *_linear, *_loss, *_max_pooling,
     *_multi_head, *_multi_label, *_norm, *_padding, *_pooling, *_resize, *_shuffle, *_softmax]
)
