# The GPU image: one environment holds everything, vLLM included.
#   docker build -t anymix . && docker run --gpus all -v "$PWD:/work" anymix run recipe.yaml
FROM python:3.11-slim-bookworm
WORKDIR /opt/anymix
COPY requirements/gpu.txt requirements/
# CUDA's libraries come with torch's wheels; the host brings the driver.
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY filters filters
COPY tokenizer_cache tokenizer_cache
COPY trainer trainer
COPY jobs jobs
RUN pip install --no-cache-dir -c requirements/gpu.txt '.[llm]'
WORKDIR /work
ENTRYPOINT ["anymix"]
