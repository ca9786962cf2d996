"""What runs in the processes of vLLM, which know nothing of training. No other package imports vllm."""
