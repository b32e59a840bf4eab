"""What a person sees, on a terminal and in a file."""

import io
from pathlib import Path

from lift_server.launcher.screen import CLEAR_LINE, Screen, tail


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedTerminal(FakeTerminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_keeps_its_status_below_the_lines() -> None:
    terminal = FakeTerminal()
    screen = Screen(terminal)
    screen.status("waiting")
    screen.say("engine-0 is starting")
    screen.status("")
    assert terminal.getvalue() == f"{CLEAR_LINE}waiting{CLEAR_LINE}engine-0 is starting\nwaiting{CLEAR_LINE}"


def test_a_file_gets_plain_lines_and_no_status_twice_in_a_row() -> None:
    file = io.StringIO()
    screen = Screen(file)
    for seconds in (1, 2):
        screen.status(f"{seconds} s so far")
    screen.say("ready")
    assert file.getvalue() == "1 s so far\nready\n"


def test_a_terminal_that_was_closed_stops_nothing() -> None:
    Screen(ClosedTerminal()).say("stopped")


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"one\ntwo\n\xffthree\n")
    assert tail(log, lines=2) == "    | two\n    | \ufffdthree"
