# The seldon runtime and the init container `fetch`. Built with the repository as its context.
ARG BASE=python:3.11-slim-bookworm

# The packages have a stage and a layer of their own: a change of our source leaves them as they are.
FROM ${BASE} AS packages
COPY requirements/seldon.txt /tmp/requirements.txt
RUN python -m venv --without-pip /opt/rollway \
 && python -m venv /tmp/installer \
 && /tmp/installer/bin/pip --python /opt/rollway/bin/python install --no-deps --no-compile \
      --only-binary :all: --require-hashes -r /tmp/requirements.txt \
 && find /opt/rollway/lib -type d -name tests -prune -exec rm -rf {} + \
 && PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash /opt/rollway/lib

FROM ${BASE} AS source
COPY model/serving/src/rollway_serving /opt/rollway/lib/python3.11/site-packages/rollway_serving
# The bytecode is trusted without looking at the source, and is the same from every build.
RUN PYTHONHASHSEED=0 python -m compileall -q --invalidation-mode unchecked-hash /opt/rollway/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="rollway-seldon" \
      org.opencontainers.image.description="Fetches a model and serves it with seldon-core's microservice" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/rollway/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
# Else each of the many threads keeps memory of its own that it once needed.
ENV MALLOC_ARENA_MAX=2
COPY --from=packages /opt/rollway /opt/rollway
COPY --from=source /opt/rollway /opt/rollway
USER 65532:65532
ENTRYPOINT ["python", "-m", "rollway_serving.seldon_runtime"]
