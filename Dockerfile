# docker build -t abid .
# docker run --rm --name abid abid          then:  docker exec abid abi submit -- echo hi
# The daemon reads its share of CPU and memory from the container's cgroup, so --cpus and --memory are its limits too.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/abi
COPY requirements.lock ./
# Every wheel of the lock, checked by its hash. setuptools goes first: GPUtil comes as source alone and is built with it.
RUN awk '/^[a-z]/ { found = /^setuptools==/ } found' requirements.lock > setuptools.lock \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: -r setuptools.lock \
    && pip wheel --no-cache-dir --no-deps --require-hashes --only-binary=:all: --no-binary=GPUtil --no-build-isolation \
       --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY abi_runtime abi_runtime
COPY daemon daemon
COPY worker worker
COPY cli cli
# From those wheels alone; what only development needs is not installed.
RUN pip install --no-cache-dir --no-index --find-links /wheels hatchling \
    && pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/abi/bin/pip install --no-cache-dir --no-index --find-links /wheels abid \
    && /opt/abi/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --home-dir /var/lib/abi --shell /usr/sbin/nologin abi \
    && install --directory --owner=abi --group=abi --mode=0700 /run/abi /var/lib/abi
COPY --from=build /opt/abi /opt/abi
ENV PATH=/opt/abi/bin:$PATH ABI_RUNTIME_DIR=/run/abi ABI_STATE_DIR=/var/lib/abi
USER abi
WORKDIR /var/lib/abi
VOLUME /var/lib/abi
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["abi", "status"]
# tini is process 1: it passes SIGTERM on, which drains, and reaps what abid leaves.
ENTRYPOINT ["tini", "--"]
CMD ["abid", "start"]
