"""The boards of ncnn's table: which profile each stands for, and which rows are of other cores than the fastest."""

from collections.abc import Mapping
from dataclasses import dataclass

from n2n_edge.devices.profile import Profile

__all__ = ["BOARDS", "CHIPS", "STAND_INS", "Board", "chip_of", "stand_in"]


@dataclass(frozen=True)
class Board:
    """Rows whose device begins with `prefix`; `cpu` and `gpu` name profiles, or stand-ins for boards without one.

    Where a number of threads was timed twice, the faster block is of the big cores and the slower one of `little`, if
    there is one; all rows with `little_threads` threads are of it.
    """

    prefix: str
    cpu: str = ""
    gpu: str = ""
    little: str = ""
    little_threads: tuple[int, ...] = ()


BOARDS = (
    Board("Raspberry Pi 3 Model B+", "raspberry-pi-3b-plus"),
    Board("Raspberry Pi 4 Model B", "raspberry-pi-4"),
    Board("Raspberry Pi 5 Broadcom BCM2712,", "raspberry-pi-5"),
    Board("Raspberry Pi 5 Broadcom BCM2712 Overclock", "raspberry-pi-5-at-2900"),
    Board("Raspberry Pi Zero 2 W", "raspberry-pi-zero-2-w"),
    Board("NVIDIA Jetson Nano", "jetson-nano-cpu", "jetson-nano"),
    Board("NVIDIA Jetson TX2 NX", "jetson-tx2-cpu", "jetson-tx2"),
    Board("NVIDIA Jetson Orin Nano", "jetson-orin-nano-cpu", "jetson-orin-nano"),
    Board("NVIDIA Jetson AGX Orin", "jetson-agx-orin-cpu", "jetson-agx-orin"),
    Board("AMD Ryzen Embedded V1605B", "ryzen-embedded-v1605b", "ryzen-embedded-v1605b-gpu"),
    Board("Qualcomm SM8150-AC", "snapdragon-855-plus", "snapdragon-855-plus-gpu"),
    Board("Qualcomm MSM6150", "snapdragon-675"),
    Board("Kirin 970", "kirin-970", "kirin-970-gpu"),
    Board("Qualcomm MSM8998", "snapdragon-835", "snapdragon-835-gpu"),
    Board("Qualcomm SDM765G", "snapdragon-765g", "snapdragon-765g-gpu"),
    Board("Qualcomm SDM660", "snapdragon-660", "snapdragon-660-gpu"),
    Board("Qualcomm MSM8996", "snapdragon-821"),
    Board("Qualcomm MSM8994", "snapdragon-810", "snapdragon-810-gpu"),
    Board("Qualcomm MSM8916", "snapdragon-410"),
    Board("Qualcomm Snapdragon X Elite", "snapdragon-x-elite", "snapdragon-x-elite-gpu"),
    Board("Qualcomm SM8550", "snapdragon-8-gen-2", "snapdragon-8-gen-2-gpu"),
    Board("MediaTek Dimensity 9300", "dimensity-9300", "dimensity-9300-gpu", little="dimensity-9300-a720"),
    Board("Banana Pi M2 Zero", "banana-pi-m2-zero"),
    Board("Radxa Orion O6", "radxa-orion-o6"),
    Board("Avaota Aim T527", "avaota-aim-t527"),
    Board("Rockchip RK3588 (Cortex", "rk3588-older-ncnn", "rk3588-gpu", little="rk3588-a55"),
    Board("Rockchip RK3588 (Quad", "rk3588"),
    Board("Station-M3", "station-m3"),
    Board("Station P2", "station-p2"),
    Board("Rock3A", "rock-3a"),
    Board("Station-M2", "station-m2", "rk3566-gpu"),
    Board("Rockchip RK3399", "rk3399", "rk3399-gpu", little="rk3399-a53", little_threads=(4,)),
    Board("MYIR RemiPi", "renesas-rz-g2l"),
    Board("OrangePi4 LTS", "orange-pi-4-lts", little="orange-pi-4-lts-a53", little_threads=(4,)),
    Board("OrangePicm4", "orange-pi-cm4"),
    Board("OrangePi5, Rockchip", "orange-pi-5", little="orange-pi-5-a55"),
    Board("OrangePi5 Plus", "orange-pi-5-plus"),
    Board("RDK X3", "rdk-x3"),
    Board("NanoPi R2S", "nanopi-r2s"),
    Board("EAIDK 310", "eaidk-310"),
    Board("Rockchip RK3288", "rk3288", "rk3288-gpu"),
    Board("Freescale i.MX7", "imx7d"),
    Board("Z7-Lite 7020", "zynq-7020"),
    Board("Loongson 2K1000 (", "loongson-2k1000"),
    Board("Loongson 2K1000LA", "loongson-2k1000la"),
    Board("Loongson 2K2000", "loongson-2k2000"),
    Board("Loongson 3A3000", "loongson-3a3000"),
    Board("Loongson 3A4000", "loongson-3a4000"),
    Board("Loongson 3A5000", "loongson-3a5000"),
    Board("Loongson 3A6000", "loongson-3a6000"),
    Board("Phytium FT-2000/4", "phytium-ft-2000-4"),
    Board("Phytium FT-2000+", "phytium-ft-2000-plus"),
    Board("PhytiumPi", "phytium-pi"),
    Board("Intel Atom x5", "atom-x5-z8350", "atom-x5-z8350-gpu"),
    Board("Intel Celeron N5105", "celeron-n5105", "celeron-n5105-gpu"),
    Board("AMD Ryzen 5700g", "ryzen-5700g"),
    Board("AXERA AX620A", "ax620a"),
    Board("AXERA AX630C", "ax630c"),
    Board("VisionFive2", "visionfive-2", "visionfive-2-gpu"),
    Board("T-Head TH1520", "th1520", "th1520-gpu"),
    Board("CVITEK SG2000", "sg2000"),
    Board("Spacemit MUSE", "spacemit-m1", "spacemit-m1-gpu"),
    Board("Amlogic S805", "amlogic-s805"),
    Board("Arduino UNO Q", "arduino-uno-q"),
)
"""In the order of profiles. Left out: the Celeron M 420, the Hi3519V101 and the T40XP, which nobody buys for this; the
Pi's GPU rows, which ran in software on its CPU; the Radxa Orion O6's and the Station M3's GPUs, whose rows contradict
each other (AlexNet in a fifth of SqueezeNet's time)."""

