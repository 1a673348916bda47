"""Bags without ROS: `d2a2 bag`. A rosbag2 in (mcap or sqlite3), the same bag with upsampled topics out.

Writing, and what messages look like, is the `rosbags` library's, which is imported only when a bag is opened. Files are read here
(:mod:`d2a2_core.bag.source`), since many bags of real recorders are not as the library expects them.
"""

from d2a2_core.bag.convert import upsample_bag
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.storage import BagError

__all__ = ["BagError", "BagOptions", "Summary", "upsample_bag"]
