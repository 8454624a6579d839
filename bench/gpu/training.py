"""Some steps of joint training on the card, on pairs of frames made with numpy."""

import time

import numpy as np

from bench.gpu.case import Case, FailedError, SkippedError
from bench.gpu.frames import moving_frames


def run(case: Case) -> None:
    """Train the networks of a segmentation for some steps, and compare the first loss with the CPU's.

    Raises:
        FailedError: If the loss isn't finite, doesn't fall, or differs from the CPU's.
        SkippedError: If torch or its GPU is missing.
    """
    try:
        import torch
        from torch.nn import functional

        from keywarp.networks import NetworkOptions, build_network
        from keywarp.networks.resnet import RESNET50
    except ImportError as error:
        raise SkippedError(f"training needs torch and torchvision ({error})") from error
    if not case.dry and not torch.cuda.is_available():
        raise SkippedError("this torch finds no GPU")
    device = torch.device("cpu" if case.dry else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    side, steps = (64, 3) if case.dry else (256, 40)
    options = NetworkOptions(
        classes=3,
        task="segmentation",
        flow="flownet_inception",
        **(
            {"blocks": (1, 1, 1, 0), "channels": 16, "width": 0.25, "flow_share": 0.25}
            if case.dry
            else {"blocks": RESNET50}
        ),
    )
    frames = moving_frames(5, side, side)
    images = torch.from_numpy(np.stack(frames).astype(np.float32).transpose(0, 3, 1, 2) - 120)
    labels = images.mean(1).div(64).add(1.5).clamp(0, 2).long()[:, 8::16, 8::16]  # darkness as classes, by cells
    current, key = images[1:], images[:1].expand(4, -1, -1, -1)
    target, propagated = labels[1:], torch.tensor([True, True, True, False])
    key = torch.cat([key[:3], current[3:]])

    def loss_on(place: torch.device, network: torch.nn.Module) -> torch.Tensor:
        raw = network(current.to(place), key.to(place), propagated.to(place))
        return functional.cross_entropy(raw.float(), target.to(place))

    torch.manual_seed(0)
    network = build_network(options).train()
    with torch.no_grad():
        expected = float(loss_on(torch.device("cpu"), network))
    network = network.to(device)
    with torch.no_grad():
        first = float(loss_on(device, network))
    case.record(loss_cpu=expected, loss_first=first)
    if not abs(first - expected) <= 1e-2 * max(1.0, abs(expected)):
        raise FailedError(f"the first loss is {first}, but {expected} on the CPU")
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses, began = [], time.perf_counter()
    for _ in range(steps):
        # On processors, torch 2.14 gives NaN now and then as the gradient of a tiny convolution's weights in bf16.
        with torch.autocast(device.type, torch.bfloat16, enabled=not case.dry):
            loss = loss_on(device, network)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    seconds = time.perf_counter() - began
    rate = steps / seconds
    case.record(
        losses=losses,
        steps_per_second=rate,
        summary=f"loss {losses[0]:.2f} -> {losses[-1]:.2f} in {steps} steps of 4 pairs, {rate:.1f} a second",
    )
    if not np.isfinite(losses).all() or (not case.dry and losses[-1] >= losses[0]):
        raise FailedError(f"the loss doesn't fall: {losses[0]:.3g} -> {losses[-1]:.3g}")
