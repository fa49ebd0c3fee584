# admin_nmt on an NVIDIA GPU. Not built by our tests, which have no container engine.
#
#   docker build -t admin_nmt .
#   docker run --rm -it --gpus all --shm-size 8g -v "$PWD/work:/work" admin_nmt
#
# PyTorch's wheel brings CUDA's libraries; the base adds what the driver on the host expects to find.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04

# Triton compiles a launcher for its kernels with the machine's C compiler when they first run.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates gcc git libc6-dev python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

COPY . /opt/admin_nmt
ENV ADMIN_NMT_VENV=/opt/venv PYTHON=python3.12
RUN bash /opt/admin_nmt/scripts/install.sh
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /work
CMD ["bash"]
