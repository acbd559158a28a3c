"""What each operator of ONNX becomes, a module for each family of operators."""
