# The image of brainlm-bids. Targets: cpu (default), gpu, test. How to use and build it: docs/docker.md.
# Only what every BuildKit of Docker 20.10 or newer understands; no frontend has to be fetched.
#
# Optional secrets of the build, which leave no trace in the image:
#   --secret id=ca,src=FILE        certificates of a private authority, PEM
#   --secret id=pipconf,src=FILE   a pip.conf: mirrors, folders of wheels

ARG BASE=debian:bookworm-slim

# ---- what runs at the end has: Python, certificates, nothing to compile with
FROM ${BASE} AS base
ENV LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY docker/with-ca /usr/local/lib/brainlm-bids/with-ca
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    set -eu; trust=; \
    if [ -s /run/host/ca.crt ]; then trust="-o Acquire::https::CAInfo=/run/host/ca.crt"; fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get $trust update; \
    apt-get $trust install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 python3; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt

# ---- what is needed to install
FROM base AS build
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    set -eu; trust=; \
    if [ -s /run/host/ca.crt ]; then trust="-o Acquire::https::CAInfo=/run/host/ca.crt"; fi; \
    apt-get $trust update; \
    DEBIAN_FRONTEND=noninteractive apt-get $trust install -y --no-install-recommends python3-venv; \
    rm -rf /var/lib/apt/lists/*; \
    python3 -m venv /opt/brainlm-bids
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_COMPILE=1 \
    PATH=/usr/local/lib/brainlm-bids:/opt/brainlm-bids/bin:$PATH

# ---- the requirements alone: a change of anything else in pyproject.toml does not install again
FROM build AS requirements
COPY docker/requirements.py pyproject.toml /src/
RUN python3 /src/requirements.py /src/pyproject.toml > /requirements.txt; \
    python3 /src/requirements.py /src/pyproject.toml dev > /requirements-dev.txt

# ---- dependencies. The targets cpu and gpu differ in this alone: where torch comes from.
FROM build AS dependencies-cpu
ARG TORCH_INDEX_CPU=https://download.pytorch.org/whl/cpu
COPY constraints.txt /src/
COPY docker/install-torch /usr/local/lib/brainlm-bids/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca install-torch cpu "$TORCH_INDEX_CPU"
COPY --from=requirements /requirements.txt /src/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca pip install -c /src/constraints.txt -r /src/requirements.txt && pip check

FROM build AS dependencies-gpu
ARG TORCH_INDEX_GPU=
COPY constraints.txt /src/
COPY docker/install-torch /usr/local/lib/brainlm-bids/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca install-torch gpu "$TORCH_INDEX_GPU"
COPY --from=requirements /requirements.txt /src/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca pip install -c /src/constraints.txt -r /src/requirements.txt && pip check

# ---- our code, in a layer of its own: a change of it installs no dependency again
FROM build AS package
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE /src/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca pip install -c /src/constraints.txt "setuptools>=77"
COPY brainlm_bids /src/brainlm_bids
RUN pip install --no-deps --no-build-isolation --no-index --prefix=/package /src
COPY docker/entrypoint.py /package/entry/brainlm-bids
RUN ln -s brainlm-bids /package/entry/brainlm \
    && chmod -R a+rX /package && chmod 755 /package/entry/brainlm-bids

# ---- templates and atlas, as far as they can be had where the image is built. What lies in
# docker/resources (laid out as the cache of `brainlm fetch`) is not downloaded. Another value of BAKE
# tries again what an earlier build could not get.
FROM build AS resources
COPY constraints.txt /src/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    with-ca pip install -c /src/constraints.txt \
      filelock nibabel numpy requests templateflow tqdm
# what the room of resources imports, and no more: a change elsewhere must not bring them anew
COPY brainlm_bids/__init__.py brainlm_bids/amount.py brainlm_bids/annex.py brainlm_bids/bars.py \
     brainlm_bids/bounds.py brainlm_bids/errors.py brainlm_bids/files.py \
     brainlm_bids/image_files.py brainlm_bids/image_headers.py brainlm_bids/locks.py \
     brainlm_bids/messages.py brainlm_bids/notices.py brainlm_bids/progress.py \
     brainlm_bids/remaining.py brainlm_bids/system_errors.py brainlm_bids/temporary.py \
     brainlm_bids/values.py /src/brainlm_bids/
COPY brainlm_bids/parcels/__init__.py /src/brainlm_bids/parcels/__init__.py
COPY brainlm_bids/resources /src/brainlm_bids/resources
COPY docker/bake.py docker/resource[s] /src/docker/
ARG BAKE=1
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    BAKE="$BAKE" PYTHONPATH=/src with-ca python /src/docker/bake.py /src/docker /resources \
    && chmod -R a+rX /resources

# ---- what cpu and gpu have in common but for the dependencies
FROM base AS runtime
RUN mkdir -m 1777 /weights && mkdir -m 755 /data /out
# /tmp is a volume so that it can be written to where the root is read-only
VOLUME /tmp
WORKDIR /tmp
# entry/ holds docker/entrypoint.py under the names of the programs that it starts
ENV PATH=/opt/brainlm-bids/entry:$PATH NIPYPE_NO_ET=1 \
    BRAINLM_BIDS_HOME=/weights BRAINLM_BIDS_SHIPPED=/opt/brainlm-bids-resources
ENTRYPOINT ["brainlm-bids"]
LABEL org.opencontainers.image.title="brainlm-bids" \
      org.opencontainers.image.description="BIDS App: raw fMRI to A424 parcel series to BrainLM embeddings. Without BrainLM's weights." \
      org.opencontainers.image.authors="The brainlm-bids developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/brainlm-bids/brainlm-bids" \
      org.opencontainers.image.documentation="https://github.com/brainlm-bids/brainlm-bids/tree/main/docs" \
      org.opencontainers.image.base.name="debian:bookworm-slim"

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-gpu /opt/brainlm-bids /opt/brainlm-bids
COPY --from=resources /resources /opt/brainlm-bids-resources
COPY --from=package /package /opt/brainlm-bids
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"

FROM runtime AS runtime-cpu
COPY --from=dependencies-cpu /opt/brainlm-bids /opt/brainlm-bids
COPY --from=resources /resources /opt/brainlm-bids-resources
COPY --from=package /package /opt/brainlm-bids
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="$VERSION" org.opencontainers.image.revision="$REVISION"

# ---- the tests, in the image: docker run --rm brainlm-bids:test [pytest's arguments]
FROM runtime-cpu AS test
COPY constraints.txt pyproject.toml /src/
COPY --from=requirements /requirements-dev.txt /src/
RUN --mount=type=secret,id=ca,target=/run/host/ca.crt \
    --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    /usr/local/lib/brainlm-bids/with-ca /opt/brainlm-bids/bin/python -m pip install --no-cache-dir \
      -c /src/constraints.txt -r /src/requirements-dev.txt
COPY Dockerfile /src/
COPY workflows /src/workflows
COPY docker /src/docker
COPY benchmarks /src/benchmarks
COPY brainlm_bids /src/brainlm_bids
COPY tests /src/tests
WORKDIR /src
ENTRYPOINT ["/opt/brainlm-bids/bin/python", "-m", "pytest", "-p", "no:cacheprovider"]
CMD ["-m", "not slow and not container and not cluster"]

FROM runtime-cpu AS cpu
