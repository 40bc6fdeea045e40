"""A vision-language model that writes its answer, as a policy: a step is a token.

    prompt      pictures and question, as vqmon.writing prepares them for serving too; padded on
                the left, so that every answer begins at the same place
    answer      tokens up to and including the first end of sequence; padding behind it is outside
                the mask, and nothing of the prompt is ever inside
    log_prob    of each token, at the temperature that it was drawn with, always from the weights
                that are trained: what drew the answer (transformers or vLLM) only gives tokens

Drawing inverts the cumulative distribution at numbers that come from a row's own seed, so a row
answers the same in whatever batch and in however many processes. Placeholders of pictures are
never drawn: an answer that holds one could not be read back.

A prompt goes through once, however many answers there are to it; where layers are checkpointed
that is true of its pictures alone. Answers go through in parts of `at_once`, each computed anew
for its gradient, so that memory is that of one part.

The reference is the model without its adapter; without an adapter, a frozen copy.

Shapes: B pictures, G answers each, T tokens of the longest, L tokens of the longest prompt,
S = B G sequences, V tokens known.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.grpo import Batch, Rollout, Said
from trainer.policies.heads import TRAINABLE_LIMIT, trainable
from vqmon.domain import DEGRADATIONS
from vqmon.writing.prompts import Prompts, save_prompts

Prompt = Mapping[str, Any]
"""One row, as a processor gives it: "input_ids" (1, L) and the like, patches along axis 0."""

PICTURES = "pictures"
"""In a prompt: its pictures as they are seen, (h, w, 3) uint8, for samplers that want those."""

BESIDE_TOKENS = {"attention_mask": 0, "mm_token_type_ids": 0, "token_type_ids": 0}
"""Inputs with one number a token, and that of padding."""

UNSAID = (-1,) * len(DEGRADATIONS)
"""Levels of an answer that names none."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is loaded to be trained. Ranges are checked; ValueError names the field.

    adapter_rank: of LoRA on the language model; 0 trains all weights. adapter_alpha: its scale
    times the rank. adapter_on: names of layers, with commas.
    four_bit: keep the frozen weights in 4 bits (needs bitsandbytes, a GPU and an adapter).
    """

    adapter_rank: int = 16
    adapter_alpha: float = 32.0
    adapter_on: str = "q_proj,v_proj"
    four_bit: bool = False
    precision: str = "bfloat16"
    checkpointing: bool = True

    def __post_init__(self) -> None:
        if self.adapter_rank < 0 or not self.adapter_alpha > 0:
            raise ValueError("adapter_rank must not be negative, and adapter_alpha positive")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.four_bit and not self.adapter_rank:
            raise ValueError("four_bit weights cannot be trained: give adapter_rank, such as 16")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one answer says; None where that was not asked, or cannot be read.

    quality: 0..100. levels: of vqmon.domain.DEGRADATIONS, 0 absent, 1..5. preference: 1 when the
    first picture is better, 0 similar, -1 worse.
    """

    readable: bool
    quality: float | None = None
    levels: Sequence[int] | None = None
    preference: int | None = None


class Sampler(Protocol):
    """Writes answers: (B) prompts -> (S, T) tokens, rows of one prompt neighbours."""

    def __call__(self, policy: Writer, prompts: Sequence[Prompt], chances: Tensor) -> Tensor:
        """chances: (S, T) in [0, 1), one number a token; T is the most tokens of an answer.

        Behind the end of sequence stands anything.
        """
        ...


