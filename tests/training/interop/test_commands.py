"""musubi-tuner's commands as they are pasted: several, from other shells, with what follows them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.interop.commands import read_commands
from tandem_wan.training.interop.plans import import_plan
from tandem_wan.wan.errors import UserError

HIGH = "python wan_train_network.py --task t2v-A14B --dit a_high_noise --max_train_steps 20 --min_timestep 875"
LOW = (
    "accelerate launch --mixed_precision bf16 src/wan_train_network.py --task t2v-A14B --dit low "
    "--max_timestep 875 --max_train_steps 250 --learning_rate 3e-4"
)
BETWEEN = ["\n", "\n\n# then\n", " && ", " ; ", ";\n", " \\\n  && ", " | tee x\n", " &> x\n", " "]


@pytest.mark.parametrize("between", BETWEEN)
def test_both_experts_commands_in_one_text_are_one_plan(between):
    plan = import_plan([HIGH + between + LOW]).plan
    assert (plan.train, plan.steps, plan.boundary) == ("both", 270, 0.875)
    assert (plan.high.rate, plan.low.rate) == (2e-6, 3e-4)


def test_two_commands_of_one_kind_are_an_error():
    with pytest.raises(UserError, match=r"2 musubi-tuner runs of the same kind: text, command 1"):
        import_plan([f"{LOW}\n{LOW}"])


@pytest.mark.parametrize(
    "after",
    ["2>&1 | tee log.txt", "> log.txt 2>&1", ">log.txt", "&> log", "&", "; shutdown now", "&& echo done", "|| true",
     "2>err.txt", "| tee --append log.txt"],
)  # fmt: skip
def test_what_follows_the_command_is_no_argument(after):
    text = f"cd /x && CUDA_VISIBLE_DEVICES=0 python wan_train_network.py --dit x --save_every_n_steps 2 {after}"
    assert read_commands("text", text) == [{"dit": ["x"], "save_every_n_steps": ["2"]}]


@pytest.mark.parametrize("line_end", [" ^\n", " `\n", "\n"])
def test_windows_paths_keep_their_backslashes(line_end):
    lines = [
        r"accelerate launch src\musubi_tuner\wan_train_network.py",
        r"--dit C:\new\table.safetensors",
        r'--output_dir "C:\out dir\"',
        r'--vae "D:\a & b\x>y"',
        "--max_train_steps 3",
    ]
    assert read_commands("text", line_end.join(lines)) == [
        {"dit": [r"C:\new\table.safetensors"], "output_dir": ["C:\\out dir\\"], "vae": [r"D:\a & b\x>y"],
         "max_train_steps": ["3"]}
    ]  # fmt: skip


def test_the_scripts_name_in_a_value_is_no_script():
    text = (
        "python wan_train_network.py --output_name wan_train_network --dit /x/wan_train_network/y"
    )
    assert read_commands("text", text)[0]["dit"] == ["/x/wan_train_network/y"]
    assert read_commands("text", "python -m musubi_tuner.wan_train_network --dit x") == [{"dit": ["x"]}]  # fmt: skip


def test_arguments_on_lines_of_their_own_go_on():
    assert read_commands("text", "--dit\nx\n--betas 1 2\n--sdpa") == [
        {"dit": ["x"], "betas": ["1", "2"], "sdpa": []}
    ]


@given(st.lists(st.text(min_size=1), max_size=4))
def test_any_quoted_words_come_back(words):
    # A line that begins with # is a comment, within quotes too; \ ^ and ` at a line's end join it to the next.
    others = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\\^`:"), "_")
    words = [word.translate(others) for word in words]
    text = " ".join(["python wan_train_network.py --x", *map(shlex.quote, words)])
    plain = [word for word in words if not (word.startswith("--") and len(word) > 2)]
    if plain == words:
        assert read_commands("text", text) == [{"x": words}]
