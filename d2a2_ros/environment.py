"""Environment of the package's processes: fast with images and on a busy CPU; to be set before they start."""

from __future__ import annotations

#: Name the XML profile that gives images room (config/fastdds.xml): Humble and Jazzy read the first, Kilted the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
PROCESS = {
    # Where another process keeps one core busy, PyTorch's threads otherwise spend their time spinning while they wait for the one
    # that is not running: up to twenty times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Image buffers come and go with every frame; without these glibc returns them to the kernel each time.
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
