# The two commands of the README, on a CPU:
#
#   docker build -t mpc-gym .    (with --build-arg PIP_EXTRA_INDEX_URL=... for PyTorch without CUDA)
#   docker run --rm -v "$PWD/videos:/mpc_gym/videos" mpc-gym make demo
#   docker run --rm mpc-gym make test
FROM python:3.13-slim

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /mpc_gym
COPY pyproject.toml constraints.txt Makefile README.md LICENSE CHANGELOG.md ./
COPY mpc_gym mpc_gym
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
RUN make install
COPY . .
CMD ["make", "demo"]
