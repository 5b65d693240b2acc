"""The language model in transformers: folders, padding, cache, generation, training, pipelines."""

import copy
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import distributed
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    TextStreamer,
    Trainer,
    TrainingArguments,
    pipeline,
)

import plstm_config
import plstm_torch
from plstm_testing import tolerances
from plstm_torch.hf import PlstmConfig, PlstmForCausalLM
from plstm_torch.parallel import context_parallel

SIDES = {
    "left": [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]],
    "right": [[1, 1, 0, 0, 0], [1] * 5, [1] * 4 + [0]],
}


def assert_close(actual, reference, kind="output", dtype="float64"):
    tolerances.assert_close(actual.detach(), reference.detach(), dtype, kind)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", *(f"w{number}" for number in range(21))]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<eos>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", padding_side="left", model_max_length=64
    )


def test_a_seed_gives_the_weights_of_the_plain_model(language_config):
    torch.manual_seed(3)
    plain = plstm_torch.build(language_config)
    torch.manual_seed(3)
    model = PlstmForCausalLM(PlstmConfig.from_plstm(language_config))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("tied", [False, True])
def test_both_libraries_read_the_folders_of_both(language_config, randomize, tmp_path, tied):
    config = plstm_config.change(language_config, {"tie_weights": tied})
    model = randomize(PlstmForCausalLM(PlstmConfig.from_plstm(config))).eval()
    tokens = torch.randint(0, 23, (2, 6))
    expected = model(tokens).logits
    model.save_pretrained(tmp_path / "theirs")
    plain = plstm_torch.from_pretrained(tmp_path / "theirs")
    assert torch.equal(plain(tokens), expected)
    plstm_torch.save_pretrained(plain, tmp_path / "ours")
    for folder in ("theirs", "ours"):
        for kind in (PlstmForCausalLM, AutoModelForCausalLM):
            again, report = kind.from_pretrained(tmp_path / folder, output_loading_info=True)
            assert type(again) is PlstmForCausalLM
            assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
            assert torch.equal(again(tokens).logits, expected)
    plstm_torch.save_pretrained(plain, tmp_path / "theirs")  # over what transformers wrote
    assert torch.equal(plstm_torch.from_pretrained(tmp_path / "theirs")(tokens), expected)


def test_the_dtype_that_is_asked_for_is_the_dtype_of_the_computation(language_model, tmp_path):
    language_model.save_pretrained(tmp_path)
    tokens = torch.randint(0, 23, (1, 4))
    narrow = PlstmForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert narrow.dtype == narrow(tokens).logits.dtype == torch.bfloat16
    assert narrow.float()(tokens).logits.dtype == torch.float32
    plain = plstm_torch.from_pretrained(tmp_path).bfloat16()
    assert torch.equal(narrow.bfloat16()(tokens).logits, plain(tokens))


def test_a_copy_is_a_model_of_its_own(language_model):
    tokens = torch.randint(0, 23, (1, 4))
    expected, other = language_model(tokens).logits, copy.deepcopy(language_model)
    torch.nn.init.zeros_(other.lm_head.weight)
    assert not other(tokens).logits.any()
    assert torch.equal(language_model(tokens).logits, expected)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("embedded", [False, True])
def test_padding_is_never_read(language_model, side, embedded):
    mask = torch.tensor(SIDES[side])
    tokens = torch.randint(0, 23, mask.shape)

    def run(filling):
        if not embedded:
            filled = torch.where(mask == 1, tokens, filling)
            return language_model(filled, attention_mask=mask, use_cache=True, output_hidden_states=True)
        table = language_model.get_input_embeddings().weight.detach()
        embeds = torch.where((mask == 1).unsqueeze(-1), table[tokens], math.nan if filling < 0 else float(filling))
        return language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=True, output_hidden_states=True)

    first, second = run(0), run(-100)
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(a, b) for a, b in zip(first.hidden_states, second.hidden_states, strict=True))
    assert not first.logits[mask == 0].any()
    for row in range(3):
        alone = language_model(tokens[row][mask[row] == 1][None], use_cache=True, output_hidden_states=True)
        assert_close(first.logits[row][mask[row] == 1], alone.logits[0])
        for here, there in zip(first.hidden_states, alone.hidden_states, strict=True):
            assert_close(here[row][mask[row] == 1], there[0])
        for block in ("0", "1"):
            layers = [run.cache.states["block_stack"][block]["interaction_module"] for run in (first, second, alone)]
            for name in ("state", "window"):
                assert torch.equal(layers[0][name], layers[1][name])
                assert_close(layers[0][name][row], layers[2][name][0], "state")


