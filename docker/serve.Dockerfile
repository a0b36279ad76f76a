# One registered version behind HTTP, with what it needs and nothing of this repository. In a folder of its own:
#   mlflow artifacts download -u models:/digits@generation -d model
#   docker build -f <project>/docker/serve.Dockerfile -t digits-generation .
#   docker run --rm -p 8080:8080 digits-generation
#   curl http://127.0.0.1:8080/invocations -H 'Content-Type: application/json' \
#     -d '{"inputs": [], "params": {"task": "sample", "n": 4}}'
# The version in an image never changes: when an alias moves, build again (see docs/downstream.md).
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 served
ENV OMP_WAIT_POLICY=PASSIVE PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true
ARG TORCH_INDEX
COPY model/requirements.txt /tmp/requirements.txt
RUN torch=$(grep '^torch==' /tmp/requirements.txt) \
    && if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" "$torch"; fi \
    && pip install -r /tmp/requirements.txt
COPY model /model
USER served
WORKDIR /home/served
EXPOSE 8080
HEALTHCHECK --start-period=60s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ping', timeout=5)"]
CMD ["mlflow", "models", "serve", "--model-uri", "/model", "--env-manager", "local", "--host", "0.0.0.0", "--port", "8080"]