class Writer(nn.Module):
    """A `trainer.grpo.Policy`. Batches hold "prompt" and "task", lists of B."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        read: Callable[[str, str], Meaning],
        *,
        most_tokens: int = 256,
        temperature: float = 1.0,
        at_once: int = 8,
        sampler: Sampler | None = None,
        anchored: bool = True,
        checkpointing: bool = False,
    ) -> None:
        """network: from `load`, or any model of its kind. read: (task, text) -> what it says.

        anchored: False spares the frozen copy where no reference is asked for (kl 0).
        checkpointing: as the network was loaded.
        """
        super().__init__()
        if not temperature > 0 or most_tokens < 1 or at_once < 1:
            raise ValueError("temperature, most_tokens and at_once must be positive")
        self.network = network
        self.tokenizer = tokenizer
        self.read = read
        self.most_tokens, self.temperature, self.at_once = most_tokens, temperature, at_once
        self.sampler: Sampler = sampler or generated
        self.ends = ends(network)
        self.forbidden = placeholders(network)
        self.checkpointing = checkpointing
        self._start = None
        if anchored and not adapted(network):
            self._start = Frozen(copy.deepcopy(network).requires_grad_(False).eval())
        self._as_reference = False

    def forward(self, batch: Batch, actions: Tensor) -> Said:
        """actions: (B, G, T) as `answer` gave them; 0 where they are padding."""
        prompts, answers = batch["prompt"], actions.shape[1]
        flat = actions.flatten(0, 1)  # (S, T)
        found = []
        for first in range(0, len(flat), self.at_once):
            part = flat[first : first + self.at_once]
            rows = [(first + place) // answers for place in range(len(part))]
            found.append(self._sparing(prompts, rows, part, alone=len(part) == len(flat)))
        return Said(torch.cat(found).view(actions.shape), None)

    def _sparing(
        self, prompts: Sequence[Prompt], rows: Sequence[int], actions: Tensor, *, alone: bool
    ) -> Tensor:
        if alone or not torch.is_grad_enabled():
            return self.log_prob(prompts, rows, actions)
        held: Tensor = checkpoint(self.log_prob, prompts, rows, actions, use_reentrant=False)
        return held

    def log_prob(self, prompts: Sequence[Prompt], rows: Sequence[int], actions: Tensor) -> Tensor:
        """(n, T) of the tokens `actions` that answer prompts[rows[i]]; 0 on padding."""
        network = self._speaker()
        mask = written(actions, self.ends)
        answer = self._after_shared if self._can_share(network, rows) else self._after_each
        said = tempered(
            answer(network, prompts, rows, actions, mask), self.temperature, self.forbidden
        )
        chosen = said.gather(-1, actions[..., None]).squeeze(-1) - said.logsumexp(-1)
        return chosen.where(mask, 0.0)

    def _can_share(self, network: Any, rows: Sequence[int]) -> bool:
        """Layers that are checkpointed, which they are in training mode, keep nothing to share."""
        checkpointed = network.training or (self.checkpointing and torch.is_grad_enabled())
        return len(set(rows)) < len(rows) and not checkpointed and turns(network)

    def _after_shared(
        self,
        network: Any,
        prompts: Sequence[Prompt],
        rows: Sequence[int],
        actions: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """(n, T, V) logits of each token; a prompt goes through the network once for its answers.

        Answers are much shorter than a prompt with pictures. The gradient is the same: through
        the keys and values that all answers to a prompt look back at.
        """
        distinct = sorted(set(rows))
        place = torch.tensor([distinct.index(row) for row in rows], device=actions.device)
        inputs = self.inputs(prompts, distinct, network)
        before = inputs["attention_mask"]
        held = network(**inputs, logits_to_keep=1, use_cache=True)
        first: Tensor = held.logits[place]  # (n, 1, V)
        if actions.shape[1] == 1:
            return first
        held.past_key_values.batch_select_indices(place)
        begin = before.sum(-1, keepdim=True) + plain(network).model.rope_deltas
        position = begin[place] + torch.arange(actions.shape[1] - 1, device=actions.device)
        rest = network(
            input_ids=actions[:, :-1],
            attention_mask=torch.cat([before[place], mask[:, :-1].to(before)], 1),
            position_ids=position.expand(3, -1, -1),  # text: the same along all three axes
            past_key_values=held.past_key_values,
            use_cache=True,
        ).logits
        return torch.cat([first, rest], 1)

    def _after_each(
        self,
        network: Any,
        prompts: Sequence[Prompt],
        rows: Sequence[int],
        actions: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """(n, T, V) logits of each token; the prompt goes through the network before every answer."""
        inputs = self.inputs(prompts, rows, network)
        length = actions.shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], actions], 1)
        for name in BESIDE_TOKENS.keys() & inputs.keys():
            beside = mask if name == "attention_mask" else torch.zeros_like(mask)
            inputs[name] = torch.cat([inputs[name], beside.to(inputs[name])], 1)
        with self._economically(network):
            logits: Tensor = network(**inputs, logits_to_keep=length + 1, use_cache=False).logits
        return logits[:, :-1]

    def inputs(
        self, prompts: Sequence[Prompt], rows: Sequence[int], network: Any
    ) -> dict[str, Any]:
        """What the network takes to go on after prompts[row] for each of `rows`.

        Pictures of a prompt are encoded once, where the network takes encoded ones.
        """
        distinct = sorted(set(rows))
        given = self.collated([prompts[row] for row in distinct])
        place = [distinct.index(row) for row in rows]
        sizes = given["image_grid_thw"]
        which = repeated([len(prompts[row]["image_grid_thw"]) for row in distinct], place)
        pixels = given.pop("pixel_values")
        if takes_encoded(network):
            seen = network.get_image_features(pixels, sizes, return_dict=True)
            given["mm_encoder_outputs"] = {"image": _selected(seen, which)}
        else:
            parts = pixels.split(sizes.prod(-1).tolist())
            given["pixel_values"] = torch.cat([parts[i] for i in which])
        given["image_grid_thw"] = sizes[which]
        for name in given.keys() & {"input_ids", *BESIDE_TOKENS}:
            given[name] = given[name][place]
        return given

    def collated(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """One batch: what belongs to tokens padded on the left, pictures one after another."""
        found = {}
        longest = max(prompt["input_ids"].shape[-1] for prompt in prompts)
        padding = {"input_ids": self.ends[0], **BESIDE_TOKENS}
        for name in prompts[0].keys() - {PICTURES}:
            parts = [prompt[name] for prompt in prompts]
            if name in padding:
                parts = [_padded(part, longest, padding[name]) for part in parts]
            found[name] = torch.cat(parts).to(self.device)
        return found

    @torch.no_grad()
    def answer(self, batch: Batch, answers: int, seeds: Tensor) -> Rollout:
        """Sampled tokens and what they mean; row b draws from nothing but seeds[b]."""
        chances = uniform(seeds, answers, self.most_tokens).to(self.device)
        return self.meant(batch, self._written(batch["prompt"], chances, answers))

    @torch.no_grad()
    def likeliest(self, batch: Batch) -> Rollout:
        """The likeliest token at each step, without any chance in it: G is 1."""
        chances = torch.full((len(batch["prompt"]), self.most_tokens), -1.0, device=self.device)
        return self.meant(batch, self._written(batch["prompt"], chances, 1))

    def _written(self, prompts: Sequence[Prompt], chances: Tensor, answers: int) -> Tensor:
        """(B, G, T)"""
        mode = self.training
        self.eval()
        tokens = self.sampler(self, prompts, chances).to(self.device)
        self.train(mode)
        return tokens.view(len(prompts), answers, -1)

    def meant(self, batch: Batch, actions: Tensor) -> Rollout:
        """(B, G, T) tokens -> what they say; whatever stands behind the end is dropped."""
        mask = written(actions, self.ends)
        texts = [
            [self.text(row, kept) for row, kept in zip(*pair, strict=True)]
            for pair in zip(actions, mask, strict=True)
        ]
        said = [
            [self.read(task, text) for text in row]
            for task, row in zip(batch["task"], texts, strict=True)
        ]
        return Rollout(
            actions=actions.where(mask, 0),
            mask=mask,
            readable=self._table(said, lambda one: one.readable).bool(),
            quality=self._table(said, lambda one: _number(one.quality)),
            levels=self._table(said, lambda one: one.levels or UNSAID).long(),
            preference=self._table(said, lambda one: _number(one.preference)),
        )

    def text(self, tokens: Tensor, mask: Tensor) -> str:
        """Without the end of sequence; other special tokens stay, so that they spoil the format."""
        kept = [token for token in tokens[mask].tolist() if token not in self.ends]
        found: str = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        return found

    def _table(self, said: Sequence[Sequence[Meaning]], of: Callable[[Meaning], Any]) -> Tensor:
        values = [[of(one) for one in row] for row in said]
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the model speaks as it was before training. ValueError when nobody kept it."""
        if self._start is None and not adapted(self.network):
            raise ValueError("no reference was kept: build the writer with anchored=True, or kl 0")
        self._as_reference = True
        try:
            with self._without_adapter():
                yield
        finally:
            self._as_reference = False

    def _without_adapter(self) -> AbstractContextManager[None]:
        off: AbstractContextManager[None] = (
            self.network.disable_adapter() if adapted(self.network) else nullcontext()
        )
        return off

    def _speaker(self) -> Any:
        if self._as_reference and self._start is not None:
            return self._start.network.to(self.device)
        return self.network

    @contextmanager
    def _economically(self, network: Any) -> Iterator[None]:
        """Layers checkpoint only in training mode; dropout is none, so the mode changes no more."""
        if self.checkpointing and torch.is_grad_enabled():
            network.train()
            try:
                yield
            finally:
                network.eval()
        else:
            yield

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self.network.parameters()).device
        return found

    def state_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What learns, and no more: the frozen weights are where they were loaded from."""
        return {
            name: _whole(p.detach())
            for name, p in self.network.named_parameters()
            if p.requires_grad
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], *_args: Any, **_kwargs: Any) -> None:
        """Raises ValueError when the weights are those of another model or adapter."""
        learned = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        if learned.keys() != state_dict.keys():
            odd = sorted(learned.keys() ^ state_dict.keys())
            raise ValueError(f"weights of another model or adapter: {odd[0]} is in one alone")
        with torch.no_grad():
            for name, parameter in learned.items():
                parameter.copy_(_alike(state_dict[name], parameter))


class Frozen:
    """Keeps a network out of the module tree: it neither learns nor is it saved."""

    def __init__(self, network: Any) -> None:
        self.network = network


def load(source: str | Path, loading: Loading) -> Any:
    """The network of a checkpoint folder or hub name, ready to be trained as `loading` says.

    Raises ValueError with the remedy where something that was asked for is not installed.
    """
    return equipped(_loaded(source, loading), loading)


def _loaded(source: str | Path, loading: Loading) -> Any:
    transformers = importlib.import_module("transformers")
    asked: dict[str, Any] = {"dtype": PRECISIONS[loading.precision]}
    if loading.four_bit:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(
                "four_bit needs bitsandbytes: pip install bitsandbytes, or set four_bit: false"
            )
        asked["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=PRECISIONS[loading.precision],
        )
    try:
        return transformers.AutoModelForImageTextToText.from_pretrained(str(source), **asked)
    except (OSError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{source} cannot be loaded ({first}): name a checkpoint folder or a hub name"
        ) from error


def equipped(network: Any, loading: Loading) -> Any:
    """The network with its adapter, or with all weights to learn; dropout is none.

    Raises ValueError when an adapter has TRAINABLE_LIMIT parameters or more.
    """
    if loading.checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    if not loading.adapter_rank:
        return network.requires_grad_(True)
    peft = importlib.import_module("peft")
    if loading.four_bit:
        network = peft.prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    names = "|".join(name.strip() for name in loading.adapter_on.split(","))
    adapter = peft.LoraConfig(
        r=loading.adapter_rank,
        lora_alpha=loading.adapter_alpha,
        lora_dropout=0.0,
        target_modules=rf"(?!.*visual).*\.(?:{names})",
    )
    try:
        adapted_network = peft.get_peft_model(network, adapter)
    except ValueError as error:
        raise ValueError(f"adapter_on {loading.adapter_on!r} fits no layer: {error}") from error
    if trainable(adapted_network) >= TRAINABLE_LIMIT:
        raise ValueError(
            f"{trainable(adapted_network):,} trainable parameters; an adapter must stay under "
            f"{TRAINABLE_LIMIT:,}: make adapter_rank smaller, or name fewer layers in adapter_on"
        )
    return adapted_network


def counted(network: nn.Module) -> str:
    """What learns of what is there, in words: `5.0 M of 8,297 M parameters learn (0.06 %)`."""
    learn, all_of_them = trainable(network), sum(p.numel() for p in network.parameters())
    share = 100 * learn / all_of_them
    return f"{learn / 1e6:,.2f} M of {all_of_them / 1e6:,.2f} M parameters learn ({share:.2f} %)"


def save(folder: Path, policy: Writer, processor: Any, prompts: Prompts) -> None:
    """The adapter in `folder`/adapter where there is one, else the whole model in `folder`/model.

    Both with the processor, as transformers and peft load them, and with the prompts, so that
    serving asks as training did.
    """
    place = folder / ("adapter" if adapted(policy.network) else "model")
    policy.network.save_pretrained(place)
    processor.save_pretrained(place)
    save_prompts(place, prompts)


def generated(policy: Writer, prompts: Sequence[Prompt], chances: Tensor) -> Tensor:
    """The ordinary `Sampler`: transformers' generate, drawing by `chances`.

    Every setting that changes probabilities is stated: checkpoints ship with penalties and
    temperatures of their own, which `log_prob` would know nothing of.
    """
    transformers = importlib.import_module("transformers")
    inputs = policy.collated(prompts)
    begin = inputs["input_ids"].shape[1]
    found = policy.network.generate(
        **inputs,
        logits_processor=transformers.LogitsProcessorList([Drawing(policy, chances, begin)]),
        generation_config=transformers.GenerationConfig(
            max_new_tokens=chances.shape[1],
            num_return_sequences=len(chances) // len(prompts),
            do_sample=True,  # of what `Drawing` leaves, which is one token
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            eos_token_id=list(policy.ends),
            pad_token_id=policy.ends[0],
        ),
    )
    tokens: Tensor = found[:, begin:]
    return tokens


class Drawing:
    """Chooses each token: where the cumulative distribution passes its chance.

    A chance below 0 chooses the likeliest. Called by generate with all tokens so far and the
    scores (S, V) of the next; leaves one token possible.
    """

    def __init__(self, policy: Writer, chances: Tensor, begin: int) -> None:
        self.policy, self.chances, self.begin = policy, chances, begin

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        chance = self.chances[:, tokens.shape[1] - self.begin].double()  # (S,)
        logits = tempered(scores, self.policy.temperature, self.policy.forbidden)
        total = logits.double().softmax(-1).cumsum(-1)  # (S, V)
        passed = torch.searchsorted(total, chance[:, None] * total[:, -1:], right=True)
        token = passed.squeeze(-1).clamp(max=scores.shape[-1] - 1)
        token = logits.argmax(-1).where(chance < 0, token)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def tempered(logits: Tensor, temperature: float, forbidden: Tensor) -> Tensor:
    """(..., V) as probabilities are made of them, for drawing and for scoring alike."""
    scaled = logits.float() / temperature
    return scaled.index_fill(-1, forbidden.to(scaled.device), -torch.inf)


def written(actions: Tensor, ends: Sequence[int]) -> Tensor:
    """(..., T) True up to and including the first end of sequence."""
    ended = torch.isin(actions, torch.tensor(ends, device=actions.device))
    return ended.long().cumsum(-1) - ended.long() == 0


def uniform(seeds: Tensor, answers: int, steps: int) -> Tensor:
    """(B G, T) float64 in [0, 1); row b comes from seeds[b] alone."""
    rng = torch.Generator()
    rows = [
        torch.rand(answers, steps, generator=rng.manual_seed(seed), dtype=torch.float64)
        for seed in seeds.tolist()
    ]
    return torch.cat(rows)


def ends(network: Any) -> list[int]:
    """Tokens that end an answer; the first also pads."""
    found = network.generation_config.eos_token_id
    if found is None:
        raise ValueError("the model names no end of sequence (generation_config.eos_token_id)")
    return [found] if isinstance(found, int) else list(found)


def placeholders(network: Any) -> Tensor:
    """Tokens that stand for pictures: none of an answer's."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id")
    found = [getattr(network.config, name, None) for name in names]
    return torch.tensor([token for token in found if token is not None])


