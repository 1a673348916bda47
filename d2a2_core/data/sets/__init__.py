"""Published data sets: the benchmarks, NYUv2."""
