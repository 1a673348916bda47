"""What computes a network: PyTorch, ONNX Runtime, OpenVINO; where, and in which precision."""
