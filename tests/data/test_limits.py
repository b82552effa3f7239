import pytest

from plasm.data.limits import FileTooLargeError, check_bytes, read_limit

GIB = 1 << 30


def test_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLASM_READ_LIMIT", raising=False)
    check_bytes(4 * GIB, "a.h5", "20 frames")
    with pytest.raises(FileTooLargeError, match=r"a\.h5: 20 frames would take 80 GiB.*4 GiB.*PLASM_READ_LIMIT"):
        check_bytes(80 * GIB, "a.h5", "20 frames")
    with pytest.raises(FileTooLargeError, match=r"would take 1,000,000,000 GiB"):
        check_bytes(10**9 * GIB, "a.h5", "20 frames")


def test_the_limit_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, limit in (("100", 100 * GIB), ("0.5", GIB // 2), ("inf", float("inf")), ("", 4 * GIB)):
        monkeypatch.setenv("PLASM_READ_LIMIT", text)
        assert read_limit() == limit
    monkeypatch.setenv("PLASM_READ_LIMIT", "0.5")
    with pytest.raises(FileTooLargeError, match=r"the limit is 0\.5 GiB"):
        check_bytes(GIB, "a.h5", "20 frames")
    for text in ("0", "-1", "nan", "16G"):
        monkeypatch.setenv("PLASM_READ_LIMIT", text)
        with pytest.raises(ValueError, match=f"PLASM_READ_LIMIT is a limit in GiB.*{text}"):
            read_limit()
