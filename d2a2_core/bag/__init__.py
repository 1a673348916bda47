"""Bags without ROS: `d2a2 bag`. A rosbag2 in (mcap or sqlite3), the same bag with upsampled topics out.

Reading and writing is the `rosbags` library's, which is imported only when a bag is opened.
"""

from d2a2_core.bag.convert import upsample_bag
from d2a2_core.bag.options import BagOptions, Summary
from d2a2_core.bag.storage import BagError

__all__ = ["BagError", "BagOptions", "Summary", "upsample_bag"]