STAND_INS: Mapping[str, tuple[str, float, str]] = {
    "raspberry-pi-3b": ("cortex-a53", 1200, "cortex-a53"),
    "raspberry-pi-5-at-2900": ("raspberry-pi-5", 2900, "cortex-a76"),
    "rk3588-older-ncnn": ("rk3588", 2400, "cortex-a76"),
    "rk3588-a55": ("cortex-a55", 1800, "cortex-a55"),
    "orange-pi-5-a55": ("cortex-a55", 1800, "cortex-a55"),
    "rk3399-a53": ("cortex-a53", 1500, "cortex-a53"),
    "orange-pi-4-lts-a53": ("cortex-a53", 1500, "cortex-a53"),
    "dimensity-9300-a720": ("radxa-orion-o6", 2000, "cortex-a720"),
}
"""Devices that are judged and pooled but ship no profile: whose data sheet is taken, the clock, and the core."""

CHIPS: Mapping[str, str] = {
    "rk3588-older-ncnn": "rk3588", "orange-pi-5": "rk3588", "orange-pi-5-plus": "rk3588", "station-m3": "rk3588",
    "rk3588-a55": "rk3588", "orange-pi-5-a55": "rk3588", "rock-3a": "rk3568", "station-p2": "rk3568",
    "station-m2": "rk3566", "orange-pi-cm4": "rk3566", "orange-pi-4-lts": "rk3399", "rk3399-a53": "rk3399",
    "orange-pi-4-lts-a53": "rk3399", "raspberry-pi-5-at-2900": "raspberry-pi-5",
    "dimensity-9300-a720": "dimensity-9300", "eaidk-310": "rk3328", "nanopi-r2s": "rk3328",
    "raspberry-pi-zero-2-w": "bcm2837", "raspberry-pi-3b-plus": "bcm2837", "raspberry-pi-3b": "bcm2837",
}  # fmt: skip
"""The chips that several boards share: where a board is left out, all with its chip are."""


def chip_of(device: str) -> str:
    """Return what is left out together with a device."""
    return CHIPS.get(device, device)


def stand_in(name: str, like: Profile) -> Profile:
    """Return the profile of a device that ships none, from the one that it is like."""
    _, clock, core = STAND_INS[name]
    faster = clock / like.clock_mhz
    changes = {"name": name, "clock_mhz": float(clock), "peak_gflops": like.peak_gflops * faster, "core": core}
    if like.peak_fp16_gflops is not None:
        changes["peak_fp16_gflops"] = like.peak_fp16_gflops * faster
    return like.model_copy(update=changes)
