"""What `anymix sample` is asked for besides its prompts."""

import numpy as np
import pytest

from jobs.cli import call
from jobs.sampling import box_cells
from pipeline.errors import WRONG, UserError


def test_a_box_takes_the_codes_that_it_touches():
    cells = box_cells("25,0,50,50", (4, 4))
    assert np.argwhere(cells).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert box_cells("30,30,1,1", (4, 4)).sum() == 1
    assert box_cells("24,0,2,100", (2, 4)).tolist() == [[True, True, False, False]] * 2
    assert box_cells("0,0,100,100", (3, 5)).all()


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "0,0,0,5", "60,0,50,5", "-1,0,5,5", "nan,0,5,5"]
)
def test_what_is_no_box_inside_the_picture_is_named(box):
    with pytest.raises(UserError, match=f"--box {box} is no"):
        box_cells(box, (4, 4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a square", "--box", "0,0,50,50"], "--box is a part of a picture"),
        (["a bell", "--sound", "--picture", "a.png"], "--sound makes no pictures"),
        (["a.png", "--negative", "blurred"], "there is no text"),
        (["--sound"], "there is no text"),
    ],
)
def test_options_that_do_not_fit_are_an_error(tmp_path, capsys, arguments, said):
    assert call(["sample", str(tmp_path), *arguments, "--out", str(tmp_path / "out")]) == WRONG
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
