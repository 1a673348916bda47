"""What is inside messages, as arrays and bytes; no ROS. Anything with a message's fields will do."""
