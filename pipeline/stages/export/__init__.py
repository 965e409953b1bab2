"""A trained model as ONNX graphs and a `torch.export` program, and ONNX Runtime as an engine that runs them."""
