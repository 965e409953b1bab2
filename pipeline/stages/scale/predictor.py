"""A `Predictor` whose files are decoded and answered by a Ray cluster: `--engine ray`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.addresses import STORE_SCHEMES, is_address
from pipeline.config import FetchConfig, RayConfig, TrackingConfig
from pipeline.data.clip_file import ClipFile, Policy
from pipeline.errors import ClusterError, ConfigError
from pipeline.model import checkpoint
from pipeline.stages.engine import Precision
from pipeline.stages.models import checkpoint_folder
from pipeline.stages.predict import Prediction, Predictor, load_predictor
from pipeline.stages.scale.answering import Answering, Shipped, predictions_of
from pipeline.stages.scale.decoding import decode, paths_table
from pipeline.stages.scale.session import Cluster, ray_session

DEVICES = ("auto", "cpu", "cuda")


class RayPredictor(Predictor):
    """A model that a cluster runs; here it is on the CPU, for what is asked of it beside whole files.

    Args:
        shipped: the checkpoint.
        here: the same model in this process.
        cluster: where the work is done.
        config: how.
    """

    def __init__(self, shipped: Shipped, here: Predictor, cluster: Cluster, config: RayConfig) -> None:
        super().__init__(here.model, here.card, here.device, here.digest, here.engine, here.folder)
        # who resumes a table asks for it: answers of one device are the same, wherever that stands
        self.engine.name = f"torch {shipped.device} {shipped.precision}"
        self.cluster, self.config, self._shipped = cluster, config, shipped
        self._work: Generator[Any, None, None] | None = None

    def predict(
        self,
        files: Sequence[str | ClipFile],
        workers: int = 0,
        policy: Policy | None = None,
        shuffle: bool = False,
        fetch: FetchConfig | None = None,
    ) -> Iterator[Prediction]:
        """See `Predictor.predict`; `workers` means nothing here, and files are known by their paths alone.

        Raises:
            ClusterError: the cluster could not do it, or is gone.
        """
        if shuffle:
            raise ValueError("a cluster answers to whole files as they are")
        paths = [file.path if isinstance(file, ClipFile) else str(file) for file in files]
        if not paths:
            return
        everywhere = [path if is_address(path) else str(Path(path).absolute()) for path in paths]
        self.stop()
        try:
            data = self._dataset(everywhere, policy, fetch)
            self._work = tables = iter(data.iter_batches(batch_size=None, batch_format="pyarrow"))
            found = (prediction for table in tables for prediction in predictions_of(table))
            for path, prediction in zip(paths, found, strict=True):
                yield replace(prediction, path=path)
        except self.cluster.ray.exceptions.RayError as error:
            raise ClusterError(f"the Ray cluster could not go on: {_cause(error)}") from error

    def stop(self) -> None:
        """Give up what is in progress: an exception may keep it alive beyond the cluster, which it would miss."""
        work, self._work = self._work, None
        if work is not None:
            work.close()

    def _dataset(self, paths: list[str], policy: Policy | None, fetch: FetchConfig | None) -> Any:
        """The work, laid out and not begun."""
        data, size = self.cluster.ray.data, self.config.files
        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.print_on_execution_start = False
        gpu = self._shipped.device == "cuda"
        # without GPUs each core has a task and an actor and works for the one that can; of one size Ray joined them
        task, actor = (1.0, 1.0) if gpu else (0.5, 0.49)
        models = self.config.models or max(1, int(self.cluster.gpus if gpu else self.cluster.cpus))
        blocks = [paths_table(paths[start : start + size]) for start in range(0, len(paths), size)]
        return (
            data.from_arrow(blocks)
            .map_batches(
                decode, batch_size=None, batch_format="pyarrow", num_cpus=task,
                fn_kwargs={"plan": self.reading(policy), "fetch": fetch},
            )
            .map_batches(
                Answering, batch_size=size, batch_format="pyarrow", num_cpus=actor, num_gpus=1 if gpu else None,
                fn_constructor_args=[self._shipped], compute=data.ActorPoolStrategy(size=models),
            )
        )  # fmt: skip


@contextmanager
def ray_predictor(
    name: str | Path,
    config: RayConfig | None = None,
    device: str = "auto",
    tracking: TrackingConfig | None = None,
    precision: Precision = "fp32",
) -> Iterator[RayPredictor]:
    """A model by name, run by a cluster for as long as this is open.

    Args:
        name: see `load_model`.
        config: the cluster.
        device: auto (GPUs where the cluster has any), cpu or cuda.
        tracking: where the MLflow store is.
        precision: of the encoder; bf16 on GPUs alone.

    Raises:
        ConfigError: the extra [ray] is not installed, or the device or the precision cannot be had.
        ClusterError: no cluster.
        CheckpointError: nothing there, or damaged.
        TrackingError: the store does not have it.
    """
    config = config or RayConfig()
    with checkpoint_folder(name, tracking) as place:
        files, here = checkpoint.contents(place), load_predictor(place, "cpu")
    if str(name).startswith(STORE_SCHEMES):
        here.folder = None  # its copy is gone
    with ray_session(config.address) as cluster:
        kind = _kind(device, precision, cluster)
        predictor = RayPredictor(Shipped(files, kind, precision), here, cluster, config)
        try:
            yield predictor
        finally:
            predictor.stop()


def _kind(device: str, precision: Precision, cluster: Cluster) -> str:
    """The device of the actors: cpu or cuda."""
    if device not in DEVICES:
        raise ConfigError(f"device {device}: a cluster chooses the GPU itself; auto, cpu or cuda")
    kind = device if device != "auto" else "cuda" if cluster.gpus else "cpu"
    if kind == "cuda" and not cluster.gpus:
        raise ConfigError("the Ray cluster has no GPU; --device cpu")
    if kind == "cpu" and precision == "bf16":
        raise ConfigError("precision bf16 is for GPUs; the Ray cluster would compute on CPUs: use fp32")
    return kind


def _cause(error: BaseException) -> str:
    """The line that says most: Ray puts the worker's traceback above it."""
    lines = [line for line in str(getattr(error, "cause", None) or error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
