"""What runs beside vLLM, in a process that knows nothing of training: the only room that imports vllm."""
