"""Latency of candidates on one device: measured on this host, predicted for a board that isn't at hand."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import Amounts, Counted, counted
from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from n2n_edge.latency.model import GraphLatency, LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.conversion import Converted, read_by
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.runtimes import ConversionError
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.search.precision import Base, CandidatePrecision
from n2n_edge.search.store import Fact, Journal, JsonObject

__all__ = ["DeviceLatency"]

_HEADROOM = 0.96
"""Share of a measured latency budget that candidates may use: the same file timed again differs by a few percent."""

_FULL = 0.94
"""Share of that from which on a measured budget counts as used."""

_OVERSHOT = 1.01
"""By how much a correction is raised that let a candidate through which was too slow."""


class DeviceLatency:
    """Tells what architectures take on one device; the journal remembers what was timed.

    `timed` says that candidates are measured: the device is this host, and a budget or the objective asks for the
    latency. `limit` is what candidates may use of the budget, in ms, None where there is none.
    """

    def __init__(
        self,
        profile: Profile,
        teacher: Teacher,
        precision: CandidatePrecision,
        journal: Journal,
        worker: WarmWorker,
        *,
        budget: float | None,
        wanted: bool,
        accept_expected: bool,
    ) -> None:
        self.profile = profile
        self.timed = profile.is_host and wanted
        self.limit = None if budget is None else budget * (_HEADROOM if self.timed else 1.0)
        self._teacher = teacher
        self._precision = precision
        self._journal = journal
        self._worker = worker
        self._latency = LatencyModel(profile)
        self._by_expected = profile.is_host or accept_expected
        self._corrections: dict[Base, float] = {}  # measured over predicted, by what is removed and in int8

    @property
    def name(self) -> str:
        """The device's name."""
        return self.profile.name

    def predicted(self, candidate: Counted) -> Figure:
        """Return the predicted latency."""
        return self._latency.of_counted(candidate).figure

    def measured(self, architecture: Architecture, model: ir.Model) -> Figure | None:
        """Return the latency of a candidate on this host, timed once per architecture; None where it can't be run.

        A crash or a hang of the runtime is tried once more with a new worker; it fails this candidate alone. For
        another runtime than ONNX Runtime it is converted first, which fails it, too, unless it gives the same there.
        """
        key = f"{architecture.key}/{self.name}/{self.profile.default_threads}"
        if self.profile.runtime != ONNXRUNTIME:
            key += f"/{self.profile.runtime}"
        known = self._journal.cached(Fact.LATENCY, key)
        if known is None:
            known = self._timing(serialize(model))
            self._journal.store(Fact.LATENCY, key, known)
        return None if "failed" in known else Figure(**known)

    def of_graph(self, model: ir.Model, costs_at: WidthCosts) -> GraphLatency:
        """Return the latency of a base graph on the device, for `predicted_ms`."""
        return self._latency.of_graph(model, costs_at.plan.nodes)

    def predicted_ms(self, base: Base, graph: GraphLatency, amounts: Amounts) -> NDArray[np.float64]:
        """Return the latency in ms of many candidates of one `base`, `(N,)`, without building any.

        Of a board that isn't at hand it is the upper bound unless the expected value is accepted; on this host it is
        corrected by what was measured so far.
        """
        latencies = (graph.latencies_ms if self._by_expected else graph.upper_ms)(amounts)
        return latencies * self._correction(base)

    def correct(self, base: Base, measured: Figure, candidate: Counted) -> None:
        """Learn from a timing how far off what is predicted for this choice of layers is."""
        factor = _OVERSHOT if self.is_over(measured) else 1.0
        self._corrections[base] = measured.value / self.predicted(candidate).value * factor

    def is_over(self, measured: Figure) -> bool:
        """Whether a measured latency is more than candidates may use."""
        return self.limit is not None and measured.value > self.limit

    def is_used(self, measured: Figure) -> bool:
        """Whether a measured latency uses all but a little of what candidates may."""
        return self.limit is not None and measured.value >= _FULL * self.limit

    def _timing(self, model: bytes) -> JsonObject:
        options = BenchOptions(
            threads=self.profile.default_threads,
            providers=self.profile.providers,
            min_time_s=0.2,
            max_time_s=1.0,
            timeout_s=60.0,
        )
        if self.profile.runtime == ONNXRUNTIME:
            return self._timed(model, options)
        with TemporaryDirectory(prefix="n2n-edge-") as folder:
            path = Path(folder) / "candidate.onnx"
            path.write_bytes(model)
            try:
                with read_by(self.profile.runtime, path, options) as made:
                    return self._timed(made, options)
            except (ConversionError, MeasurementError, InputError) as error:
                return {"failed": str(error).replace(str(path), path.name)}

    def _timed(self, model: Path | bytes | Converted, options: BenchOptions) -> JsonObject:
        failure = ""
        for _ in range(2):
            try:
                return dict(self._worker.measure(model, options).latency().to_json())
            except (MeasurementError, InputError) as error:
                failure = str(error)
        return {"failed": failure}

    def _correction(self, base: Base) -> float:
        """Return measured over predicted latency: of this base, or of the one that is most like it."""
        if not self.timed:
            return 1.0
        if not self._corrections:
            for int8 in dict.fromkeys((frozenset[str](), self._precision.most)):
                self._corrections[Base(int8=int8)] = self._teacher_correction(int8)
        return self._corrections[min(self._corrections, key=base.distance)]

    def _teacher_correction(self, int8: frozenset[str]) -> float:
        full = self._teacher.full.in_int8(*int8)
        model = self._precision.shipped(build(self._teacher, full), int8)
        measured = self.measured(full, model)
        return 1.0 if measured is None else measured.value / self.predicted(counted(model)).value
