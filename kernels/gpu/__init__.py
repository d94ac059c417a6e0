"""Operations in Triton for NVIDIA GPUs: one operation a file, each with its launcher and its plain-torch twin.

Launchers only enqueue on the current stream, so that CUDA graphs can capture them: they never wait for the device, nor ask it
for a number. On CPU tensors they run where Triton's interpreter is on.
"""
