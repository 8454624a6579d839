import pytest
import torch

from keywarp.networks.rfcn import RFCNHead, detection_outputs, log_odds


def noisy_head(classes: int = 3, pooling: int = 2, anchors: int = 4) -> RFCNHead:
    torch.manual_seed(0)
    head = RFCNHead(16, classes, pooling, anchors)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def test_the_default_head_has_the_papers_maps() -> None:
    with torch.device("meta"):
        maps = RFCNHead()(torch.empty(2, 1024, 38, 63))
    channels = {name: m.shape[1] for name, m in maps._asdict().items()}
    assert channels == {"objectness": 18, "anchor_deltas": 36, "class_maps": 31 * 49, "box_maps": 4 * 49}
    assert {(m.shape[0], *m.shape[2:]) for m in maps} == {(2, 38, 63)}


def test_each_branch_is_blind_to_the_others_half_of_the_channels() -> None:
    head, features = noisy_head(), torch.randn(1, 16, 5, 6)
    first, second = features.clone(), features.clone()
    first[:, :8], second[:, 8:] = 0, 0
    maps, without_first, without_second = head(features), head(first), head(second)
    for proposal in ("objectness", "anchor_deltas"):
        assert torch.equal(getattr(without_second, proposal), getattr(maps, proposal))
        assert not torch.allclose(getattr(without_first, proposal), getattr(maps, proposal))
    for detection in ("class_maps", "box_maps"):
        assert torch.equal(getattr(without_first, detection), getattr(maps, detection))
        assert not torch.allclose(getattr(without_second, detection), getattr(maps, detection))


def test_channels_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="7 is odd"):
        RFCNHead(7)


def test_the_sigmoid_of_the_log_odds_is_the_softmax_over_background_and_foreground() -> None:
    objectness = torch.randn(2, 8, 5, 6) * 3
    pairs = torch.stack((objectness[:, :4], objectness[:, 4:]))
    torch.testing.assert_close(log_odds(objectness).sigmoid(), pairs.softmax(0)[1])


def test_the_bundles_outputs_are_channels_last() -> None:
    maps = noisy_head()(torch.randn(2, 16, 5, 7))
    outputs = detection_outputs(maps)
    assert outputs.objectness.shape == (2, 5, 7, 4)
    for anchor in range(4):
        odds = maps.objectness[:, 4 + anchor] - maps.objectness[:, anchor]
        assert torch.equal(outputs.objectness[..., anchor], odds)
    for name in ("anchor_deltas", "class_maps", "box_maps"):
        assert torch.equal(getattr(outputs, name)[0, 3, 6], getattr(maps, name)[0, :, 3, 6])
