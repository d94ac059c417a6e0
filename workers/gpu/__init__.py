"""The runner for NVIDIA GPUs: a transformers model's weights under fused kernels, decode steps as CUDA graphs.

Everything but the capture of graphs also runs on a CPU, in Triton's interpreter.
"""
