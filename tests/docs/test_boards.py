"""The page of boards says what the profiles say."""

from benchmarks.latency_prediction.boards_page import PAGE, boards_page


def test_the_table_of_boards_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == boards_page(), "run python -m benchmarks.latency_prediction.boards_page"
