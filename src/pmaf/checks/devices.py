"""Whether this machine can compute where it is asked to, found out before anything is read or computed."""

import torch

__all__ = ["check_device"]


def check_device(name: str) -> None:
    """Put a number on a device and fetch it back.

    Args:
        name: such as ``"cpu"`` or ``"cuda:1"``.

    Raises:
        ValueError: if that cannot be done, with torch's reason.
    """
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot compute on the device {name!r}: {why}") from None
