"""Device profiles, where they are found, and the latency their data sheets promise."""

from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.registry import list_profiles, load_profile, read_profile, user_profile_folder
from n2n_edge.devices.roofline import NodeLatency, predict_latencies, predict_latency, predict_node_latencies, roofline

__all__ = [
    "Calibration",
    "NodeLatency",
    "Profile",
    "list_profiles",
    "load_profile",
    "predict_latencies",
    "predict_latency",
    "predict_node_latencies",
    "read_profile",
    "roofline",
    "user_profile_folder",
]
