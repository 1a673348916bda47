"""What is fitted beside frozen weights: the uncertainty head, the ranges for int8."""
