import pytest

from plasm.data.naming import consecutive_runs


def runs(*names: str) -> list[int]:
    return [len(run) for run in consecutive_runs(names)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{n}" for n in (*range(5), *range(60, 65))], [5, 5]),
        ([f"f_{n:04d}" for n in (*range(5), *range(7, 12), *range(20, 24))], [5, 5, 4]),
        ([f"frame{n}" for n in range(0, 100, 5)], [20]),
        ([f"frame{n}" for n in (*range(0, 100, 5), *range(200, 250, 5))], [20, 10]),
        ([f"{n:04d}" for n in range(9990, 10010)], [20]),
        ([f"a{n}" for n in range(4)] + [f"b{n}" for n in range(6)], [4, 6]),
        ([f"cam2_{n:03d}" for n in (1, 2, 3, 4, 9, 10)], [4, 2]),
        # times, which have no 60th minute
        ([f"radar_{h:02d}{m:02d}" for h in range(3) for m in range(0, 60, 5)], [36]),
        ([f"20240228{h:02d}{m:02d}" for h in range(22, 24) for m in range(0, 60, 10)] + ["202402290000"], [13]),
        ([f"202402280{h}{m:02d}" for h in (1, 2, 5, 6) for m in range(0, 60, 10)], [12, 12]),
        # no rule in them
        (["3", "17", "22", "90", "91", "400"], [6]),
        ([f"1341846313.{n}" for n in (553992, 592026, 622049)], [3]),
        (["8c1f", "a03b", "a9d2", "background"], [4]),
        ([f"2024-02-28_{h:02d}-{m:02d}" for h in range(2) for m in range(0, 60, 20)], [6]),
        # gaps that are no multiple of the usual step
        ([f"{n}" for n in (*range(0, 10, 2), *range(61, 71, 2))], [5, 5]),
        ([f"{n}" for n in (0, 33, 67, 100, 133, 167, 200, 900, 933, 967)], [7, 3]),
        # another camera or sequence begins
        ([f"cam{c}_{n:03d}" for c in (1, 2) for n in range(5)], [5, 5]),
        ([f"s{s}_{n}" for s in (1, 2, 3) for n in range(1, 14)], [13, 13, 13]),
        ([f"s{s}_{n:04d}" for s in (1, 2) for n in (0, 1, 2, 3, 10, 11, 12)], [4, 3, 4, 3]),
        # numbers that are carried
        (
            [f"{d:08d}_{h:02d}{m:02d}" for d in (20240228, 20240229) for h in (0, 23) for m in range(0, 60, 5)],
            [12, 24, 12],
        ),
        ([f"2024-{mo:02d}-{d:02d}" for mo, ds in ((1, range(25, 32)), (2, range(1, 9))) for d in ds], [15]),
        ([f"{s}.{us:06d}" for s in (7, 8) for us in (0, 250000, 500000, 750000)], [8]),
        ([f"12_{m}_{s:02d}" for m in (3, 4) for s in range(3 * m - 9, 60, 7)], [18]),
        (["0", "60"], [2]),
        ([], [0]),
    ],
)
def test_where_numbers_are_missing(names: list[str], expected: list[int]) -> None:
    assert runs(*names) == expected
    assert [i for run in consecutive_runs(names) for i in run] == list(range(len(names)))
