"""Rollouts with vLLM: in a child process, in process, or on servers."""
