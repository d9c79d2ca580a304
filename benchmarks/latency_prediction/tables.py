"""The public tables of measured latencies and energies, each model with the terms of its rebuilt graph."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.latency_prediction.boards import BOARDS, STAND_INS, stand_in
from benchmarks.latency_prediction.classifiers import CLASSIFIERS, mlperf_network, nasbench201
from benchmarks.latency_prediction.detectors import DETECTORS
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.profile_file import with_calibrations
from n2n_edge.devices.registry import read_profile
from n2n_edge.graph.costs import Amounts, NodeSpec, counted
from n2n_edge.latency.kernels import Kernels
from n2n_edge.latency.model import input_pixels

__all__ = ["NCNN_SOURCE", "PROFILES", "Row", "Table", "read_ncnn", "read_tables", "sheet_of"]

PROFILES = Path(__file__).parent.parent.parent / "profiles"

LEAST_ROWS = 4
"""Of a table that is worth a fit."""

NCNN_SOURCE = "ncnn's benchmark/README (https://github.com/Tencent/ncnn, BSD-3-Clause), least of several runs"
NAS_SOURCE = "NAS-Bench-201 cells, HW-NAS-Bench and LatBench (https://github.com/GATECH-EIC/HW-NAS-Bench, MIT)"
MLPERF_SOURCE = "MLPerf edge SingleStream, open division (https://github.com/mlcommons/cm4mlperf-results, Apache-2.0)"

MLPERF_SYSTEMS = {
    ("Raspberry Pi 4 Model B Rev 1.4 (rpi4)", "TFLite v2.7.1 (ruy)"): ("raspberry-pi-4", "TFLite 2.7.1", 4),
    ("Raspberry Pi 4 Model B Rev 1.4 (rpi4)", "ArmNN v21.11 (Neon)"): ("raspberry-pi-4", "ArmNN 21.11", 4),
    ("Raspberry Pi 3 Model B Rev 1.2 (rpi3)", "TFLite v2.7.1 (ruy)"): ("raspberry-pi-3b", "TFLite 2.7.1", 4),
    ("NVIDIA Jetson AGX Xavier", "ArmNN v21.11 (Neon)"): ("jetson-agx-xavier-cpu", "ArmNN 21.11", 8),
    ("NVIDIA Jetson AGX Xavier", "TFLite v2.7.1 (ruy)"): ("jetson-agx-xavier-cpu", "TFLite 2.7.1", 8),
}
"""Which of MLPerf's systems and frameworks are used; the threads are all cores, which the table doesn't say."""

NAS_COLUMNS = {
    "jetson_tx2_gpu_ms": ("jetson-tx2", "fp32"),
    "jetson_nano_gpu_fp32_ms": ("jetson-nano", "fp32"),
    "jetson_nano_gpu_fp16_ms": ("jetson-nano", "fp16"),
    "raspi4_ms": ("raspberry-pi-4", "fp32"),
}


@dataclass(frozen=True)
class Row:
    """One model and its measured value: ns, or nJ for energy; `terms` are those of its graph."""

    model: str
    family: str
    value: float
    terms: NDArray[np.float64]
    pixels: float
    macs: float
    launches: float
    moved: float


@dataclass(frozen=True)
class Table:
    """The rows of one device, runtime, number of threads and precision."""

    device: str
    quantity: str
    runtime: str
    threads: int
    precision: str
    rows: tuple[Row, ...]
    source: str

    @property
    def key(self) -> str:
        """A line that names the table."""
        return f"{self.device}, {self.quantity}, {self.runtime}, {self.threads} threads, {self.precision}"


@dataclass(frozen=True)
class _Graph:
    """A network's nodes and amounts; its terms depend on how many channels the device's kernels compute at once."""

    places: tuple[NodeSpec, ...]
    outputs: tuple[str, ...]
    amounts: Amounts
    pixels: float

    def row(self, model: str, family: str, value: float, block: int) -> Row:
        kernels, found = Kernels(self.places, self.outputs, block), self.amounts
        own = [index for index, placement in enumerate(kernels.placements) if placement == "kernel"]
        moved = found.node_input_bytes + found.node_output_bytes + found.node_weight_bytes
        return Row(
            model, family, value, kernels.terms(found)[:, 0], self.pixels, float(found.macs[0]), float(len(own)),
            float(moved[own].sum()),
        )  # fmt: skip


def read_tables(folder: Path) -> list[Table]:
    """Return every table of the folder that holds `ncnn_all.csv`, `nasbench201.csv` and `mlperf_edge.csv`."""
    return [
        *read_ncnn(folder / "ncnn_all.csv"),
        *_nasbench(folder / "nasbench201.csv"),
        *_mlperf(folder / "mlperf_edge.csv"),
    ]


def _graph(model: ir.Model) -> _Graph:
    found = counted(model)
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return _Graph(found.nodes, outputs, found.amounts, input_pixels(model))


@cache
def _named(model: str) -> _Graph:
    return _graph({**CLASSIFIERS, **DETECTORS}[model]())


@cache
def _member(family: str, width: float, resolution: int) -> _Graph:
    return _graph(mlperf_network(family, width, resolution))


@cache
def _cell(arch: str, zeros: str) -> _Graph:
    return _graph(nasbench201(arch, zeros=zeros))  # type: ignore[arg-type]


@cache
def sheet_of(device: str) -> Profile:
    """Return a device's profile as it is without the calibrations that a fit has written."""
    if device in STAND_INS:
        return stand_in(device, sheet_of(STAND_INS[device][0]))
    path = PROFILES / f"{device}.toml"
    return read_profile(path, with_calibrations(path.read_text(encoding="utf-8"), (), ""))


