"""`tests/FAULTS.md` against the tests."""

from tests.faults.table import PATH, bad_record_lines, page, read_rows


def test_the_page_is_what_the_tests_write():
    assert PATH.read_text() == page(read_rows())


def test_there_are_enough_kinds_of_bad_records():
    assert len(bad_record_lines()) >= 35


def test_every_fault_on_the_page_has_a_test():
    tests = "".join(path.read_text() for path in PATH.parent.rglob("test_*.py"))
    assert all(f'"{fault}"' in tests for fault in read_rows())
