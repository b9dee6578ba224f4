import pytest

from src.addresses import connected, hide_password, without_user


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("http://me:sec@ret/:@host:5000/path", "http://me:***@host:5000/path"),
        ("postgres//me:secret@host/db", "postgres//me:***@host/db"),
        ("postgresql://me@host/db?password=secret&x=1", "postgresql://me@host/db?password=***&x=1"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/mlruns/mlflow.db", "sqlite:////a/mlruns/mlflow.db"),
        ("no user of http://me:secret@host there", "no user of http://me:***@host there"),
    ],
)
def test_a_password_is_not_shown(address: str, shown: str) -> None:
    assert hide_password(address) == shown


def test_the_link_for_a_browser_has_neither_user_nor_password() -> None:
    assert without_user("http://me:secret@host:5000/a") == "http://host:5000/a"
    assert without_user("http://host:5000/a") == "http://host:5000/a"


def test_a_database_that_refuses_its_user_is_told_of_in_one_line(postgresql: str) -> None:
    address = postgresql.replace("tester@", "nobody:secret@").replace("://", "+psycopg://")
    with pytest.raises(
        OSError, match=r'cannot be reached: .*role "nobody" does not exist'
    ) as error:
        connected(address)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
