"""The built-in example: scikit-learn's 1,797 scanned digits, 8x8 upscaled to 16x16."""

import numpy as np
from PIL import Image

from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source, fit_all
from n2n_edge.errors import InputError

__all__ = ["read"]

_SIZE = 16
_SPLIT_SEED = 0
_TRAIN, _VALIDATION = 0.7, 0.1


def read(spec: str, input_shape: tuple[int, int, int]) -> Source:
    """Read the digits, split by a fixed seed into 70% train, 10% validation, 20% test of each class alike."""
    if spec != "builtin:digits":
        raise InputError(f"no built-in data '{spec}': there is builtin:digits")
    if input_shape[0] != 1:
        raise InputError(f"data '{spec}' has 1 channel, but the teacher takes {input_shape[0]}: give it other data")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(f"data '{spec}' needs scikit-learn: run pip install \"n2n-edge[example]\"") from error
    digits = load_digits()
    small = np.rint(np.asarray(digits.images) * (255 / 16)).astype(np.uint8)  # the scans have 17 grey levels
    labels = np.asarray(digits.target, dtype=np.int64)
    large = [Image.fromarray(image).resize((_SIZE, _SIZE), Image.Resampling.BILINEAR) for image in small]
    fitting = Preprocessing(input_shape[1:], channels=1)
    images = fit_all(np.stack([np.asarray(image) for image in large])[..., np.newaxis], fitting)

    random = np.random.RandomState(_SPLIT_SEED)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for digit in range(10):
        members = random.permutation(np.flatnonzero(labels == digit))
        first, second = round(len(members) * _TRAIN), round(len(members) * (_TRAIN + _VALIDATION))
        for part, chosen in zip(parts, np.split(members, [first, second]), strict=True):
            part.extend(chosen.tolist())
    train, validation, test = (Samples(images[sorted(part)], labels[sorted(part)]) for part in parts)
    return Source(train, validation, test, tuple(str(digit) for digit in range(10)))