def _rows_of(path: Path) -> Iterable[Mapping[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def read_ncnn(path: Path) -> list[Table]:
    """Return ncnn's tables: of each board, number of threads and precision the fastest block of rows.

    A GPU's rows with one and with all CPU threads are joined: each model's least time. int8 rows of GPUs are left out:
    ncnn's Vulkan kernels have no int8, so these ran on the CPU. CPUs that can (Armv8.2) compute in fp16; the others
    only keep numbers so.
    """
    blocks = _blocks(path)
    found: dict[tuple[str, int, str], list[_Times]] = defaultdict(list)
    for board in BOARDS:
        of_board = [(key, times) for key, times in blocks if key[0].startswith(board.prefix)]
        for (_, backend, gpu, threads), times in of_board:
            if backend == "gpu" and gpu:
                if board.gpu:
                    found[board.gpu, sheet_of(board.gpu).default_threads, "gpu"].append(times)
                continue
            faster = min((each for key, each in of_board if key[1:] == (backend, gpu, threads)), key=_typical)
            slow = board.little and (times is not faster or threads in board.little_threads)
            device = board.little if slow else board.cpu
            found[device, min(threads, sheet_of(device).cores), "cpu"].append(times)
    return [
        table
        for (device, threads, unit), several in found.items()
        for table in _ncnn_tables(device, threads, unit, several)
    ]


_Times = dict[tuple[str, bool], float]
"""ns by a model and whether it is in int8."""


def _blocks(path: Path) -> list[tuple[tuple[str, str, str, int], _Times]]:
    """Return the rows in blocks of one run: a new one begins where the device changes or a model comes again."""
    blocks: list[tuple[tuple[str, str, str, int], _Times]] = []
    for row in _rows_of(path):
        key = (row["device"], row["backend"], row["gpu"], int(row["threads"]))
        model = (row["model"].removesuffix("_int8"), row["precision"] == "int8")
        if not blocks or blocks[-1][0] != key or model in blocks[-1][1]:
            blocks.append((key, {}))
        blocks[-1][1][model] = float(row["min_ms"]) * 1e6
    return blocks


def _typical(times: _Times) -> float:
    """Return the geometric mean over the models that every board ran."""
    return float(np.exp(np.mean([np.log(times[model, False]) for model in ("squeezenet", "mobilenet")])))


def _ncnn_tables(device: str, threads: int, unit: str, several: Sequence[_Times]) -> list[Table]:
    profile = sheet_of(device)
    chosen: _Times = min(several, key=_typical)
    if unit == "gpu":
        chosen = {model: min(times[model] for times in several if model in times) for model in chosen}
    tables = []
    for quantized in (False, True) if unit == "cpu" else (False,):
        rows = [(model, ns) for (model, int8), ns in chosen.items() if int8 == quantized]
        if len(rows) < LEAST_ROWS:
            continue
        half = unit == "cpu" and profile.peak_fp16_gflops is not None
        precision = "int8" if quantized else "fp16" if half else "fp32"
        found = tuple(_named(model).row(model, model, ns, profile.block) for model, ns in rows)
        runtime = "ncnn" if unit == "cpu" else "ncnn, Vulkan"
        tables.append(Table(device, "latency", runtime, threads, precision, found, NCNN_SOURCE))
    return tables


def _nasbench(path: Path) -> list[Table]:
    """Return the tables of NAS-Bench-201's cells; a family are those with equally many 3x3 convolutions.

    An operator that reads nothing but zeros is computed all the same on the TX2 and the Raspberry Pi, and folded on
    the Nano: architectures that differ in nothing else show it.
    """
    found: dict[str, list[Row]] = defaultdict(list)
    for row in _rows_of(path):
        for column, (device, _) in NAS_COLUMNS.items():
            if not row[column]:
                continue
            graph = _cell(row["arch"], "folded" if device == "jetson-nano" else "computed")
            family = f"{row['arch'].count('nor_conv_3x3')} 3x3"
            found[column].append(graph.row(row["arch"], family, float(row[column]) * 1e6, sheet_of(device).block))
    threads = {"jetson-tx2": 4, "jetson-nano": 4, "raspberry-pi-4": 4}
    return [
        Table(device, "latency", "HW-NAS-Bench's", threads[device], precision, tuple(found[column]), NAS_SOURCE)
        for column, (device, precision) in NAS_COLUMNS.items()
    ]


def _mlperf(path: Path) -> list[Table]:
    """Return MLPerf's tables; a model's least value counts where it was submitted more than once."""
    found: dict[tuple[str, str, int, str, str], dict[tuple[str, float, int], float]] = defaultdict(dict)
    for row in _rows_of(path):
        system = MLPERF_SYSTEMS.get((row["system"], row["framework"]))
        if system is None or row["precision"] not in ("fp32", "int8") or not row["resolution"]:
            continue
        device, runtime, threads = system
        model = (row["family"], float(row["width"]), int(row["resolution"]))
        for quantity, column in (("latency", "latency_ms_p90"), ("energy", "power")):
            if row[column] and (quantity == "latency" or row["power_units"] == "millijoules"):
                rows = found[device, runtime, threads, row["precision"], quantity]
                value = float(row[column]) * 1e6
                rows[model] = min(value, rows.get(model, value))
    return [
        Table(
            device, quantity, runtime, threads, precision,
            tuple(
                _member(*model).row(f"{model[0]} {model[1]:g} {model[2]}", model[0], value, sheet_of(device).block)
                for model, value in rows.items()
            ),
            MLPERF_SOURCE,
        )
        for (device, runtime, threads, precision, quantity), rows in found.items()
    ]  # fmt: skip
