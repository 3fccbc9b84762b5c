# The image of head and workers (configs/kuberay): `docker build -t registry.example.com/parley:0.1.0 .`
FROM python:3.11-slim AS packages
WORKDIR /app
COPY requirements.lock ./
RUN python -m venv /opt/parley \
 && /opt/parley/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11-slim
# KubeRay's probes call wget; Ray's own scripts want ps.
RUN apt-get update \
 && apt-get install -y --no-install-recommends wget procps \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 parley \
 && install -d -o parley -g parley /data
COPY --from=packages /opt/parley /opt/parley
WORKDIR /app
COPY pyproject.toml README.md serve_config.yaml ./
COPY serve_app serve_app
COPY deployments deployments
COPY configs configs
COPY prompts prompts
RUN /opt/parley/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && /opt/parley/bin/python -m compileall -q serve_app deployments
ENV PATH=/opt/parley/bin:$PATH PYTHONUNBUFFERED=1
USER parley
ENTRYPOINT []
CMD ["parley", "--help"]
