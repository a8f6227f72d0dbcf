import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from roadmap import read_ladder
from roadmap.common.errors import UserError
from roadmap.common.paths import RECIPES
from roadmap.common.yaml_files import read_yaml, write_flow
from roadmap.recipe import read_plain, read_recipe
from tests.samples import LADDER, RECIPE


def read_and_climb(path: Path) -> None:
    ladder = read_ladder(path)
    for base in ladder.bases:
        ladder.climb(base)


def refusal(path: Path, text: str) -> str:
    """Return what is said about a ladder, where the file's own path reads FILE."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_and_climb(path)
    return str(error.value).replace(str(path), "FILE")


def changed(old: str, new: str) -> str:
    assert LADDER.count(old) == 1, old
    return LADDER.replace(old, new)


def test_the_sample_that_the_other_tests_break_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(LADDER)
    assert len(read_ladder(str(path)).climb("resnet50")) == 3


ONE_MISFIT = {
    # What is wrong: (the file, what is said about it, in this order).
    "unknown key of a rung": (
        changed("    section: First", "    sectoin: First"),
        ["FILE:10: ", "unknown key", "sectoin", "Did you mean 'section'?"],
    ),
    "unknown key of a base": (
        changed("{label: ResNet-50, result: End}", "{label: ResNet-50, result: End, sedes: 3}"),
        ["FILE:3: ", "unknown key", "sedes", "Did you mean 'seeds'?"],
    ),
    "unknown key of the file": (
        LADDER + "stages: 4\n",
        ["FILE:18: ", "unknown key 'stages'", "Known: extends, steps_module, sections, bases"],
    ),
    "unknown key of a published number": (
        LADDER + "    published: {resnet50: {topl: 76.1}}\n",
        ["FILE:18: ", "unknown key", "topl", "Did you mean 'top1'?"],
    ),
    "missing key": (changed("    label: wider\n", ""), ["FILE:8: ", "label", "is missing"]),
    "unknown step": (
        changed("kernel_size", "kernal_size"),
        ["FILE:13: ", "rung 'big_kernel'", "unknown step 'kernal_size'", "Did you mean 'kernel_size'?", "Known: "],
    ),
    "rung without a step": (
        changed("    step: kernel_size\n", "").replace("    args: {size: 5}\n", ""),
        ["FILE:13: ", "rung 'big_kernel'", "has no step", "Known: "],
    ),
    "missing argument": (
        changed("    args: {size: 5}\n", ""),
        ["FILE:13: ", "rung 'big_kernel'", "step 'kernel_size'", "argument 'size' is missing"],
    ),
    "argument missing for one base": (
        changed("resnet200: {width: 128}", "resnet200: {}"),
        ["FILE:8: ", "rung 'widen'", "step 'increase_width'", "argument 'width' is missing"],
    ),
    "argument of the wrong type": (
        changed("{size: 5}", "{size: big}"),
        ["FILE:13: ", "rung 'big_kernel'", "'size' is 'big'", "integer"],
    ),
    "argument in quotes": (
        changed("{width: 96}", "{width: '96'}"),
        ["FILE:8: ", "rung 'widen'", "'width' is '96'", "integer"],
    ),
    "arguments for an unknown base": (
        changed("resnet200: {width: 128}", "resnet20: {width: 128}"),
        ["FILE:8: ", "rung 'widen'", "unknown base 'resnet20'", "Did you mean 'resnet200'?"],
    ),
    "arguments both for a base and for all": (
        changed("{size: 5}", "{size: 5, resnet50: {size: 7}}"),
        ["FILE:13: ", "rung 'big_kernel'", "unknown base 'size'", "Known: resnet50, resnet200"],
    ),
    "arguments of a base without names": (
        changed("resnet200: {width: 128}", "resnet200: 128"),
        ["FILE:8: ", "rung 'widen'", "args of resnet200 are 128", "names and values"],
    ),
    "rung id twice": (
        changed("id: big_kernel", "id: widen"),
        ["FILE:13: ", "rung 'widen'", "stands twice", "another id"],
    ),
    "key twice": (
        changed("    label: wider\n", "    label: wider\n    label: broader\n"),
        ["FILE:10: ", "key 'label' stands twice", "Keep one"],
    ),
    "rung id that is no name": (changed("id: widen", "id: Widen it!"), ["FILE:8: ", "'Widen it!'", "pattern"]),
    "unknown section": (
        changed("section: Second", "section: Secnod"),
        ["FILE:13: ", "rung 'big_kernel'", "unknown section 'Secnod'", "Did you mean 'Second'?"],
    ),
    "unknown rung to come from": (
        LADDER + "    from: wieden\n",
        ["FILE:13: ", "rung 'big_kernel'", "from", "unknown rung 'wieden'", "Did you mean 'widen'?"],
    ),
    "coming from a rung below": (
        changed("    section: First\n", "    section: First\n    from: big_kernel\n"),
        ["FILE:8: ", "rung 'widen'", "unknown rung 'big_kernel'", "Known: start"],
    ),
    "unknown base": (
        LADDER.replace("resnet200: {label", "resnet20: {label").replace("resnet200: {width", "resnet20: {width"),
        ["FILE:4: ", "unknown base 'resnet20'", "Did you mean 'resnet200'?", "Known: resnet50, resnet200"],
    ),
    "published for an unknown base": (
        LADDER + "    published: {resnet500: {top1: 76.1}}\n",
        ["FILE:13: ", "rung 'big_kernel'", "published", "unknown base 'resnet500'", "Did you mean 'resnet50'?"],
    ),
    "published number that is none": (
        LADDER + "    published: {resnet50: {top1: .nan}}\n",
        ["FILE:18: ", "top1 is nan", "finite"],
    ),
    "wrong type": (
        changed("    label: wider\n", "    label: wider\n    adopted: perhaps\n"),
        ["FILE:10: ", "adopted is 'perhaps'", "boolean"],
    ),
    "start with a step": (
        changed("    label: start\n", "    label: start\n    step: mixup\n"),
        ["FILE:6: ", "rung 'start'", "no step", "Take them out"],
    ),
    "start as a side branch": (
        changed("    label: start\n", "    label: start\n    adopted: false\n"),
        ["FILE:6: ", "rung 'start'", "side branch", "Take 'adopted' out"],
    ),
    "no rungs": (LADDER[: LADDER.index("rungs:")] + "rungs: []\n", ["FILE:5: ", "rungs", "at least its start"]),
    "broken YAML": (
        changed("{label: ResNet-50, result: End}", "{label: ResNet-50, result: End"),
        ["FILE:4: ", "not valid YAML", "expected ',' or '}'"],
    ),
    "tab in the margin": (changed("    label: wider", "\tlabel: wider"), ["FILE:9: ", "not valid YAML", r"'\t'"]),
    "code in the YAML": (
        changed("{size: 5}", "{size: !!python/object/apply:os.system ['exit 1']}"),
        ["FILE:17: ", "not valid YAML", "os.system"],
    ),
    "empty file": ("", ["FILE: ", "empty", "extends, steps_module, sections, bases"]),
    "file of comments": ("# later\n", ["FILE: ", "empty"]),
    "list instead of keys": ("- one\n- two\n", ["FILE: ", "['one', 'two']", "dictionary"]),
}
# What only the climb can see.
ONE_MISSTEP = {
    "rung that changes nothing": (
        changed("size: 5", "size: 3"),
        ["rung 'big_kernel' from resnet50", "step 'kernel_size' changes nothing after 'widen'", "Take the rung out"],
    ),
    "step out of order": (
        changed("step: kernel_size", "step: move_up_depthwise").replace("    args: {size: 5}\n", ""),
        ["rung 'big_kernel' from resnet50", "'move_up_depthwise' needs", "Put 'depthwise_conv' first"],
    ),
    "value that cannot be built": (
        changed("size: 5", "size: 6"),
        ["rung 'big_kernel' from resnet50", "kernel_size is 6", "must be odd", "Use 5 or 7"],
    ),
}


@pytest.mark.parametrize(("text", "words"), (ONE_MISFIT | ONE_MISSTEP).values(), ids=ONE_MISFIT | ONE_MISSTEP)
def test_a_bad_ladder_is_refused_in_one_line_with_place_value_and_nearest_name(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    said = refusal(tmp_path / "steps.yaml", text)
    assert re.search(".*".join(map(re.escape, words)), said), said
    assert "\n" not in said
    assert len(said) < 550


def test_a_misspelt_argument_is_both_unknown_and_missing(tmp_path: Path) -> None:
    unknown, missing = refusal(tmp_path / "steps.yaml", changed("{size: 5}", "{sise: 5}")).splitlines()
    assert unknown.startswith(
        "FILE:13: rung 'big_kernel': step 'kernel_size': unknown argument 'sise'. Did you mean 'size'?"
    )
    assert missing == "FILE:13: rung 'big_kernel': step 'kernel_size': argument 'size' is missing."


def test_all_errors_come_in_one_message_each_with_its_line(tmp_path: Path) -> None:
    said = refusal(
        tmp_path / "steps.yaml",
        LADDER.replace("section: First", "section: Frist").replace("kernel_size", "kernal_size") + "    from: wieden\n",
    )
    places = ["FILE:8: rung 'widen'", "FILE:13: rung 'big_kernel'", "FILE:13: rung 'big_kernel'"]
    assert [": ".join(line.split(": ")[:2]) for line in said.splitlines()] == places
    assert all(name in said for name in ("'First'?", "'kernel_size'?", "'widen'?"))


def test_errors_of_several_keys_come_in_one_message(tmp_path: Path) -> None:
    said = refusal(tmp_path / "steps.yaml", changed("    label: start\n", "    lable: start\n") + "steps: 3\n")
    assert [line.split(":")[1] for line in said.splitlines()] == ["6", "7", "18"]
    assert "Did you mean 'label'?" in said


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere/steps\.yaml: cannot be read \(no such file\)"):
        read_ladder("nowhere/steps.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"steps\.yaml: cannot be read"):
        read_ladder(tmp_path / "steps.yaml")


def test_yaml_that_asks_for_code_runs_none(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    refusal(tmp_path / "steps.yaml", f"sections: !!python/object/apply:os.system ['touch {mark}']\n")
    assert not mark.exists()


def test_yaml_that_contains_itself_is_refused(tmp_path: Path) -> None:
    assert "FILE:1: unknown key 'a'" in refusal(tmp_path / "steps.yaml", "a: &a [*a]\n")


# Recipes


def write_recipe(folder: Path, *, file: str = "small", **settings: Any) -> str:
    path = folder / f"{file}.yaml"
    path.write_text(yaml.safe_dump(RECIPE | settings, sort_keys=False), encoding="utf-8")
    return str(path)


def test_a_recipe_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, lr=0.25))
    assert (recipe.name, recipe.lr, recipe.seeds, recipe.mixup) == ("small", 0.25, (0, 1, 2), 0.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"warmup_epoch": 5}, ["FILE:12: ", "unknown key 'warmup_epoch'", "Did you mean 'warmup_epochs'?"]),
        ({"epochs": "many"}, ["FILE:6: ", "epochs is 'many'", "integer"]),
        ({"epochs": 0}, ["FILE:6: ", "epochs is 0", "greater than 0"]),
        ({"optimizer": "lion"}, ["FILE:8: ", "optimizer is 'lion'", "'adamw' or 'sgd'"]),
        ({"lr": 0.0}, ["FILE:9: ", "lr is 0.0", "above 0"]),
        ({"lr": float("nan")}, ["FILE:9: ", "lr is nan", "finite"]),
        ({"mixup": 0.8, "batch_size": 7}, ["FILE:7: ", "batch_size is 7", "mix pairs", "even"]),
        ({"cutmix": 1.0, "batch_size": 7}, ["FILE:7: ", "batch_size is 7", "mix pairs", "even"]),
        ({"color_jitter": 0.4}, ["FILE:12: ", "color_jitter", "image folders", "'fashion_mnist'", "out"]),
        ({"randaugment": "rand-m"}, ["FILE:12: ", "randaugment is 'rand-m'", "such as rand-m9-mstd0.5-inc1"]),
        ({"random_resized_crop": 0.08}, ["FILE:12: ", "random_resized_crop", "image folders", "out"]),
        ({"validation_images": -1}, ["FILE:12: ", "validation_images is -1", "from 0 up"]),
        ({"dataset": "folder", "validation_images": 5}, ["FILE:12: ", "validation_images is 5", "0 for image folders"]),
        ({"dataset": "folder", "shift": 2}, ["FILE:12: ", "shift", "in memory", "random_resized_crop"]),
        ({"dataset": "fashion"}, ["FILE:4: ", "dataset is 'fashion'", "'fashion_mnist'"]),
        ({"dataset": "hfds/"}, ["FILE:4: ", "dataset is 'hfds/'", "'hfds/NAME'"]),
        ({"train_split": "all"}, ["FILE:12: ", "train_split", "hfds/", "'fashion_mnist'", "out"]),
        ({"dataset": "wds/any", "shift": 2}, ["FILE:12: ", "shift", "in memory", "random_resized_crop"]),
        ({"label_smoothing": 1.5}, ["FILE:12: ", "label_smoothing is 1.5", "between 0 and 1"]),
        ({"seeds": []}, ["FILE:12: ", "seeds are ()", "one or more"]),
        ({"seeds": [1, 1]}, ["FILE:12: ", "seeds are (1, 1)", "different"]),
        ({"stem_stride": 3}, ["FILE:12: ", "stem_stride is 3", "2 or 4"]),
        (
            {"for_base": {"resnet20": {"lr": 0.1}}},
            ["FILE:12: ", "unknown base 'resnet20'", "Did you mean 'resnet200'?"],
        ),
        (
            {"name": "smoke"},
            ["FILE: ", "name is 'smoke'", "differs in ", "batch_size", "name of its own"],
        ),
        ({"plain": "smalll"}, ["FILE: ", "plain", "unknown recipe 'smalll'", "Known: "]),
    ],
    ids=str,
)
def test_a_bad_recipe_is_refused_in_one_line_with_place_value_and_way_out(
    tmp_path: Path, settings: dict[str, Any], words: list[str]
) -> None:
    path = write_recipe(tmp_path, **settings)
    with pytest.raises(UserError) as error:
        read_recipe(path)
    said = str(error.value).replace(path, "FILE")
    assert re.search(".*".join(map(re.escape, words)), said), said
    assert "\n" not in said
    assert len(said) < 350


def test_all_errors_of_a_recipe_come_in_one_message(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, mixup=0.8, batch_size=7, hflip=2.0, color_jitter=0.4)
    with pytest.raises(UserError) as error:
        read_recipe(path)
    said = str(error.value)
    assert len(said.splitlines()) == 3
    assert all(field in said for field in ("batch_size is 7", "hflip is 2.0", "color_jitter works on image folders"))


def test_settings_for_a_base_apply_to_it_alone(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, for_base={"resnet200": {"drop_path": 0.5}})
    assert [read_recipe(path, base).drop_path for base in (None, "resnet50", "resnet200")] == [0.0, 0.0, 0.5]


def test_a_bad_setting_for_a_base_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, for_base={"resnet200": {"drop_pth": 0.5}})
    with pytest.raises(UserError, match=r"for_base\.resnet200: unknown key 'drop_pth'\. Did you mean 'drop_path'\?"):
        read_recipe(path, "resnet200")


def test_an_unknown_recipe_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown recipe 'fashoin'\. Did you mean 'fashion'\? Known: .*fashion"):
        read_recipe("fashoin")


def test_the_plain_counterpart_may_stand_beside_a_recipe_of_ones_own(tmp_path: Path) -> None:
    write_recipe(tmp_path, file="simple", name="simple", plain="simple", lr=0.5)
    recipe = read_recipe(write_recipe(tmp_path, plain="simple"))
    assert (read_plain(recipe).name, read_plain(recipe).lr) == ("simple", 0.5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", "0123"), ("16:00", "16:00"), ("2026-01-01", "2026-01-01"), ("0x1f", "0x1f"), ("1_000", "1_000"),
        ("12", 12), ("-3", -3), ("4.0e-3", 0.004), ("1e3", 1000.0), (".5", 0.5), ("true", True), ("~", None),
    ],
)  # fmt: skip
def test_a_number_is_what_a_reader_takes_for_one(text: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(f"key: {text}\n")
    assert read_yaml(tmp_path / "file.yaml", dict, {"": ["key"]}) == {"key": value}


# What YAML can do that a file of settings must not


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key: !!int ''", ["FILE:1: ", "not valid YAML", "'' is no int"]),
        ("key: !!bool maybe", ["FILE:1: ", "'maybe' is no bool"]),
        ("key: [1,\n  !!float x]", ["FILE:2: ", "'x' is no float"]),
        ("key: !!python/name:os.system", ["FILE:1: ", "python/name:os.system"]),
        ("key: !!timestamp 2026-01-01", ["FILE:1: ", "timestamp"]),
        ("key: !mine x", ["FILE:1: ", "!mine"]),
        ("key: *nothing", ["FILE:1: ", "undefined alias 'nothing'"]),
        ("a: 1\na: 2\nb: {c: 1, c: 2}", ["FILE:2: key 'a' stands twice", "FILE:3: key 'c' stands twice"]),
        ("a: 1\n---\nb: 2", ["FILE:2: ", "another document"]),
        ("key: " + "9" * 5000, ["FILE:1: ", "is no int"]),
    ],
    ids=str,
)
def test_yaml_that_is_odd_is_refused_in_a_message(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(path, dict, {"": ["key"]})
    said = str(error.value).replace(str(path), "FILE")
    assert re.search(".*".join(map(re.escape, words)), said, re.DOTALL), said


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_nested_aliases_that_stand_for_billions_of_values_are_refused_at_once(merge: str, tmp_path: Path) -> None:
    nine = ", ".join
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{{merge}[{nine([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))]
    path = tmp_path / "file.yaml"
    path.write_text("\n".join(lines if merge else [line.replace("{[", "[").replace("]}", "]") for line in lines]))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"not valid YAML: its aliases \(\*\) make it \de\+\d+ values"):
        read_yaml(path, dict, {"": ["key"]})
    assert time.monotonic() - start < 2


def test_an_alias_stands_for_what_it_names_and_a_merge_takes_its_keys(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}")
    content = read_yaml(tmp_path / "file.yaml", dict, {"": ["key"]})
    assert content == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


def test_what_a_caller_does_to_what_was_read_changes_nothing_for_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: {x: [1, 2]}")
    read_yaml(path, dict, {"": ["key"]})["a"]["x"].append(3)
    assert read_yaml(path, dict, {"": ["key"]}) == {"a": {"x": [1, 2]}}
    path.write_text("a: 4")
    assert read_yaml(path, dict, {"": ["key"]}) == {"a": 4}


@pytest.mark.parametrize("directive", ["", "%YAML 1.1\n---\n"])
@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "="])
def test_a_word_is_a_word(word: str, directive: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(f"{directive}key: {word}\n")
    assert read_yaml(tmp_path / "file.yaml", dict, {"": ["key"]}) == {"key": word}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs: true", "epochs is True: Input should be a valid integer"),
        ("epochs: yes", "epochs is 'yes': Input should be a valid integer"),
        ("epochs: 3.0", r"epochs is 3\.0: Input should be a valid integer"),
        ("batch_size: true", "batch_size is True: Input should be a valid integer"),
        ("mixup: on", "mixup is 'on': Input should be a valid number"),
        ("mixup: true", "mixup is True: Input should be a valid number"),
        ("lr: '0.1'", r"lr is '0\.1': Input should be a valid number"),
        ("seeds: [true]", r"seeds\.0 is True: Input should be a valid integer"),
        ("tf32: 1", "tf32 is 1: Input should be a valid boolean"),
    ],
)
def test_words_and_truth_values_are_no_numbers_nor_the_other_way_round(setting: str, said: str, tmp_path: Path) -> None:
    text = yaml.safe_dump({key: value for key, value in RECIPE.items() if key != setting.partition(":")[0]})
    (tmp_path / "small.yaml").write_text(text + setting + "\n")
    with pytest.raises(UserError, match=rf"small\.yaml:\d+: {said}\."):
        read_recipe(tmp_path / "small.yaml")


def test_a_truth_value_is_no_number_in_a_ladder_either(tmp_path: Path) -> None:
    said = refusal(
        tmp_path / "steps.yaml", changed("{label: ResNet-50, result: End}", "{label: a, result: b, seeds: true}")
    )
    assert said == "FILE:3: bases.resnet50.seeds is True: Input should be a valid integer."


@pytest.mark.parametrize(
    "value", [None, True, "on", 1, 0.1, 1e-5, [0.9, 0.999], "a: b", "0123", {"resnet50": {"lr": 1.0}}]
)
def test_a_value_on_one_line_is_read_as_it_was(value: Any, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(f"key: {write_flow(value)}\n")
    assert read_yaml(tmp_path / "file.yaml", dict, {"": ["key"]}) == {"key": value}


# The name of a recipe


def test_a_recipes_name_need_not_be_that_of_its_file(tmp_path: Path) -> None:
    assert read_recipe(write_recipe(tmp_path, file="a-file", name="mine", plain="a-file")).name == "mine"


def test_a_copy_of_a_shipped_recipe_may_keep_its_name_as_long_as_it_says_the_same(tmp_path: Path) -> None:
    text = (RECIPES / "smoke_original.yaml").read_text()
    (tmp_path / "copy.yaml").write_text(text)
    assert read_recipe(tmp_path / "copy.yaml").name == "smoke_original"
    (tmp_path / "edited.yaml").write_text(re.sub(r"(?m)^lr: .*$", "lr: 0.0123", text))
    with pytest.raises(
        UserError, match=r"edited\.yaml: name is 'smoke_original', .* differs in lr\. Give it a name of"
    ):
        read_recipe(tmp_path / "edited.yaml")
