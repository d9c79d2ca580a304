"""One small member of every pytorchcv family that takes images: its kind and the input it is given.

Chosen once, by the number of params, on the meta device; where the smallest member's file is larger than another's of
the same design (CIFAR heads), the ImageNet one stays, so that both appear. Segmentation networks are given smaller
images than Cityscapes' 1024x2048: their graphs stay the same.
"""

from typing import NamedTuple

__all__ = ["CLASSIFICATION", "FAMILIES", "OTHER", "Family"]


class Family(NamedTuple):
    """A family's name, its kind, the member tried and the size of its input (rows, columns)."""

    name: str
    kind: str
    member: str
    size: tuple[int, int]


_CLASSIFIERS = {
    "airnet": "airnet50_1x64d_r16", "airnext": "airnext50_32x4d_r2", "alexnet": "alexnetb", "bagnet": "bagnet9",
    "bamresnet": "bam_resnet18", "bninception": "bninception", "cbamresnet": "cbam_resnet18",
    "channelnet": "channelnet", "condensenet": "condensenet74_c8_g8", "darknet": "darknet_tiny",
    "darknet53": "darknet53", "darts": "darts", "densenet": "densenet121", "diapreresnet": "diapreresnet10",
    "diaresnet": "diaresnet10", "dicenet": "dicenet_wd5", "diracnetv2": "diracnet18v2", "dla": "dla46xc",
    "dpn": "dpn68", "drn": "drnd22", "efficientnet": "efficientnet_b0", "efficientnetedge": "efficientnet_edge_small_b",
    "espnetv2": "espnetv2_wd2", "fastseresnet": "fastseresnet101b", "fbnet": "fbnet_cb",
    "fdmobilenet": "fdmobilenet_wd4", "fishnet": "fishnet99", "ghostnet": "ghostnet", "hardnet": "hardnet39ds",
    "hrnet": "hrnet_w18_small_v1", "ibnbresnet": "ibnb_resnet50", "ibndensenet": "ibn_densenet121",
    "ibnresnet": "ibn_resnet50", "ibnresnext": "ibn_resnext50_32x4d", "igcv3": "igcv3_wd4",
    "inceptionresnetv1": "inceptionresnetv1", "inceptionresnetv2": "inceptionresnetv2", "inceptionv3": "inceptionv3",
    "inceptionv4": "inceptionv4", "irevnet": "irevnet301", "isqrtcovresnet": "isqrtcovresnet18",
    "menet": "menet108_8x1_g3", "mixnet": "mixnet_s", "mnasnet": "mnasnet_small", "mobilenet": "mobilenet_wd4",
    "mobilenetb": "mobilenetb_wd4", "mobilenetv2": "mobilenetv2b_wd4", "mobilenetv3": "mobilenetv3_small_w7d20",
    "msdnet": "msdnet22", "nasnet": "nasnet_4a1056", "octresnet": "octresnet10_ad2", "peleenet": "peleenet",
    "pnasnet": "pnasnet5large", "polynet": "polynet", "preresnet": "preresnet18_wd4",
    "proxylessnas": "proxylessnas_mobile", "pyramidnet": "pyramidnet101_a360", "regnet": "regnetx002",
    "resattnet": "resattnet56", "resnesta": "resnestabc14", "resnet": "resnet18_wd4", "resneta": "resneta10",
    "resnetd": "resnetd50b", "resnext": "resnext14_32x2d", "revnet": "revnet38", "scnet": "scnet50",
    "selecsls": "selecsls42", "senet": "senet16", "sepreresnet": "sepreresnet10", "seresnet": "seresnet10",
    "seresnext": "seresnext50_32x4d", "sharesnet": "sharesnet18", "shufflenet": "shufflenet_g3_wd4",
    "shufflenetv2": "shufflenetv2_wd2", "shufflenetv2b": "shufflenetv2b_wd2", "sknet": "sknet50",
    "sparsenet": "sparsenet121", "spnasnet": "spnasnet", "squeezenet": "squeezenet_v1_1", "squeezenext": "sqnxt23_w1",
    "tresnet": "tresnet_m", "vgg": "vgg11", "vovnet": "vovnet27s", "wrn": "wrn50_2", "xception": "xception",
    "xdensenet": "xdensenet121_2", "zfnet": "zfnet",
}  # fmt: skip
_CIFAR_CLASSIFIERS = {
    "densenet_cifar": "densenet40_k12_bc_cifar10", "diapreresnet_cifar": "diapreresnet20_cifar10",
    "diaresnet_cifar": "diaresnet20_cifar10", "fractalnet_cifar": "fractalnet_cifar10",
    "msdnet_cifar10": "msdnet22_cifar10", "nin_cifar": "nin_cifar10", "preresnet_cifar": "preresnet20_cifar10",
    "pyramidnet_cifar": "pyramidnet110_a48_cifar10", "resdropresnet_cifar": "resdropresnet20_cifar10",
    "resnet_cifar": "resnet20_cifar10", "resnext_cifar": "resnext20_32x2d_cifar10", "rir_cifar": "rir_cifar10",
    "ror_cifar": "ror3_56_cifar10", "sepreresnet_cifar": "sepreresnet20_cifar10",
    "seresnet_cifar": "seresnet20_cifar10", "shakedropresnet_cifar": "shakedropresnet20_cifar10",
    "shakeshakeresnet_cifar": "shakeshakeresnet20_2x16d_cifar10", "wrn1bit_cifar": "wrn20_10_1bit_cifar10",
    "wrn_cifar": "wrn16_10_cifar10", "xdensenet_cifar": "xdensenet40_2_k24_bc_cifar10",
}  # fmt: skip
_BIRDS = {
    "mobilenet_cub": "fdmobilenet_wd4_cub", "proxylessnas_cub": "proxylessnas_mobile_cub", "resnet_cub": "resnet10_cub",
    "seresnet_cub": "seresnet10_cub", "ntsnet_cub": "ntsnet_cub",
}  # fmt: skip
_SEGMENTATION = {
    "bisenet": ("bisenet_resnet18_celebamaskhq", 320), "cgnet": ("cgnet_cityscapes", 256),
    "contextnet": ("ctxnet_cityscapes", 256), "dabnet": ("dabnet_cityscapes", 256),
    "danet": ("danet_resnetd50b_cityscapes", 192), "deeplabv3": ("deeplabv3_resnetd50b_cityscapes", 192),
    "edanet": ("edanet_cityscapes", 256), "enet": ("enet_cityscapes", 256), "erfnet": ("erfnet_cityscapes", 256),
    "esnet": ("esnet_cityscapes", 256), "espcnet": ("espcnet_cityscapes", 256),
    "fastscnn": ("fastscnn_cityscapes", 192),
    "fcn8sd": ("fcn8sd_resnetd50b_cityscapes", 192), "fpenet": ("fpenet_cityscapes", 256),
    "icnet": ("icnet_resnetd50b_cityscapes", 256), "lednet": ("lednet_cityscapes", 256),
    "linknet": ("linknet_cityscapes", 256), "pspnet": ("pspnet_resnetd50b_cityscapes", 192),
    "segnet": ("segnet_cityscapes", 256), "sinet": ("sinet_cityscapes", 256), "sqnet": ("sqnet_cityscapes", 256),
    "unet": ("unet_cityscapes", 256),
}  # fmt: skip
_DETECTION = {"centernet": ("centernet_resnet18_voc", 256), "lffd": ("lffd20x5s320v2_widerface", 256)}
_POSE = {
    "alphapose_coco": ("alphapose_fastseresnet101b_coco", (256, 192)), "ibppose_coco": ("ibppose_coco", (256, 256)),
    "lwopenpose_cmupan": ("lwopenpose2d_mobilenet_cmupan_coco", (256, 256)),
    "simplepose_coco": ("simplepose_resnet18_coco", (256, 192)),
    "simpleposemobile_coco": ("simplepose_mobile_mobilenetv3_small_w1_coco", (256, 192)),
}  # fmt: skip
_FACE = {"prnet": ("prnet", (256, 256))}

_INCEPTION = {"inceptionresnetv1", "inceptionresnetv2", "inceptionv3", "inceptionv4", "xception"}
_SIZES = {"pnasnet": 331, "polynet": 331, "ntsnet_cub": 448} | dict.fromkeys(_INCEPTION, 299)


def _square(size: int) -> tuple[int, int]:
    return (size, size)


CLASSIFICATION = (
    *(Family(name, "classification", member, _square(_SIZES.get(name, 224))) for name, member in _CLASSIFIERS.items()),
    *(Family(name, "classification", member, _square(32)) for name, member in _CIFAR_CLASSIFIERS.items()),
    *(Family(name, "classification", member, _square(_SIZES.get(name, 224))) for name, member in _BIRDS.items()),
)
OTHER = (
    *(Family(name, "segmentation", member, _square(size)) for name, (member, size) in _SEGMENTATION.items()),
    *(Family(name, "detection", member, _square(size)) for name, (member, size) in _DETECTION.items()),
    *(Family(name, "pose", member, size) for name, (member, size) in _POSE.items()),
    *(Family(name, "face", member, size) for name, (member, size) in _FACE.items()),
)
FAMILIES = tuple(sorted((*CLASSIFICATION, *OTHER), key=lambda family: family.name))
