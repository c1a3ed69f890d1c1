# syntax=docker/dockerfile:1
# One image for every process kind; the command chooses. See docker-compose.yml and deploy/kubernetes.

FROM python:3.13-slim-bookworm AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY deploy/requirements.lock /tmp/requirements.lock
# Wheels with known hashes only, so there is no compiler in any stage; pip stays behind.
RUN python -m venv --without-pip /venv \
 && python -m pip --python /venv/bin/python install \
        --require-hashes --only-binary :all: --requirement /tmp/requirements.lock \
 && /venv/bin/python -m compileall -q /venv/lib

FROM python:3.13-slim-bookworm
RUN groupadd --gid 10001 gapless \
 && useradd --uid 10001 --gid gapless --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gapless
COPY --from=packages /venv /venv
# PYTHONPATH comes before site-packages: no distribution with a package named ops or core shadows ours.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    GLIBC_TUNABLES=glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0 \
    METRICS_PORT=9108
WORKDIR /app
COPY deploy/healthz.py /healthz.py
COPY core core
COPY db db
COPY ops ops
COPY providers providers
COPY routing routing
COPY scheduler scheduler
COPY sim sim
COPY workers workers
USER 10001:10001
EXPOSE 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "/healthz.py"]
CMD ["python", "-m", "ops", "--help"]
