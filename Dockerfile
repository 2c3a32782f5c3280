# The service on a CPU: docker build -t fashion-retrieval . (docs/guides/deploy.md)
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# From PyTorch's own index, for the CPU alone: PyPI's wheels of torch bring gigabytes of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH="torch==2.14.1 torchvision==0.29.1"
RUN pip install --index-url "$TORCH_INDEX" $TORCH
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY examples/wardrobe ./examples/wardrobe
ARG EXTRAS=serve,page,mcp,milvus,heif
RUN pip install ".[$EXTRAS]"

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home app && install -d -o app -g app /cache /galleries
COPY --from=build /opt/venv /opt/venv
# Other machines reach a container, so it listens to all and asks for a key: mount a file of keys there.
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/cache/huggingface \
    FASHION_RETRIEVAL_HOST=0.0.0.0 \
    FASHION_RETRIEVAL_PORT=8000 \
    FASHION_RETRIEVAL_API_KEY_FILE=/run/secrets/api_keys
VOLUME ["/cache", "/galleries"]
USER 10001
WORKDIR /home/app
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"FASHION_RETRIEVAL_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["fashion-retrieval", "serve"]
