# wfpstream in a container:
#   docker build -t wfpstream .
#   docker run -p 8888:8888 wfpstream run --mode reverse:backend:8080@0.0.0.0:8888 \
#       --ready-file /run/wfpstream/ready.json
# and, for the rules that make connections pass through it unasked (deploy/, docs/how_to/deploy.md):
#   docker build -t wfpstream-intercept --target intercept .

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Two environments: pip stays in the first, what is shipped has no use for it.
RUN python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/wfpstream
COPY . /src
RUN /opt/build/bin/pip --python /opt/wfpstream/bin/python install --no-cache-dir /src

FROM debian:bookworm-slim AS base
# The user has a number: Kubernetes' runAsNonRoot and rules that leave our own connections alone need it.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 wfpstream \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /run/wfpstream --no-log-init \
        --shell /usr/sbin/nologin wfpstream
COPY --from=build /opt/wfpstream /opt/wfpstream
ENV PATH=/opt/wfpstream/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["wfpstream"]

# Sets up interception for the containers that share its network, and ends: root, with NET_ADMIN and nothing else.
FROM base AS intercept
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iproute2 nftables \
    && rm -rf /var/lib/apt/lists/*
CMD ["transparent", "--help"]

# The proxy itself, without any right. It is healthy once the ready file is there, so a `run` of your own should
# name it too.
FROM base AS proxy
RUN install -d -o wfpstream -g wfpstream -m 0755 /run/wfpstream
# Where `wfpstream ctl`, run in the same container, finds the control socket.
ENV XDG_RUNTIME_DIR=/run/wfpstream
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s --retries=3 \
    CMD ["test", "-s", "/run/wfpstream/ready.json"]
CMD ["run", "-c", "/etc/wfpstream/wfpstream.toml", "--ready-file", "/run/wfpstream/ready.json"]
