"""The generator: the stock vLLM server with our gate as its middleware."""
