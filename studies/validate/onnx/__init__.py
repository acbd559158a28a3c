"""Imported networks beside onnxruntime."""
