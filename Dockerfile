# Readygate's image: `docker build .` with a registry and a package index at hand, or `make image`, which fetches
# the wheels first and then builds without any network.
ARG PYTHON_VERSION=3.12

# ---- build: an environment with nothing but what the sidecar imports (no pip, no build backend)
FROM python:${PYTHON_VERSION}-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

COPY requirements.txt requirements-build.txt ./
RUN python -m venv --without-pip /opt/readygate \
 && pip --python /opt/readygate/bin/python install --only-binary=:all: --require-hashes -r requirements.txt \
 && pip install --only-binary=:all: --require-hashes -r requirements-build.txt

COPY pyproject.toml ./
COPY proxy proxy
COPY policies/starters policies/starters
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
 && pip --python /opt/readygate/bin/python install --no-deps --no-index /wheel/*.whl

# ---- run
FROM python:${PYTHON_VERSION}-slim-bookworm
ARG PYTHON_VERSION
ARG VERSION=0.0.0+unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="readygate" \
      org.opencontainers.image.description="A sidecar that enforces readiness policy in front of OpenAI-compatible LLM providers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/python:${PYTHON_VERSION}-slim-bookworm"

# A number, not a name: Kubernetes' runAsNonRoot can only check numbers.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/readygate --shell /usr/sbin/nologin readygate \
 && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/readygate

COPY --from=build /opt/readygate /opt/readygate
COPY deploy/image/config.yaml /etc/readygate/config.yaml
COPY deploy/image/policies /etc/readygate/policies

# Everything that is ever written lies below /var/lib/readygate, so the root file system may be read-only.
ENV PATH=/opt/readygate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/readygate
VOLUME ["/var/lib/readygate"]
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["readygate", "probe", "--url", "http://127.0.0.1:8081/livez"]
ENTRYPOINT ["readygate"]
CMD ["serve", "-c", "/etc/readygate/config.yaml"]
