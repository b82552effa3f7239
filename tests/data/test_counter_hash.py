import torch

from plasm.data.counter_hash import counter_hash, uniform_below

WORD = 2**64


def mix(x: int) -> int:
    """SplitMix64's finaliser on Python's unbounded integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def reference(*counters: int) -> int:
    state = 0
    for counter in counters:
        state = mix(((state ^ (counter % WORD)) + 0x9E3779B97F4A7C15) % WORD)
    return state


def test_finaliser_is_splitmix64() -> None:
    # The first output of the published generator from seed 0.
    assert reference(0) == 0xE220A8397B1DCDAF


def test_hash_is_that_of_unbounded_integers() -> None:
    index = torch.arange(-5, 50)
    out = counter_hash(7, index, 3)
    assert [value % WORD for value in out.tolist()] == [reference(7, i, 3) for i in index.tolist()]
    assert counter_hash(2**63 - 1, -(2**63)).item() % WORD == reference(2**63 - 1, -(2**63))


def test_every_counter_and_their_order_matter() -> None:
    assert len({counter_hash(*counters).item() for counters in [(1, 2), (2, 1), (1, 3), (1, 2, 0), (1,)]}) == 5


def test_bounded_numbers_are_in_range_and_even() -> None:
    numbers = uniform_below(counter_hash(0, torch.arange(60_000)), 6)
    counts = numbers.bincount(minlength=6)
    assert len(counts) == 6
    assert (counts - 10_000).abs().max() < 400
    assert uniform_below(torch.tensor([-1, 0]), 2**31).tolist() == [2**31 - 1, 0]
