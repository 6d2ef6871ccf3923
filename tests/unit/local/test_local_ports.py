import socket

from homeostat_local.ports import choose_port, is_free, split_address


def test_the_preferred_port_is_kept_when_it_is_free() -> None:
    port = choose_port()
    assert choose_port(port) == port


def test_a_preferred_port_that_is_taken_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert not is_free(taken)
        assert choose_port(taken) != taken


def test_no_port_is_chosen_twice() -> None:
    ports: set[int] = set()
    for _ in range(50):
        ports.add(choose_port(taken=ports))
    assert len(ports) == 50


def test_a_port_is_not_one_that_an_outgoing_connection_could_be_given() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as outgoing,
    ):
        assert outgoing.getsockname()[1] > choose_port()


def test_an_address_is_split_at_its_last_colon() -> None:
    assert split_address("127.0.0.1:9092") == ("127.0.0.1", 9092)
