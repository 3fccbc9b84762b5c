from __future__ import annotations

from serve_app.cli.printable import one_line, printable, short_arguments, short_result


def test_control_characters_are_left_out_and_text_stays() -> None:
    assert printable("a\x1b[2Jb\x07\tc\n\u009bd é 漢 🙂") == "a[2Jb\tc\nd é 漢 🙂"


def test_long_text_is_cut_to_one_line() -> None:
    assert one_line("a\n  b") == "a b"
    assert one_line("x" * 300, 10) == "x" * 9 + "…"
    assert one_line(" " * 300 + "x", 10).endswith("…")


def test_arguments_are_short() -> None:
    assert short_arguments({"name": "Contoso", "limit": 5, "tags": ["a"]}) == '(name: Contoso, limit: 5, tags: ["a"])'
    assert short_arguments({}) == ""
    assert len(short_arguments({str(n): "x" * 500 for n in range(50)})) <= 162


def test_a_result_is_short() -> None:
    assert short_result({"é": 1}) == '{"é": 1}'
    assert short_result("It is\ndown.") == "It is down."
