# One image for every role: `docker run daybook commands` is `./daybook run commands`.
FROM python:3.12-slim

WORKDIR /daybook
COPY requirements.lock .
# The lock is whole and hashed: what runs here is what the tests ran on.
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock

COPY schemas schemas
COPY commands commands
COPY projections projections
COPY streams streams
COPY api api
COPY ops ops

RUN useradd --system daybook \
    && install -d -o daybook .daybook .daybook/run .daybook/state .daybook/keys .daybook/personal
USER daybook
ENV PYTHONPATH=/daybook PYTHONUNBUFFERED=1

ENTRYPOINT ["python", "-m", "ops"]
CMD ["--help"]
