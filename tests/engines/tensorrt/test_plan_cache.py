"""The cache finds plans again, and refuses damaged ones and those of another key."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keywarp.engines.backends.tensorrt.plan import Plan, PlanHeader, PlanKey
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache

KEY = PlanKey(
    library="tensorrt",
    version="10.16.1.11",
    device="NVIDIA A10",
    capability="8.6",
    precision="fp16",
    warp="python",
    graph="0" * 64,
    resident=("features",),
)


def plan(content: bytes = b"a plan\nof bytes" * 1000, key: PlanKey = KEY) -> Plan:
    sha256 = hashlib.sha256(content).hexdigest()
    return Plan(header=PlanHeader(key=key, sha256=sha256, warps=1, seconds=2.5), content=content)


def test_a_saved_plan_is_loaded_again(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "new" / "folder")
    assert cache.load(KEY) is None
    assert cache.save(plan())
    assert cache.load(KEY) == plan()
    assert [path.name for path in cache.folder.iterdir()] == [cache.path(KEY).name]  # no temporary file stays


@pytest.mark.parametrize("field", [name for name in PlanKey.model_fields if name not in ("resident", "revision")])
def test_a_plan_of_another_gpu_version_precision_or_graph_is_refused(field: str, tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.save(plan())
    other = KEY.model_copy(update={field: "another"})
    assert cache.load(other) is None
    cache.path(KEY).rename(cache.path(other))  # as if copied from elsewhere under a wrong name
    assert cache.load(other) is None
    assert not cache.path(other).exists()


@pytest.mark.parametrize("change", ["truncated", "flipped", "empty", "header", "foreign"])
def test_a_damaged_plan_is_removed(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = PlanCache(tmp_path)
    cache.save(plan())
    data = bytearray(cache.path(KEY).read_bytes())
    if change == "flipped":
        data[-7] ^= 1
    elif change == "header":
        data = data.replace(b'"warps":1', b'"warps":?')
    cache.path(KEY).write_bytes(
        {"truncated": bytes(data[:-1]), "empty": b"", "foreign": b"\x66\x74\x72\x74" * 99}.get(change, bytes(data))
    )
    assert cache.load(KEY) is None
    assert not cache.path(KEY).exists()
    assert "will be built again" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache's folder should be")
    cache = PlanCache(blocked)
    assert not cache.save(plan())
    assert cache.load(KEY) is None
    assert "can't write" in caplog.text


def test_a_full_disk_leaves_the_old_plan_and_no_partial_one(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.save(plan())
    resource = pytest.importorskip("resource")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails as on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        assert not cache.save(plan(b"a larger plan" * 9999))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert cache.load(KEY) == plan()
    assert len(list(tmp_path.iterdir())) == 1


def test_concurrent_writers_of_one_plan_leave_one_valid_plan(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: cache.save(plan()), range(32)))
    assert cache.load(KEY) == plan()
    assert len(list(tmp_path.iterdir())) == 1
