# vLLM with LIFT's plug-in, for one GPU. Build from the repository's root: see compose.yaml.
# CUDA's libraries come with torch's wheels; the driver comes from the host (NVIDIA Container Toolkit).
FROM python:3.12-slim

# Triton compiles kernels when they are first used.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY server ./server
COPY workers ./workers
RUN pip install --no-cache-dir '.[gpu]'

RUN useradd --uid 10001 --create-home lift && install -d -o lift /data /models
USER lift
ENV LIFT_HOME=/data LIFT_DEVICE=cuda LIFT_ENGINE__HOST=0.0.0.0 HF_HOME=/models PYTHONUNBUFFERED=1
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8100
# Loading and compiling a large model takes minutes.
HEALTHCHECK --start-period=15m --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8100/health', timeout=4)"]
CMD ["python", "-m", "lift_engine"]
