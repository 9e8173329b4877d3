"""Jobs that step L-BFGS where nothing else allocates."""

from __future__ import annotations

import torch

from xbench.components.lbfgs import fill_history
from xbench.memory.host import host_peak_meter, resident_bytes
from xbench.memory.peaks import release_all
from xbench.training.footprint import optimizer_state_bytes

MB = 1_000_000


def peak_of_a_full_step(send, megabytes, history, filled):
    """What a step of L-BFGS takes at most, gradients and parameters included, with a history that was filled
    by hand or by its own steps.

    Returns:
        The peak above what is there before; pairs of the history before and after; bytes of its state.
    """
    torch.set_num_threads(1)
    torch.ones(1 << 18).add_(1.0)
    release_all("cpu")
    base = resident_bytes()
    count = megabytes * MB // 4
    parameter = torch.nn.Parameter(torch.ones(count))
    scale = torch.arange(count, dtype=torch.float32).div_(count / 3).add_(1.0)
    optimizer = torch.optim.LBFGS(
        [parameter], lr=0.3, history_size=history, max_iter=2, line_search_fn="strong_wolfe"
    )

    def closure():
        parameter.grad = None
        loss = (scale * parameter.detach()).dot(parameter.detach()) / 2
        parameter.grad = scale * parameter.detach()
        return loss.double() / count

    if filled:
        fill_history(optimizer)
    else:
        steps = 0
        while len(optimizer.state[parameter].get("old_dirs", ())) < history:
            optimizer.step(closure)
            steps += 1
            assert steps < 20
    pairs = len(optimizer.state[parameter]["old_dirs"])
    release_all("cpu")
    meter = host_peak_meter()
    meter.reset()
    optimizer.step(closure)
    peak = meter.peak_bytes() - base
    after = len(optimizer.state[parameter]["old_dirs"])
    return peak, (pairs, after), optimizer_state_bytes(optimizer, torch.nn.ParameterList([parameter]))
