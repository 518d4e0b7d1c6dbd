# wfpstream in a container:
#   docker build -t wfpstream .
#   docker run -p 8888:8888 wfpstream run --mode reverse:backend:8080@0.0.0.0:8888 \
#       --ready-file /run/wfpstream/ready.json
# The container is healthy once the ready file is there, so a `run` of your own should name it too.

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
COPY . /src
RUN /opt/venv/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /dist /src \
    && /opt/venv/bin/pip install --no-cache-dir /dist/wfpstream-*.whl

FROM debian:bookworm-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --no-create-home --shell /usr/sbin/nologin wfpstream \
    && install -d -o wfpstream -g wfpstream -m 0755 /run/wfpstream
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER wfpstream
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s --retries=3 \
    CMD ["test", "-s", "/run/wfpstream/ready.json"]
ENTRYPOINT ["wfpstream"]
CMD ["run", "-c", "/etc/wfpstream/wfpstream.toml", "--ready-file", "/run/wfpstream/ready.json"]
