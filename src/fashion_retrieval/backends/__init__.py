"""Models computed by OpenVINO or ONNX Runtime instead of torch."""
