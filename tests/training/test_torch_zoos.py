"""Networks of torchvision and timm from their names to half of their widths; ``make test-zoos`` runs them."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.zoos]

for library in ("torchvision", "timm"):
    try:
        import_module(library)
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch
        pytest.skip(f"{library} can't be imported here ({str(error).splitlines()[0]})", allow_module_level=True)

sys.path.insert(0, str(ROOT / "benchmarks" / "coverage"))

judge, table, torch_zoos = map(import_module, ("judge", "table", "torch_zoos"))

pytestmark.append(pytest.mark.filterwarnings("ignore"))  # of the zoos' own


@pytest.mark.parametrize("name", torch_zoos.specs())
def test_a_network_is_exported_cut_and_computed_alike(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    torch_zoos.export(torch_zoos.specs()[name], path)

    row = judge.judge(path)

    assert table.passed(row), table.verdict(row)