def test_gradients_do_not_see_padding(language_model):
    mask = torch.tensor(SIDES["left"])
    tokens = torch.randint(0, 23, mask.shape)
    labels = tokens.masked_fill(mask == 0, -100)

    def gradients(filling):
        language_model.zero_grad()
        language_model(tokens.masked_fill(mask == 0, filling), attention_mask=mask, labels=labels).loss.backward()
        return [parameter.grad.clone() for parameter in language_model.parameters()]

    for first, second in zip(gradients(0), gradients(5), strict=True):
        assert torch.equal(first, second)


def test_the_loss_is_that_of_the_next_tokens(language_model):
    tokens = torch.randint(0, 23, (2, 6))
    output = language_model(tokens, labels=tokens)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
    assert_close(output.loss, expected, dtype="float32")  # transformers takes losses in float32
    as_tuple = language_model(tokens, labels=tokens, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss)


@torch.no_grad()
def test_a_cache_continues_where_it_stood(language_model):
    tokens = torch.randint(0, 23, (2, 9))
    expected = language_model(tokens).logits
    first = language_model(tokens[:, :4], use_cache=True)
    kept = copy.deepcopy(first.cache)
    second = language_model(tokens[:, 4:], cache=first.cache)
    assert_close(second.logits, expected[:, 4:])
    assert second.cache is first.cache
    assert (second.cache.get_seq_length(), kept.get_seq_length()) == (9, 4)
    assert torch.equal(language_model(tokens[:, 4:], cache=kept).logits, second.logits)
    assert_close(language_model(tokens, logits_to_keep=2).logits, expected[:, -2:])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_the_cache_changes_nothing_that_is_generated(language_model, options):
    mask = torch.tensor(SIDES["left"])
    tokens = torch.randint(2, 23, mask.shape)
    options = {"attention_mask": mask, "max_new_tokens": 7, "do_sample": False, "pad_token_id": 0, **options}
    cached = language_model.generate(tokens, **options)
    assert torch.equal(cached, language_model.generate(tokens, use_cache=False, **options))
    filled = language_model.generate(tokens.masked_fill(mask == 0, 1), **options)
    assert torch.equal(filled[:, 5:], cached[:, 5:])


def test_greedy_generation_is_that_of_the_plain_model(language_model, language_config, tmp_path):
    language_model.save_pretrained(tmp_path)
    tokens = torch.randint(0, 23, (2, 5))
    expected = plstm_torch.from_pretrained(tmp_path).generate(tokens, 8, temperature=0)
    assert torch.equal(language_model.generate(tokens, max_new_tokens=8, do_sample=False), expected)
    embeds = language_model.get_input_embeddings()(tokens)
    found = language_model.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False)
    assert torch.equal(found, expected[:, 5:])


def test_generation_keeps_a_state_of_constant_size(language_model):
    def cache_of(output):
        return output.cache if "cache" in output else output.past_key_values  # its name in transformers 5.0

    def size(part):
        return sum(map(size, part.values())) if isinstance(part, dict) else part.numel()

    options = {"do_sample": False, "return_dict_in_generate": True}
    tokens = torch.randint(0, 23, (1, 3))
    short, long = (language_model.generate(tokens, max_new_tokens=count, **options) for count in (2, 40))
    assert size(cache_of(short).states) == size(cache_of(long).states) > 0
    # what was kept serves for the next turn of a conversation
    longer = torch.cat([short.sequences, torch.randint(0, 23, (1, 2))], 1)
    again = language_model.generate(longer, cache=cache_of(short), max_new_tokens=4, do_sample=False)
    assert torch.equal(again, language_model.generate(longer, max_new_tokens=4, do_sample=False))


def test_gradient_checkpointing_gives_the_same_gradients(language_model):
    tokens = torch.randint(0, 23, (2, 6))
    found = []
    for wanted in (False, True):
        if wanted:
            renamed = hasattr(language_model, "activation_checkpointing_enable")
            getattr(language_model, f"{'activation' if renamed else 'gradient'}_checkpointing_enable")()
            assert language_model.block_stack.gradient_checkpointing
        language_model.zero_grad()
        language_model.train()(tokens, labels=tokens).loss.backward()
        found.append([parameter.grad.clone() for parameter in language_model.parameters()])
    for first, second in zip(*found, strict=True):
        assert_close(second, first, "gradient")


