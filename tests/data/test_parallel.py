import threading

import pytest

from src.data.parallel import batches, in_order


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(10)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(in_order(work, range(50), workers=2)) == [item * item for item in range(50)]


def test_few_items_are_taken_before_their_results_are_wanted() -> None:
    taken = 0

    def items():
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    results = in_order(str, items(), workers=2)
    assert [next(results) for _ in range(10)] == [str(item) for item in range(10)]
    assert taken < 20
    results.close()


def test_an_error_comes_out_and_ends_the_work() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    with pytest.raises(ValueError, match="the fourth"):
        list(in_order(work, range(1000), workers=2))
    assert len(begun) < 20


def test_nothing_to_do_gives_nothing() -> None:
    assert list(in_order(str, [], workers=0)) == []


def test_batches_hold_every_item_once_and_one_each_where_there_are_few() -> None:
    assert [list(part) for part in batches(range(3), workers=2)] == [[0], [1], [2]]
    parts = [list(part) for part in batches(range(10_000), workers=2)]
    assert [item for part in parts for item in part] == list(range(10_000))
    assert max(map(len, parts)) == 32
