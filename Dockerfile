# video-lstm in a container; needs BuildKit (the default since Docker 23).
#
#   docker build -t video-lstm .
#   docker run --rm --ipc=host -v "$PWD:/data" video-lstm train /app/configs/transfer.yaml --data.root clips
#   docker run --rm --ipc=host -v "$PWD:/data" video-lstm classify runs/transfer clips --out labels.csv
#   docker run --rm --network host -v "$PWD:/data" video-lstm ui
#
# --ipc=host: decoding workers hand frames over in shared memory, of which Docker gives 64 MB; or --training.workers 0.
# --user "$(id -u):$(id -g)" where the folder belongs to somebody else than user 1000.
FROM python:3.11-slim-bookworm

# Where torch comes from. Empty: the default index, whose x86-64 wheels run on the CPU and hold CUDA as well (several
# GB). The address of PyTorch's CPU wheels makes a small image for CPUs alone; that of a CUDA version's wheels takes
# these. Without `docker run --gpus all` every image runs on the CPU.
ARG TORCH_INDEX=""
# Extras of pyproject.toml; "weights,gpu" for an image that reports on its NVIDIA GPU.
ARG EXTRAS="weights"
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# What opencv-python's cv2 links to and neither its wheel nor the slim image has: libGL.so.1 and libxcb.so.1 (its Qt
# windows; never opened here, but loaded with the module) and libgthread-2.0.so.0 (GLib). ldd on cv2.abi3.so shows
# them; tests/docs/test_dockerfile.py checks that there are no others.
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libxcb1 && rm -rf /var/lib/apt/lists/*

# The dependencies before the code: a changed line of code does not install gigabytes anew. The installation is
# editable, so the code that is copied afterwards is the one that runs.
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts/install scripts/install
COPY pipeline/__init__.py pipeline/__init__.py
RUN scripts/install python "$EXTRAS"
COPY pipeline pipeline
COPY configs configs

# The build ends here if the installation is not whole. Memory in place of the 64 MB that a build has at /dev/shm, and
# of /root, so that no cache stays in the image.
RUN --mount=type=tmpfs,target=/dev/shm --mount=type=tmpfs,target=/root video-lstm doctor

RUN useradd --uid 1000 --home-dir /data --create-home video
USER video
# For --user with a number that has no name: caches go to the volume, and there is a name to record.
ENV HOME=/data USER=video
WORKDIR /data
VOLUME /data
ENTRYPOINT ["video-lstm"]
CMD ["--help"]