def test_trainer_learns_resumes_and_saves(language_config, tokenizer, tmp_path):
    config = plstm_config.change(language_config, {"dtype": "float32", "param_dtype": "float32"})
    model = PlstmForCausalLM(PlstmConfig.from_plstm(config))
    texts = ["w1 w2 w3 w4 w5 w6", "w1 w2 w3 w4"] * 8
    data = [tokenizer(text, return_token_type_ids=False) for text in texts]

    def trainer(steps):
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=4, learning_rate=3e-2, save_steps=10,
            report_to=[], use_cpu=True, logging_steps=10, eval_strategy="steps", eval_steps=10, disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        return Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4], data_collator=collator)

    trainer(10).train()
    resumed = trainer(20)
    resumed.train(resume_from_checkpoint=True)
    losses = [entry["eval_loss"] for entry in resumed.state.log_history if "eval_loss" in entry]
    assert losses[-1] < losses[0] < math.log(23)
    tokens = torch.tensor([[3, 4, 5]])
    again = plstm_torch.from_pretrained(tmp_path / "checkpoint-20")
    assert torch.equal(again(tokens), model.eval()(tokens).logits)


def test_pipeline_continues_texts_of_several_lengths(language_model, tokenizer, tmp_path):
    language_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run = pipeline("text-generation", str(tmp_path), device="cpu")
    options = {"max_new_tokens": 4, "do_sample": False, "return_full_text": False, "eos_token_id": None}
    texts = ["w1 w2 w3 w4", "w7"]
    together = run(texts, batch_size=2, **options)
    assert together == [run([text], **options)[0] for text in texts]


def test_streamer_sees_every_token(language_model, tokenizer, capsys):
    tokens = torch.randint(2, 23, (1, 4))
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    found = language_model.generate(tokens, max_new_tokens=5, do_sample=False, streamer=streamer)
    assert capsys.readouterr().out.split() == tokenizer.convert_ids_to_tokens(found[0, 4:])


@pytest.mark.parametrize("tie_weights", [False, True])
def test_another_number_of_tokens(tmp_path, tie_weights):
    config = plstm_config.pLSTMLMModelConfig(
        vocab_size=23, embedding_dim=16, num_blocks=1, tie_weights=tie_weights, dtype="bfloat16"
    )
    model = PlstmForCausalLM(PlstmConfig.from_plstm(config)).eval()
    tokens = torch.tensor([[1, 5, 22, 3]])
    before = model(tokens).logits
    assert model.resize_token_embeddings() is model.resize_token_embeddings(23) is model.token_embedding
    model.resize_token_embeddings(25, pad_to_multiple_of=8)
    after = model(tokens).logits
    assert (after.shape[-1], after.dtype, model.config.vocab_size) == (32, before.dtype, 32)
    assert torch.equal(after[..., :23], before)
    model.save_pretrained(tmp_path)
    assert torch.equal(plstm_torch.from_pretrained(tmp_path)(tokens), after)
    model.token_embedding.weight.requires_grad_(False)
    model.resize_token_embeddings(23)
    assert torch.equal(model(tokens).logits, before)
    assert not model.token_embedding.weight.requires_grad


def test_what_is_refused(language_model):
    with pytest.raises(ValueError, match="pad_to_multiple_of: expected at least 1, got 0"):
        language_model.resize_token_embeddings(30, pad_to_multiple_of=0)
    with pytest.raises(ValueError, match="new_num_tokens: expected at least 1, got 0"):
        language_model.resize_token_embeddings(0)
    with pytest.raises(ValueError, match=r"attention_mask: expected shape \(1, 4\), got \(1, 3\)"):
        language_model(torch.zeros(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 3))


def test_a_model_that_reads_text_from_both_ends_is_no_causal_one() -> None:
    plain = plstm_config.pLSTMLMModelConfig(vocab_size=23, embedding_dim=8)
    both = plstm_config.change(plain, {"block_stack.block.interaction_module.bidirectional": True})
    with pytest.raises(ValueError, match=r"^PlstmForCausalLM: expected a causal module, got pLSTMLMModel with"):
        PlstmForCausalLM(PlstmConfig.from_plstm(both))


def test_what_is_spread_over_ranks_continues_no_prompt(language_model):
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        context_parallel(language_model, distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match="generate: expected a model on whole sequences"):
            language_model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=2)
    finally:
        distributed.destroy_process_group()
