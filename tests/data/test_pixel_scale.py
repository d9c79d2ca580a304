"""Mean and std that pixels in 0..1 can't have are refused wherever they are given."""

import pytest

from n2n_edge._example import teacher_path
from n2n_edge.data.pixel_scale import check_mean_and_std, per_channel
from n2n_edge.errors import InputError
from n2n_edge.gating.budget_file import find_budget_file
from n2n_edge.runs.normalisation import MEAN_KEY, STD_KEY, metadata_normalisation
from n2n_edge.runs.settings import CompressSettings
from tests.gating.test_gate_command import _run

BAD = [
    ("nan", "1"), ("inf", "1"), ("1e400", "1"), ("-inf", "1"), ("0", "nan"), ("0", "inf"), ("0", "1e400"), ("0", "0"),
    ("0", "1e-320"), ("0", "-1"), ("123.675,116.28,103.53", "58.4,57.1,57.4"), ("127.5", "127.5"), ("0", "255"),
    ("33.3", "78.6"),
]  # fmt: skip


def values(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


@pytest.mark.parametrize(("mean", "std"), BAD)
def test_they_are_refused_at_once(tmp_path, monkeypatch, mean, std):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^(mean|std) "):
        CompressSettings(mean=values(mean), std=values(std))
    refused = _run(teacher_path(), "--no-config", "--max-mb", 1, f"--mean={mean}", f"--std={std}")
    assert isinstance(refused.exception, InputError)
    with pytest.raises(InputError, match="metadata"):
        metadata_normalisation({MEAN_KEY: f"[{mean}]".replace("inf", "Infinity").replace("nan", "NaN"),
                                STD_KEY: f"[{std}]".replace("inf", "Infinity").replace("nan", "NaN")}, 3)  # fmt: skip
    numbers = [f"[{text.replace('1e400', 'inf')}]" for text in (mean, std)]
    (tmp_path / "n2n-edge.toml").write_text(f"[gate]\nmean = {numbers[0]}\nstd = {numbers[1]}\n")
    with pytest.raises(InputError, match=r"n2n-edge\.toml.*(mean|std)"):
        find_budget_file(tmp_path)


def test_values_for_bytes_are_told_from_those_for_fractions():
    with pytest.raises(InputError, match=r"mean 123\.675: pixels are in 0\.\.1.*divide by 255: 0\.485"):
        check_mean_and_std((123.675, 116.28, 103.53), (58.4, 57.1, 57.4))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0,), (1 / 65535,)), ((-0.5,), (1.0,))]
)
def test_usual_ones_pass(mean, std):
    check_mean_and_std(mean, std)
    assert per_channel("mean", mean, 3) == (mean if len(mean) == 3 else mean * 3)
