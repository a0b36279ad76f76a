# The image of a cluster's nodes: Python and every library at the versions of requirements.lock. The code comes with each
# job. From the project's root:
#   docker build -f docker/train.Dockerfile --target cuda -t registry.example.com/fivefold:0.1.0-cuda .
#   docker build -f docker/train.Dockerfile --target cpu -t registry.example.com/fivefold:0.1.0-cpu \
#     --build-arg TORCH_INDEX=<the index of CPU wheels that pytorch.org names> .
# docs/cluster/kuberay_cluster.yaml runs both. Versions are those of the machine that submits, or jobs are refused.
FROM python:3.11-slim AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git rsync openssh-client wget \
    && rm -rf /var/lib/apt/lists/*
# git: which code ran; rsync and ssh: `ray up`; wget: KubeRay asks a node for its health with it
RUN useradd --create-home --uid 1000 --groups users ray
WORKDIR /home/ray
ENV OMP_WAIT_POLICY=PASSIVE PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
COPY requirements.lock .

FROM base AS cuda
# PyTorch's wheels for Linux carry CUDA's libraries; the driver is the node's
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install --require-hashes -r requirements.lock && pip install $(grep -o 'torch==[0-9.]*' requirements.lock)
USER ray

FROM base AS cpu
ARG TORCH_INDEX
RUN pip install --require-hashes -r requirements.lock \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} $(grep -o 'torch==[0-9.]*' requirements.lock)
USER ray
