"""Valkey of our own: made, found again, stopped; what was acknowledged outlives a kill."""

import os
import signal
import socket
import stat

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ops.embedded.errors import PortTakenError, ServerStartError
from ops.embedded.valkey import ValkeyServer


@pytest.fixture
def home(make_home):
    return make_home()


def client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_a_first_start_gives_a_server_that_its_url_opens(home):
    server = ValkeyServer.start(home)

    assert server.url == f"redis://:{home.secret('valkey')}@127.0.0.1:{server.port}/0"
    with client(server) as connection:
        assert connection.ping()
        assert connection.config_get("bind")["bind"] == "127.0.0.1"
        assert connection.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert connection.config_get("save")["save"] == ""


def test_nobody_gets_in_without_the_password(home):
    server = ValkeyServer.start(home)

    with (
        redis.Redis(host="127.0.0.1", port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    place = home.known_place()
    assert place is not None
    assert stat.S_IMODE((place.folder / "valkey.conf").stat().st_mode) == 0o600


def test_what_was_written_outlives_a_stop_and_a_kill(home):
    server = ValkeyServer.start(home)
    with client(server) as connection:
        assert connection.config_get("appendonly")["appendonly"] == "yes"
        connection.set("kept", "by a stop")
    server.stop()

    server = ValkeyServer.start(home)
    with client(server) as connection:
        assert connection.get("kept") == "by a stop"
        connection.set("kept", "by a kill")
    # The write has reached the system's cache by now: the reply comes after it.
    os.kill(server.pid, signal.SIGKILL)

    server = ValkeyServer.start(home)
    with client(server) as connection:
        assert connection.get("kept") == "by a kill"


def test_a_throw_away_server_keeps_nothing(home):
    server = ValkeyServer.start(home, durable=False)
    with client(server) as connection:
        connection.set("kept", "no")
    server.stop()

    with client(ValkeyServer.start(home, durable=False)) as connection:
        assert connection.get("kept") is None


def test_a_second_start_finds_the_first_server_or_restarts_it(home):
    first = ValkeyServer.start(home)
    second = ValkeyServer.start(home)
    third = ValkeyServer.start(home, if_running="restart")
    found = ValkeyServer.find(home)

    assert second.pid == first.pid
    assert third.pid != first.pid
    assert not first.alive()
    assert found is not None
    assert found.pid == third.pid


def test_a_server_that_was_never_written_down_is_found_by_its_own_pid_file(home):
    first = ValkeyServer.start(home)
    (home.path / "run" / "valkey.json").unlink()

    second = ValkeyServer.start(home)

    assert not first.alive()
    with client(second) as connection:
        assert connection.ping()


def test_a_lost_secret_is_replaced_and_the_data_kept(home):
    with client(ValkeyServer.start(home)) as connection:
        connection.set("kept", "yes")
    (home.path / "secrets" / "valkey").unlink()

    with client(ValkeyServer.start(home)) as connection:
        assert connection.get("kept") == "yes"


def test_the_next_start_keeps_the_port_unless_it_is_taken(home):
    first = ValkeyServer.start(home)
    first.stop()
    second = ValkeyServer.start(home)
    second.stop()
    assert second.port == first.port

    with socket.create_server(("127.0.0.1", first.port)):
        third = ValkeyServer.start(home)
        assert third.port != first.port


def test_a_fixed_port_that_is_taken_is_said_so(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"Valkey can't listen on port {port} .*choose"):
            ValkeyServer.start(home, port=port)


def test_a_wrong_setting_is_quoted_from_the_log(home):
    with pytest.raises(ServerStartError, match="Bad directive"):
        ValkeyServer.start(home, settings={"no-such-setting": "1"})


def test_a_damaged_log_is_said_so_with_the_mend(home):
    server = ValkeyServer.start(home)
    with client(server) as connection:
        for number in range(100):
            connection.set(f"key:{number}", "x" * 100)
    server.stop()
    place = home.known_place()
    assert place is not None
    log = next((place.folder / "valkey" / "appendonlydir").glob("*.incr.aof"))
    whole = log.read_bytes()

    # A record cut short at the end is what a crash leaves: dropped without a word.
    log.write_bytes(whole[:-10])
    again = ValkeyServer.start(home)
    with client(again) as connection:
        assert connection.dbsize() == 99
    again.stop()

    log.write_bytes(whole[:1000] + b"damage" + whole[1000:])
    with pytest.raises(ServerStartError, match=r"Bad file format.*move .*appendonlydir away"):
        ValkeyServer.start(home)


def test_settings_may_hold_quotes_and_backslashes(home):
    server = ValkeyServer.start(home, settings={"proc-title-template": '{title} "a" \\ b'})

    with client(server) as connection:
        title = connection.config_get("proc-title-template")["proc-title-template"]
    assert title == '{title} "a" \\ b'


def test_a_stop_leaves_no_process_and_may_be_repeated(home):
    server = ValkeyServer.start(home)

    server.stop()
    server.stop()

    assert not server.alive()
    assert ValkeyServer.find(home) is None
