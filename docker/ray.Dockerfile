# A host of a Ray cluster, for one GPU or none: engine, worker and server, whichever Ray or its command says. Build from the
# repository's root: see compose.hosts.yaml and kuberay.yaml.
# CUDA's libraries come with torch's wheels; the driver comes from the host (NVIDIA Container Toolkit).
FROM python:3.12-slim

# Triton compiles kernels when they are first used.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY server ./server
COPY workers ./workers
RUN pip install --no-cache-dir '.[gpu,ray]'

RUN useradd --uid 10001 --create-home lift && install -d -o lift /data /models
USER lift
ENV LIFT_HOME=/data LIFT_DEVICE=cuda HF_HOME=/models PYTHONUNBUFFERED=1
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["ray", "start", "--block", "--address", "ray-head:6385"]
