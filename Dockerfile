# Both stages start from this; give another with --build-arg BASE=...
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# Everything that is fetched is pinned by hash; the wheel itself is built without the network.
RUN ["python", "-m", "pip", "install", "--no-cache-dir", "--require-hashes", "-r", "requirements-build.lock"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/pullthrough"]
RUN ["python", "-m", "pip", "--python", "/opt/pullthrough/bin/python", "install", "--no-cache-dir", "--require-hashes", "--only-binary", ":all:", "-r", "requirements.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
RUN ["python", "-m", "pip", "wheel", "--no-cache-dir", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", "/wheels", "."]
RUN ["python", "-m", "pip", "--python", "/opt/pullthrough/bin/python", "install", "--no-cache-dir", "--no-index", "--find-links", "/wheels", "pullthrough"]

FROM ${BASE}
LABEL org.opencontainers.image.title="pullthrough" \
      org.opencontainers.image.description="A pull-through cache for container registries" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pullthrough /opt/pullthrough
# A volume takes owner and mode from the folder in the image, so the folder must be there first.
RUN ["install", "-d", "-m", "0700", "-o", "10001", "-g", "10001", "/var/lib/pullthrough"]
ENV PATH=/opt/pullthrough/bin:$PATH \
    PULLTHROUGH_CACHE__DIRECTORY=/var/lib/pullthrough
USER 10001:10001
VOLUME ["/var/lib/pullthrough"]
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["pullthrough", "healthcheck"]
ENTRYPOINT ["pullthrough"]
CMD ["serve"]