def adapted(network: Any) -> bool:
    """True where peft has put an adapter around it."""
    return hasattr(network, "peft_config") and hasattr(network, "disable_adapter")


def plain(network: Any) -> Any:
    """Without what peft has put around it."""
    return network.get_base_model() if adapted(network) else network


def takes_encoded(network: Any) -> bool:
    """True where pictures may be given as what the vision tower made of them."""
    return "mm_encoder_outputs" in inspect.signature(plain(network).forward).parameters


def turns(network: Any) -> bool:
    """True where the network tells at which position the text behind pictures goes on."""
    return hasattr(getattr(plain(network), "model", None), "rope_deltas")


def repeated(counts: Sequence[int], place: Sequence[int]) -> list[int]:
    """Which pictures stand in each of the sequences `place`, when row i has counts[i] of them."""
    first = [sum(counts[:row]) for row in range(len(counts))]
    return [first[row] + i for row in place for i in range(counts[row])]


def _selected(seen: Any, which: Sequence[int]) -> Any:
    """The encoded pictures `which`, of all layers that the language model reads."""
    found = copy.copy(seen)
    found.pooler_output = tuple(seen.pooler_output[i] for i in which)
    deep = getattr(seen, "deepstack_features", None)
    if deep is not None:
        found.deepstack_features = [tuple(layer[i] for i in which) for layer in deep]
    return found


def _padded(row: Tensor, length: int, padding: int) -> Tensor:
    """(1, L) filled up on the left."""
    return nn.functional.pad(row, (length - row.shape[-1], 0), value=padding)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _whole(value: Tensor) -> Tensor:
    """A copy on the CPU; of a weight divided over processes, all of it."""
    full = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach().cpu().clone()


def _alike(value: Tensor, parameter: Any) -> Tensor:
    """`value` divided over processes as `parameter` is."""
    if not hasattr(parameter, "device_mesh"):
        whole: Tensor = value.to(parameter)
        return whole
    distribute = importlib.import_module("torch.distributed.tensor").distribute_tensor
    moved: Tensor = distribute(
        value.to(parameter.device, parameter.dtype), parameter.device_mesh, parameter.placements
    )
    return moved
