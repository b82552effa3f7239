import numpy as np
import pytest
import torch

from plasm.data.radar import CAP, FLOOR, denormalize, normalize, rain_rate


def test_rates_return_within_a_percent_from_the_floor_to_the_cap() -> None:
    rate = np.geomspace(FLOOR, CAP, 10_000)
    pixels = normalize(rate)
    assert pixels.dtype == np.float32
    assert (np.diff(pixels) >= 0).all()
    np.testing.assert_allclose(denormalize(pixels), rate, rtol=1e-4)
    assert normalize(np.array([CAP, 1e9, np.inf])).tolist() == [1, 1, 1]
    assert CAP >= 100


def test_dry_and_missing_are_zero_and_zero_is_dry() -> None:
    rate = np.array([[0, 0.0999, np.nan, -1, -np.inf]])
    assert normalize(rate).tolist() == [[0, 0, 0, 0, 0]]
    assert denormalize(np.array([0.0, -0.5])).tolist() == [0, 0]
    assert denormalize(np.array([1.0, 7.0]))[1] == denormalize(np.array(1.0)) <= CAP


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor_of_any_type_is_a_tensor_again(dtype: torch.dtype) -> None:
    rate = torch.tensor([[0.0, 0.1], [1.0, 64.0]], dtype=dtype)
    pixels = normalize(rate)
    assert pixels.dtype == torch.float32
    assert pixels.shape == (2, 2)
    assert pixels[0, 0] == 0 < pixels[0, 1]
    torch.testing.assert_close(denormalize(pixels), rate.float(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    "rate",
    [np.array(3), np.zeros((0, 4)), np.ma.masked_invalid([1.0, np.nan]), np.array([[1, 2]], ">i2"), np.float32(2)],
)
def test_an_array_of_any_kind_is_an_array_again(rate: np.ndarray) -> None:
    pixels = normalize(rate)
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.float32
    assert pixels.shape == np.shape(rate)
    expected = np.nan_to_num(np.ma.filled(np.ma.asarray(rate, np.float64), 0))
    np.testing.assert_allclose(denormalize(pixels), expected, rtol=1e-4)


def test_its_argument_stays_as_it_is() -> None:
    rate = np.array([0.05, np.nan, 500.0])
    normalize(rate)
    assert rate[0] == 0.05
    assert np.isnan(rate[1])
    assert rate[2] == 500


def test_marshall_and_palmer() -> None:
    assert rain_rate(np.array([10 * np.log10(200), 10 * np.log10(200 * 10**1.6), np.nan])).tolist() == pytest.approx(
        [1, 10, np.nan], nan_ok=True
    )
    assert rain_rate(np.array([10 * np.log10(223 * 2**1.53)]), 223, 1.53)[0] == pytest.approx(2)
    with pytest.raises(ValueError, match="above 0"):
        rain_rate(np.zeros(1), 0, 1.6)
