"""Device profiles, where they are found, and what a model is predicted to cost on a device."""

from n2n_edge.devices.basis import Basis, input_pixels, latency_basis, threads_in_words
from n2n_edge.devices.calibration_run import CalibrationRun, calibrate
from n2n_edge.devices.kernels import Kernels, kernels_of
from n2n_edge.devices.own_profiles import (
    ProfileText,
    check_writable,
    new_profile,
    profile_to_calibrate,
    save_calibrations,
)
from n2n_edge.devices.place import HOST_LIMITED, open_place, running_on
from n2n_edge.devices.prediction import (
    NodeLatency,
    Prediction,
    latency_evidence,
    latency_with_evidence,
    predict,
    predict_latency,
    predict_node_latencies,
)
from n2n_edge.devices.profile import Calibration, Precision, Profile
from n2n_edge.devices.registry import (
    list_profiles,
    load_profile,
    profile_errors,
    read_profile,
    user_profile_folder,
)

__all__ = [
    "HOST_LIMITED",
    "Basis",
    "Calibration",
    "CalibrationRun",
    "Kernels",
    "NodeLatency",
    "Precision",
    "Prediction",
    "Profile",
    "ProfileText",
    "calibrate",
    "check_writable",
    "input_pixels",
    "kernels_of",
    "latency_basis",
    "latency_evidence",
    "latency_with_evidence",
    "list_profiles",
    "load_profile",
    "new_profile",
    "open_place",
    "predict",
    "predict_latency",
    "predict_node_latencies",
    "profile_errors",
    "profile_to_calibrate",
    "read_profile",
    "running_on",
    "save_calibrations",
    "threads_in_words",
    "user_profile_folder",
]
