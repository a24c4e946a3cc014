"""What a run does and leaves behind."""

from __future__ import annotations

import json

import pytest

import tunesmith
from tunesmith.core.errors import ConfigError, DataError, DivergedError, MissingInputError, OutputError


def split(result, name="train"):
    """A split's line of the data report."""
    report = json.loads((result.output_dir / "data_report.json").read_text())
    (found,) = (split for split in report["splits"] if split["name"] == name)
    return found


def log(folder):
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_config_plan_data_report_metrics_and_curve(run, tmp_path):
    result = run(plot_loss=True, val_size=4, eval_strategy="epoch", compute_accuracy=True)
    names = {path.name for path in result.output_dir.iterdir()}
    assert names >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "run.yaml",
        "plan.json",
        "data_report.json",
        "trainer_log.jsonl",
        "trainer_state.json",
        "train_results.json",
        "eval_results.json",
        "all_results.json",
        "training_loss.png",
    }
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth"))}, "nothing pickled"
    assert (result.output_dir / "training_loss.png").read_bytes().startswith(b"\x89PNG")
    plan = json.loads((result.output_dir / "plan.json").read_text())
    assert (plan["global_batch_size"], plan["dtype"], plan["device"]) == (4, "float32", "cpu")
    assert 0 <= result.metrics["eval_accuracy"] <= 1
    saved = json.loads((result.output_dir / "all_results.json").read_text())
    assert saved["train_loss"] == result.metrics["train_loss"]


def test_the_saved_config_runs_again_to_the_same_weights(run, tmp_path):
    from safetensors.torch import load_file
    from torch import equal

    first = run()
    again = tunesmith.train(first.output_dir / "run.yaml", output_dir=str(tmp_path / "again"))
    one, two = (load_file(result.output_dir / "adapter_model.safetensors") for result in (first, again))
    assert all(equal(one[name], two[name]) for name in one)


def test_the_log_counts_tokens_without_padding(run):
    result = run()
    assert log(result.output_dir)[-1]["tokens"] == split(result)["tokens"]
    assert result.metrics["train_tokens"] == split(result)["tokens"]


