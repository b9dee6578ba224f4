# The pipeline with everything it needs, for a machine that has a container engine:
#
#   docker build --tag ct-segmentation .
#   docker run --rm --volume ct-mlruns:/project/mlruns ct-segmentation
#
# The image holds the commit checked out, never the working folder: neither private data nor
# unsaved changes can slip in, and the git commit that a run logs is the code that ran.
# docker/README.md has the other commands and the way to build it without an engine.

FROM debian:bookworm-slim AS base
# A mounted folder keeps its owner if this is its owner: --build-arg UID=$(id -u)
ARG UID=1000
# DVC calls git; the rest of what the pipeline needs comes as wheels. DVC sends nothing home,
# whatever the settings of the project say.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log \
 && useradd --uid "${UID}" --create-home --shell /bin/bash researcher \
 && mkdir -p /etc/xdg/dvc \
 && printf '[core]\n    analytics = false\n    check_update = false\n' > /etc/xdg/dvc/config

FROM base AS code
COPY .git /source
# A shallow clone: the newest commit alone, without other branches, stashes, hooks or settings.
# The folders are made here so that a volume mounted on one belongs to the user.
RUN git clone --quiet --depth 1 file:///source /project \
 && git -C /project remote remove origin \
 && mkdir -p /project/mlruns /project/models /project/prepared /project/reports

FROM base AS environment
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY --from=code /project/requirements.lock /tmp/requirements.lock
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.lock

FROM base
COPY --from=environment /opt/venv /opt/venv
COPY --from=code --chown=researcher:researcher /project /project
ENV PATH=/opt/venv/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MLFLOW_DISABLE_TELEMETRY=true
USER researcher
WORKDIR /project
# Like `make repro`: the data that data.dvc names (the demo travels inside) unless data/ is there.
CMD ["sh", "-c", "test -e data || dvc pull --quiet data.dvc && exec dvc repro"]
