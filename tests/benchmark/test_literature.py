from plasm import benchmark


def test_published_numbers_have_a_source_and_never_mix_lengths() -> None:
    rows = benchmark.published()
    assert len({(row.model, row.epochs, row.source) for row in rows}) == len(rows)
    assert all(row.source and row.mse > 0 for row in rows)
    by = {(row.model, row.epochs): row.mse for row in rows}
    assert (by["simvp_gsta_mmnist", 200], by["simvp_gsta_mmnist", 2000]) == (26.69, 15.05)
    assert by["plasm_mmnist", 2000] == 18.4
    assert {row.whose for row in rows} == {"OpenSTL", "PLA-SM's paper", "PredFormer's paper"}