def test_a_diverged_run_stops_and_saves_nothing_broken(run, tmp_path):
    import torch
    from safetensors.torch import load_file

    with pytest.raises(DivergedError) as caught:
        run(learning_rate=1e30, save_strategy="steps", save_steps=1, num_train_epochs=4, max_grad_norm=0.0)
    assert caught.value.exit_code == 76
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    for saved in (tmp_path / "out").glob("checkpoint-1/adapter_model.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(saved).values())


def test_a_second_start_goes_on_from_the_newest_checkpoint(run, tmp_path):
    run(save_strategy="steps", save_steps=2)
    result = run(num_train_epochs=2, save_strategy="steps", save_steps=2)
    assert result.plan.resume == str(tmp_path / "out" / "checkpoint-4")
    assert [line["current_steps"] for line in log(result.output_dir) if "loss" in line] == list(range(1, 9))


def test_overwrite_starts_afresh_and_clears_what_was_there(run, tmp_path):
    run(save_strategy="steps", save_steps=2)
    result = run(overwrite_output_dir=True)
    assert result.plan.resume is None
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    assert [line["current_steps"] for line in log(result.output_dir) if "loss" in line] == [1, 2, 3, 4]


def test_a_finished_model_is_not_overwritten(run):
    run()
    with pytest.raises(OutputError) as caught:
        run()
    assert caught.value.code == "E-TRAIN-008"


def test_a_checkpoint_that_is_not_there_is_an_error(run):
    with pytest.raises(MissingInputError) as caught:
        run(resume_from_checkpoint="no/such/checkpoint-7")
    assert caught.value.code == "E-TRAIN-006"


@pytest.mark.parametrize("value", [True, "auto"])
def test_to_resume_where_nothing_is_yet_is_to_start(run, value):
    assert run(resume_from_checkpoint=value).plan.resume is None


def test_an_output_folder_that_is_a_file_is_an_error(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        run(output_dir=str(tmp_path / "file" / "out"))
    assert caught.value.code == "E-TRAIN-009"


def test_early_stopping_ends_a_run_that_gets_worse(run):
    """With a learning rate of 0 the evaluation never improves: patience 2 ends the run at the third evaluation."""
    result = run(learning_rate=0.0, num_train_epochs=20, val_size=4, eval_strategy="epoch", early_stopping_steps=2)
    assert log(result.output_dir)[-1]["epoch"] == 3


def test_the_best_model_is_what_is_kept(run, tmp_path):
    """The learning rate wrecks the model late; the saved weights are those of the best evaluation."""
    result = run(
        learning_rate=3e-2,
        lr_scheduler_type="constant",
        num_train_epochs=6,
        val_size=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        save_total_limit=1,
    )
    evaluated = [line["eval_loss"] for line in log(result.output_dir) if "eval_loss" in line]
    assert result.metrics["eval_loss"] == pytest.approx(min(evaluated), rel=1e-5)


def test_a_tensorboard_log_holds_the_same_curve(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # so that what the run sets is taken back
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(report_to="tensorboard", logging_dir=str(tmp_path / "board"))
    assert {path.parent for path in tmp_path.rglob("events.out.tfevents.*")} == {tmp_path / "board"}
    reader = EventAccumulator(str(tmp_path / "board"))
    reader.Reload()
    curve = [event.value for event in reader.Scalars("train/loss")]
    assert curve == pytest.approx([line["loss"] for line in log(result.output_dir) if "loss" in line], rel=1e-5)


def test_transformers_own_refusal_is_an_error_of_ours(run):
    with pytest.raises(ConfigError):
        run(
            save_strategy="steps",
            save_steps=3,
            eval_strategy="steps",
            eval_steps=2,
            val_size=4,
            load_best_model_at_end=True,
        )


def test_predictions_stand_beside_the_expected_answers(run, tiny_data):
    result = run(
        model_name_or_path=str(tiny_data.parent / "tiny-llama"),
        do_train=False,
        do_predict=True,
        predict_with_generate=True,
        dataset=None,
        eval_dataset="known",
        max_samples=6,
        do_sample=False,
        max_new_tokens=30,
    )
    lines = [json.loads(line) for line in (result.output_dir / "generated_predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all(line["prompt"].endswith("<|im_start|>assistant\n") for line in lines)
    equal = sum(line["predict"] == line["label"] for line in lines)
    assert result.metrics["predict_exact_match"] == equal / 6
    assert equal >= 4, "the tiny model knows these answers"


@pytest.mark.parametrize("method", [{"finetuning_type": "full"}, {"finetuning_type": "freeze"}])
def test_other_methods_save_whole_models(run, method):
    from transformers import AutoModelForCausalLM

    result = run(**method)
    AutoModelForCausalLM.from_pretrained(result.output_dir)


def test_pre_training_packs_text_into_full_blocks(run):
    result = run(stage="pt", dataset="stories", cutoff_len=64, finetuning_type="full", max_steps=3)
    assert split(result)["samples"] == -(-split(result)["tokens"] // 64)
    assert result.metrics["train_loss"] < 3, "the tiny model has seen such stories"


def test_random_weights_start_at_the_loss_of_guessing(run):
    """ln(896) = 6.80 nats for 896 equally likely tokens."""
    import math

    result = run(train_from_scratch=True, finetuning_type="full", max_steps=1)
    assert result.metrics["train_loss"] == pytest.approx(math.log(896), rel=0.05)


@pytest.mark.slow
def test_random_weights_follow_the_seed(run, tmp_path):
    from safetensors.torch import load_file

    keys = {"train_from_scratch": True, "finetuning_type": "full", "max_steps": 1, "add_tokens": "wug"}
    runs = [run(**keys, seed=seed, output_dir=str(tmp_path / name)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    one, two, other = (load_file(result.output_dir / "model.safetensors") for result in runs)
    assert all((one[name] == two[name]).all() for name in one)
    assert not (one["model.embed_tokens.weight"] == other["model.embed_tokens.weight"]).all()


@pytest.mark.parametrize(
    "keys", [{"use_reentrant_gc": True}, {"use_reentrant_gc": False}, {"gradient_checkpointing_mode": "selective"}]
)
def test_recomputing_activations_changes_nothing(run, tmp_path, keys):
    plain = run(disable_gradient_checkpointing=True, output_dir=str(tmp_path / "plain"))
    spared = run(output_dir=str(tmp_path / "spared"), **keys)
    for one, two in zip(log(plain.output_dir), log(spared.output_dir), strict=True):
        assert one.get("loss") == two.get("loss")


def test_bf16_trains_float32_adapters_on_bf16_weights(run):
    from safetensors.torch import load_file
    from torch import float32

    result = run(bf16=True)
    assert (result.plan.dtype, result.plan.autocast) == ("bfloat16", "bfloat16")
    tensors = load_file(result.output_dir / "adapter_model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {float32}
    reference = run(overwrite_output_dir=True)
    assert result.metrics["train_loss"] == pytest.approx(reference.metrics["train_loss"], rel=2e-2)


def test_pure_bf16_trains_bf16_weights(run):
    from safetensors.torch import load_file
    from torch import bfloat16

    result = run(pure_bf16=True, finetuning_type="full")
    assert {t.dtype for t in load_file(result.output_dir / "model.safetensors").values()} == {bfloat16}


@pytest.fixture
def warned(caplog):
    import logging

    logging.getLogger("tunesmith").propagate = True
    caplog.set_level("WARNING", logger="tunesmith")
    return lambda: caplog.text


def test_a_template_that_is_not_the_models_own_is_a_warning(run, warned):
    run(template="smollm2", max_steps=1)
    assert "E-TRAIN-016" in warned()
    assert "16 of 16 rows" in warned()


def test_a_template_that_is_not_the_models_own_is_an_error_when_strict(run):
    with pytest.raises(DataError) as caught:
        run(template="smollm2", max_steps=1, template_check="strict")
    assert caught.value.code == "E-TRAIN-016"


@pytest.mark.parametrize("keys", [{"template": "chatml"}, {"template": "smollm2", "template_check": "off"}])
def test_an_equal_template_or_no_check_says_nothing(run, warned, keys):
    run(**keys, max_steps=1)
    assert "E-TRAIN-016" not in warned()


def test_rows_beyond_the_models_context_are_said(run, warned, tmp_path):
    """The tiny model was made for 512 tokens."""
    rows = tmp_path / "long.jsonl"
    rows.write_text(json.dumps({"instruction": "Tell me.", "output": "A bee is yellow. " * 150}) + "\n")
    run(dataset=str(rows), max_steps=1)
    assert "the model's context is 512" in warned()
    run(dataset=str(rows), max_steps=1, overwrite_output_dir=True, cutoff_len=512)
    assert warned().count("the model's context is 512") == 1
