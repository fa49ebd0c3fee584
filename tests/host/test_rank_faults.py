"""What one rank cannot compute is left out by all; two real ranks are in tests/train."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from admin_nmt.errors import UserError, out_of_memory
from admin_nmt.host import errors, rank_faults


@pytest.fixture
def exchanging() -> Iterator[DistributedDataParallel]:
    """Four layers whose gradients are exchanged in the backward pass, in several parts, with nobody."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=1, rank=0)
    try:
        layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
        yield DistributedDataParallel(layers, bucket_cap_mb=1e-4)  # type: ignore[arg-type]
    finally:
        torch.distributed.destroy_process_group()


def fail(gradient: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("accumulated", [False, True])
def test_an_exchange_that_stopped_is_completed(
    exchanging: DistributedDataParallel, accumulated: bool
) -> None:
    batch = torch.randn(3, 8)
    parameters = list(exchanging.parameters())
    for _ in range(2):  # PyTorch arranges its buckets anew after the first
        if accumulated:
            with exchanging.no_sync():
                exchanging(batch).sum().backward()
        before = rank_faults._versions(parameters)
        hook = exchanging.module[1].weight.register_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            exchanging(batch).sum().backward()
        hook.remove()
        rank_faults.complete_reduction(parameters, before)
        assert all(p.grad is not None for p in parameters)
        exchanging.zero_grad()
        exchanging(
            batch
        ).sum().backward()  # an exchange that is not at its end would be refused here
        expected = torch.autograd.grad(exchanging.module(batch).sum(), parameters)
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        exchanging.zero_grad()


def test_without_that_pytorch_refuses_the_next_pass(exchanging: DistributedDataParallel) -> None:
    batch = torch.randn(3, 8)
    exchanging.module[1].weight.register_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        exchanging(batch).sum().backward()
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        exchanging(batch)


def test_one_pair_of_a_real_batch_can_be_trained_on(batch: dict[str, Any], build: Any) -> None:
    pair = rank_faults.one_pair(batch)
    assert len(pair["id"]) == len(pair["target"]) == pair["nsentences"] == 1
    model = build()
    model.eval()
    with torch.no_grad():
        alone, _ = model(**pair["net_input"])
        together, _ = model(**batch["net_input"])
    torch.testing.assert_close(alone[0], together[0])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore text"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_lack_of_memory_ends_in_one_line(error: Exception) -> None:
    line = errors.describe(error)
    assert line is not None and "\n" not in line
    assert line.startswith("out of memory (") and line.endswith(
        "lower --max-tokens or --batch-size"
    )


def test_lack_of_memory_of_a_spawned_rank_ends_in_one_line() -> None:
    from torch.multiprocessing import ProcessRaisedException

    text = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
    text += "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    line = errors.describe(ProcessRaisedException(text, 1, 4711))
    assert line is not None and line.startswith("out of memory (torch.OutOfMemoryError: CUDA out")


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(UserError("out of memory"))
