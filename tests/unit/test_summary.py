"""The page that a run ends with."""

from emflow.summary import Summary, quantiles, summary_text


def page(**numbers: object) -> str:
    return summary_text(Summary("s", 7, 70, 90, 150.0, 0.3, **numbers), [])  # type: ignore[arg-type]


def test_ctfs_are_told_in_one_line_each():
    text = page(
        defocus_angstrom=quantiles([8000.0, 12000.0, 16000.0, 20000.0, 24000.0]),
        ctf_max_resolution_angstrom=quantiles([3.5, 4.0, 4.5, 5.0, 30.0]),
    )
    assert "  defocus: median 1.60 um, quartiles 1.20 and 2.00, range 0.80 to 2.40\n" in text
    assert "  Thon rings fitted to: median 4.5 A, quartiles 4.0 and 5.0, range 3.5 to 30.0\n" in text
    assert "doubtful" not in text


def test_the_worst_of_doubtful_ctfs_are_named():
    text = page(doubtful_ctfs={f"m{n}.mrc": n / 20 for n in range(7)})
    assert "  7 CTFs are doubtful, figure of merit below 0.5: m0.mrc (0.00), m1.mrc (0.05)," in text
    assert "m4.mrc (0.20), ...\n" in text
    assert "m5.mrc" not in text


def test_micrographs_unlike_the_training_are_told_with_the_reason():
    assert "unlike" not in page()
    text = page(unfamiliar={f"m{n}.mrc": f"skewness is {n}, in training -1 to 1" for n in range(6)})
    assert "  6 of 7 micrographs are unlike what the picker was trained on, check their picks:\n" in text
    assert "    m0.mrc: skewness is 0, in training -1 to 1\n" in text
    assert "m5.mrc" not in text
    assert "    ... and 1 more; see summary.json\n" in text


def test_without_ctfs_none_are_told():
    assert "defocus" not in page()
    assert "rings" not in page()
