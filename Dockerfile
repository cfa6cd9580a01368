# One image, every role by its command: db upgrade, api, worker, beat, flower. compose.yaml shows them all.
FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /venv && python -m venv /build
WORKDIR /src

# What is depended on, before the code: a change of the code installs nothing again. No file is taken whose hash is not
# in the lock.
COPY locks/image.txt locks/release.txt locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    /venv/bin/pip install --require-hashes -r locks/image.txt \
    && /build/bin/pip install --require-hashes -r locks/release.txt
COPY pyproject.toml README.md LICENSE ./
COPY runclaim runclaim
RUN /build/bin/python -m build --wheel --no-isolation --outdir /dist \
    && /venv/bin/pip install --no-deps --no-index /dist/*.whl \
    && /venv/bin/python -m compileall -q /venv/lib


FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="runclaim" \
      org.opencontainers.image.description="Durable runs for Celery" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin runclaim
COPY --from=build /venv /venv
# A volume that is mounted here belongs to this user.
RUN mkdir /var/lib/runclaim && chown 10001:10001 /var/lib/runclaim
# Your application goes here: any module that celery -A can name.
COPY deploy/reviews.py /app/
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RUNCLAIM_APP=reviews
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["runclaim"]
CMD ["--help"]
