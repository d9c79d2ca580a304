"""Time models under ONNX Runtime, ncnn and OpenVINO in turns, with parity, and single classes of kernels likewise.

python benchmarks/runtimes/measure.py FOLDER_OF_MODELS... --out benchmarks/runtimes/results.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RUNTIMES = ("onnxruntime", "ncnn", "openvino")
LAYERS = 8
MODELS = (
    "angle-net", "pfld", "lprnet", "face-quality", "mlperftiny_ic_resnet8_fp32", "mlperftiny_vww_mbv1_025_fp32",
    "ultraface_RFB-320", "palm", "selfie", "fastestdet", "yolox-nano", "ppocrv3-det-en", "mlperftiny_kws_dscnn_int8",
    "deimv2-atto", "sinet", "antispoof",
)  # fmt: skip


def kernel_models(folder: Path) -> list[Path]:
    """Write a chain of eight equal layers for each class of kernel."""
    rng = np.random.default_rng(0)
    convolutions = {"convolution 1x1": (1, 1), "convolution 3x3": (3, 1), "depthwise 3x3": (3, 64)}
    written = []
    for name in (*convolutions, "Gemm", "elementwise"):
        shape = [1, 512] if name == "Gemm" else [1, 64, 56, 56]
        nodes, weights, value = [], [], "x"
        for place in range(LAYERS):
            result, weight = f"v{place}", f"w{place}"
            if name in convolutions:
                size, groups = convolutions[name]
                array = rng.standard_normal((64, 64 // groups, size, size)) / (64 // groups * size * size) ** 0.5
                nodes.append(
                    helper.make_node(
                        "Conv", [value, weight], [result], kernel_shape=[size, size], group=groups,
                        pads=[size // 2] * 4,
                    )
                )  # fmt: skip
            elif name == "Gemm":
                array = rng.standard_normal((512, 512)) / 512**0.5
                nodes.append(helper.make_node("Gemm", [value, weight], [result], transB=1))
            else:  # neither a runtime's fusion nor folding takes these together
                array = rng.standard_normal((1, 64, 1, 1))
                nodes.append(
                    helper.make_node("Sigmoid" if place % 2 else "Mul", [value, weight][: 2 - place % 2], [result])
                )
            weights.append(numpy_helper.from_array(array.astype(np.float32), weight))
            value = result
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
            [weight for weight in weights if weight.name in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        written.append(path)
    return written


def timed(model: Path, seconds: float) -> dict[str, object]:
    """Return what `bench` says of one model under every runtime."""
    command = [sys.executable, "-m", "n2n_edge", "bench", str(model), "--threads", "1", "--json"]
    command += ["--max-time", f"{seconds:g}", "--min-time", f"{min(0.05, seconds):g}"]
    for runtime in RUNTIMES:
        command += ["--runtime", runtime]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=900, check=False)
    if not done.stdout:
        return {"error": f"exit code {done.returncode}"}
    found: dict[str, object] = {}
    for runtime, row in zip(RUNTIMES, json.loads(done.stdout)["models"], strict=True):
        if "error" in row:
            found[runtime] = {"error": row["error"].split(": ", 1)[-1]}
            continue
        kept = {name: row[name]["value"] for name in ("p50_ms", "min_ms", "size_mb")}
        ratio = row.get("against_first", {}).get("ratio")
        found[runtime] = {
            "runtime": row["runtime"],
            **kept,
            **({"ratio": [ratio["value"], ratio["low"], ratio["high"]]} if ratio else {}),
            **({"largest_difference": row["parity"]["largest_difference"]} if "parity" in row else {}),
        }
    return found


def main() -> None:
    """Write the results after each model; rows that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seconds", type=float, default=0.3)
    given = parser.parse_args()
    found: dict[str, dict[str, object]] = {"kernels": {}, "models": {}}
    if given.out.exists():
        found |= json.loads(given.out.read_text(encoding="utf-8"))
    paths = {path.stem: path for folder in given.folders for path in sorted(folder.glob("*.onnx"))}
    with tempfile.TemporaryDirectory() as folder:
        chains = kernel_models(Path(folder))
        real = [paths[name] for name in MODELS if name in paths]
        for kind, models in (("models", real[:6]), ("kernels", chains), ("models", real[6:])):
            for model in models:
                if model.stem in found[kind]:
                    continue
                found[kind][model.stem] = timed(model, given.seconds)
                given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(model.stem, json.dumps(found[kind][model.stem]), flush=True)


if __name__ == "__main__":
    main()
