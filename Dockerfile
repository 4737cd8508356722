# docker build -t equiform . && docker run --rm equiform doctor
# Another base works if it has Python 3.11 or newer and glibc 2.28 or newer (JAX's wheels): untested.
FROM python:3.12-slim
WORKDIR /equiform
COPY pyproject.toml README.md LICENSE ./
COPY equiform equiform
RUN pip install --no-cache-dir . && equiform doctor
WORKDIR /work
ENTRYPOINT ["equiform"]
CMD ["--help"]
