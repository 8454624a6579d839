"""The affinity of streams to servers that share one address."""

import httpx
import numpy as np

from keywarp.client import Client


def check_affinity(url: str, streams: int) -> list[str]:
    """Check that each request reaches the server that has its stream, whether the path or a header names the stream.

    Args:
        url: The servers' common address.
        streams: The number of streams to make.

    Returns:
        The ids of the streams that were made by path.
    """
    with Client(url) as client:
        ids = [client.create_stream().id for _ in range(streams)]
        picture = np.zeros((48, 64, 3), np.uint8)
        assert {client.infer(id_, picture).kind for id_ in reversed(ids)} == {"key"}  # in another order, not in turn
        assert {client.infer(id_, picture).kind for id_ in ids} == {"propagated"}
    refused = httpx.post(f"{url}/v1/streams", json={})
    assert refused.status_code == 400
    assert "PUT /v1/streams/{id}" in refused.json()["detail"]
    frame = {"name": "frame", "datatype": "UINT8", "shape": [48, 64, 3], "data": picture.ravel().tolist()}
    for start, kind, numbers in ((True, "key", range(streams)), (False, "propagated", reversed(range(streams)))):
        for number in numbers:
            response = httpx.post(
                f"{url}/v2/models/tiny/infer",
                headers={"Keywarp-Sequence": f"sequence-{number}"},
                json={"parameters": {"sequence_start": start}, "inputs": [frame]},
            )
            assert response.json()["parameters"]["kind"] == kind
    return ids
