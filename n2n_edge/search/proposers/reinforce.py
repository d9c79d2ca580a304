"""REINFORCE over an LSTM, made to get by with tens to hundreds of candidates: networks, policy and proposer."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from n2n_edge.search.precision import Depth
from n2n_edge.search.proposers.base import Proposer, SearchContext, Stream, choose_distinct, generator_of, varied
from n2n_edge.search.space import DecisionProblem, Stage
from n2n_edge.search.trial import Actions, Trial

__all__ = ["ReinforcePolicy", "ReinforceProposer", "ReinforceSettings"]

_FREQUENCIES = (1, 2, 4, 8, 16)
_POSITION_FEATURES = 1 + 2 * len(_FREQUENCIES)

_TRIES_PER_NEIGHBOUR = 10
_LEAST_SAMPLES = 4
"""Fewer samples than this teach nothing."""


@dataclass(frozen=True)
class ReinforceSettings:
    """Settings of the learning; the defaults were chosen on synthetic problems of 10 to 12 steps and 300 candidates."""

    hidden: int = 48
    """Units of each LSTM layer."""
    learning_rate: float = 5e-3
    updates: int = 6
    """Gradient steps on each observed batch."""
    ratio_clip: float = 0.2
    """How far an action's probability may move within one batch before its gradient stops (Schulman et al., 2017)."""
    elites: int = 5
    """How many of the best candidates so far are imitated in every step beside the batch ..."""
    elite_weight: float = 1.0
    neighbour_share: float = 0.25
    """... and the share of a batch that explores around them, one or two notches away."""
    entropy_start: float = 0.3
    entropy_end: float = 0.1
    """Weight of the entropy bonus, annealed over the expected candidates."""
    baseline_decay: float = 0.9
    advantage_clip: float = 3.0
    gradient_clip: float = 1.0
    keep_probability: float = 0.8
    """Removal without a bias starts with this chance for every layer to stay ..."""
    notch_penalty: float = 0.5
    """... and shrinkage with log-probabilities that fall by this much with every notch."""
    draws_per_proposal: int = 4

    @classmethod
    def plain(cls) -> "ReinforceSettings":
        """Return REINFORCE as N2N Learning has it (section 3.3): one step a batch, no imitation, no neighbourhoods."""
        return cls(updates=1, ratio_clip=math.inf, elites=0, elite_weight=0.0, neighbour_share=0.0)


class ReinforceProposer(Proposer):
    """Samples from a policy of its own for each stage, which learns from every batch of trials."""

    name = "n2n"
    settings = ReinforceSettings.plain()

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self._policies: dict[tuple[str, Depth], ReinforcePolicy] = {}
        self._learned: dict[str, dict[str, Tensor]] = {}

    @property
    def policy(self) -> "ReinforcePolicy":
        """The policy of the stage."""
        return self._policies[self.stage.name, self.stage.depth]

    @property
    def entropy(self) -> float | None:
        """How undecided the policy is."""
        return self.policy.entropy

    def start(self, stage: Stage) -> None:
        """Go on with the stage's policy, or make one that starts from what this stage learned on other layers."""
        if self._policies:
            self._learned[self.stage.name] = self.policy.state_dict()
        super().start(stage)
        key = (stage.name, stage.depth)
        if key not in self._policies:
            expected = self.context.expected.get(stage.name, 1)
            policy = ReinforcePolicy(self.problem, seed=self.seed, expected_candidates=expected, settings=self.settings)
            if stage.name in self._learned:
                policy.load_state_dict(self._learned[stage.name])
            self._policies[key] = policy

    def ask(self, count: int) -> list[Actions]:
        """Return samples of the policy, unseen ones first, and neighbours of the best trials so far."""
        return self.policy.propose(count)

    def tell(self, trial: Trial) -> None:
        """Keep a trial for the policy, which learns from all of a batch before it is asked again."""
        self.policy.observe(trial.actions, trial.reward)


class ReinforcePolicy:
    """Samples candidates from an LSTM and follows the policy gradient of their rewards (Williams, 1992).

    Removal reads the layers with a bidirectional LSTM; shrinkage chooses widths with an autoregressive one (N2N
    Learning, Ashok et al., ICLR 2018, section 3.2). The advantage of each candidate is its own reward less a moving
    average, in units of a moving standard deviation.

    What makes it learn from few candidates: several clipped gradient steps a batch, imitation of the best candidates so
    far, a share of the batch spent next to them, and a preference for proposals that have not been seen. The entropy
    bonus keeps it from settling on the first good one.
    """

    def __init__(
        self,
        problem: DecisionProblem,
        *,
        seed: int,
        expected_candidates: int,
        settings: ReinforceSettings | None = None,
    ) -> None:
        self._problem = problem
        self._seed = seed
        self._expected_candidates = max(expected_candidates, 1)
        self._settings = settings or ReinforceSettings()
        self._features = torch.from_numpy(problem.features.astype("float32"))
        self._offset = _log_prior(problem, self._settings)
        network = RemovalNetwork if problem.kind == "removal" else ShrinkageNetwork
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._network = network(problem.features.shape[1], problem.actions, self._settings.hidden)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=self._settings.learning_rate)
        self._pending: list[tuple[Actions, float]] = []
        self._observed = 0
        self._simulated = 0
        self._rewards: dict[Actions, float] = {}
        self._baseline = 0.0
        self._variance = 0.0
        self._last = torch.tensor([problem.default])

    @property
    def entropy(self) -> float:
        """The mean entropy of the free steps as a share of the largest possible, along the last batch of candidates."""
        self._learn_pending()
        free = torch.tensor([choices > 1 for choices in self._problem.choices])
        if not free.any():
            return 0.0
        largest = torch.tensor(self._problem.choices, dtype=torch.float32).log()
        with torch.no_grad():
            _, entropy = self._evaluate(self._last)
        return float((entropy[:, free] / largest[free]).mean())

    def propose(self, count: int) -> list[Actions]:
        """Return samples of the policy, unseen ones first, and neighbours of the best candidates so far."""
        self._learn_pending()
        generator = generator_of(Stream.PROPOSALS, self._seed, self._observed)
        sampler = torch.Generator().manual_seed(int(generator.integers(2**62)))
        around = self._neighbours(int(count * self._settings.neighbour_share), generator)
        number = self._settings.draws_per_proposal * count
        with torch.no_grad():
            sampled = self._network.sample(self._features, self._offset, number, sampler)
        draws = sorted((tuple(actions) for actions in sampled.tolist()), key=lambda actions: actions in self._rewards)
        return choose_distinct(self._problem, chain(around, draws), count, generator)

    def sample(self, count: int) -> list[Actions]:
        """Return `count` samples of the policy as it is, repeats among them; other ones after every `simulate`."""
        self._learn_pending()
        sampler = torch.Generator().manual_seed(
            int(generator_of(Stream.SAMPLES, self._seed, self._observed, self._simulated).integers(2**62))
        )
        with torch.no_grad():
            sampled = self._network.sample(self._features, self._offset, count, sampler)
        return [tuple(actions) for actions in sampled.tolist()]

    def simulate(self, sampled: Sequence[Actions], rewards: Sequence[float]) -> None:
        """Learn from predicted rewards: a policy-gradient step like any other, in its own units."""
        self._simulated += 1
        if not any(choices > 1 for choices in self._problem.choices) or len(sampled) < _LEAST_SAMPLES:
            return
        values = torch.tensor(rewards, dtype=torch.float64)
        spread = float(values.std())
        if not spread > 0:
            return
        advantages = ((values - values.mean()) / spread).clamp(
            -self._settings.advantage_clip, self._settings.advantage_clip
        )
        self._learn(torch.tensor(sampled), advantages.float(), imitate=False)

    def observe(self, actions: Actions, reward: float) -> None:
        """Take in a result; raises ValueError for an action not allowed or a reward that isn't finite."""
        self._problem.check(actions)
        if not math.isfinite(reward):
            raise ValueError(f"the reward of a trial must be finite, not {reward}")
        self._pending.append((actions, reward))

    def _learn_pending(self) -> None:
        """Learn from all results since the last time, as one batch."""
        batch, self._pending = self._pending, []
        if not batch:
            return
        advantages = self._advantages([reward for _, reward in batch])
        self._observed += len(batch)
        self._rewards.update(batch)
        if any(choices > 1 for choices in self._problem.choices):
            self._last = torch.tensor([actions for actions, _ in batch])
            self._learn(self._last, advantages)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's weights: what it learnt about layers, nothing about this network's candidates."""
        self._learn_pending()
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Start from the weights of another policy of the same kind."""
        self._network.load_state_dict(dict(state))

    def _elites(self) -> list[Actions]:
        return heapq.nlargest(self._settings.elites, self._rewards, key=self._rewards.__getitem__)

    def _neighbours(self, count: int, generator: np.random.Generator) -> list[Actions]:
        """Return up to `count` unseen candidates one or two notches from an elite; none before there is an elite."""
        elites = self._elites()
        neighbours: dict[Actions, None] = {}
        for _ in range(_TRIES_PER_NEIGHBOUR * count if elites else 0):
            elite = elites[int(generator.integers(len(elites)))]
            neighbour = varied(self._problem, elite, generator, changes=int(generator.integers(1, 3)))
            if neighbour not in self._rewards:
                neighbours.setdefault(neighbour)
            if len(neighbours) == count:
                break
        return list(neighbours)

    def _advantages(self, rewards: list[float]) -> Tensor:
        """Return (N,) advantages, one per candidate, and move the baseline and scale on."""
        settings = self._settings
        values = torch.tensor(rewards, dtype=torch.float64)
        # A plain mean at first, so that an odd first batch is soon outweighed; a moving one later.
        rate = max(1.0 - settings.baseline_decay, len(rewards) / (self._observed + len(rewards)))
        self._baseline += rate * (float(values.mean()) - self._baseline)
        deviations = values - self._baseline
        self._variance += rate * (float(deviations.square().mean()) - self._variance)
        scaled = deviations / math.sqrt(self._variance + 1e-8)
        return scaled.clamp(-settings.advantage_clip, settings.advantage_clip).float()

    def _learn(self, actions: Tensor, advantages: Tensor, *, imitate: bool = True) -> None:
        settings = self._settings
        elites = self._elites() if imitate else []
        together = torch.cat([actions, torch.tensor(elites)]) if elites else actions
        count = len(actions)
        done = min(self._observed / self._expected_candidates, 1.0)
        entropy_weight = settings.entropy_start + done * (settings.entropy_end - settings.entropy_start)
        with torch.no_grad():
            before, _ = self._evaluate(actions)
        weight = advantages[:, None]
        for _ in range(settings.updates):
            log_probability, entropy = self._evaluate(together)
            ratio = (log_probability[:count] - before).exp()
            clipped = ratio.clamp(1 - settings.ratio_clip, 1 + settings.ratio_clip)
            gain = torch.minimum(ratio * weight, clipped * weight).mean()
            imitation = log_probability[count:].mean() if elites else log_probability.new_zeros(())
            bonus = entropy[:count].mean()
            loss = -(gain + settings.elite_weight * imitation + entropy_weight * bonus)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._network.parameters(), settings.gradient_clip)
            self._optimizer.step()

    def _evaluate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each action and the entropy of each step, both (N, L)."""
        log_probabilities = torch.log_softmax(self._network.logits(self._features, self._offset, actions), dim=-1)
        finite = log_probabilities.masked_fill(log_probabilities.isneginf(), 0.0)
        entropy = -(log_probabilities.exp() * finite).sum(dim=-1)
        return log_probabilities.gather(2, actions[..., None])[..., 0], entropy


def _log_prior(problem: DecisionProblem, settings: ReinforceSettings) -> Tensor:
    """Return (L, A) logits to start from: the problem's bias or a leaning to the default, -inf for masked actions."""
    prior = torch.full((problem.steps, problem.actions), -math.inf)
    notch = settings.notch_penalty
    if problem.kind == "removal":
        notch = math.log(settings.keep_probability / (1 - settings.keep_probability))
    for step in range(problem.steps):
        for rank, action in enumerate(problem.by_change(step)):
            prior[step, action] = -notch * rank if problem.bias is None else float(problem.bias[step, action])
    return prior


class RemovalNetwork(nn.Module):
    """Reads the whole layer sequence in both directions, then decides on all layers independently.

    The head starts at zero, so the first distribution is the one that `offset` describes.
    """

    def __init__(self, features: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features + _POSITION_FEATURES, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = _zero_linear(2 * hidden, actions)

    def logits(self, features: Tensor, offset: Tensor, actions: Tensor) -> Tensor:
        """Return (N, L, A) logits; the same for every candidate, since no decision depends on another."""
        hidden, _ = self.lstm(_with_position(features)[None])
        logits: Tensor = self.head(hidden) + offset
        return logits.expand(actions.shape[0], -1, -1)

    def sample(self, features: Tensor, offset: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return (N, L) sampled actions."""
        hidden, _ = self.lstm(_with_position(features)[None])
        probabilities = torch.softmax(self.head(hidden)[0] + offset, dim=-1)
        return torch.multinomial(probabilities, count, replacement=True, generator=generator).T


class ShrinkageNetwork(nn.Module):
    """Goes over the channel groups in order, each chosen action being an input of the next step."""

    def __init__(self, features: int, actions: int, hidden: int, embedding: int = 8) -> None:
        super().__init__()
        self.start = actions
        self.embed = nn.Embedding(actions + 1, embedding)
        self.lstm = nn.LSTM(features + _POSITION_FEATURES + embedding, hidden, num_layers=2, batch_first=True)
        self.head = _zero_linear(hidden, actions)

    def logits(self, features: Tensor, offset: Tensor, actions: Tensor) -> Tensor:
        """Return (N, L, A) logits of every step, given the actions (N, L) of the steps before it."""
        count = actions.shape[0]
        start = torch.full((count, 1), self.start)
        before = self.embed(torch.cat([start, actions[:, :-1]], dim=1))
        state = _with_position(features).expand(count, -1, -1)
        hidden, _ = self.lstm(torch.cat([state, before], dim=-1))
        logits: Tensor = self.head(hidden) + offset
        return logits

    def sample(self, features: Tensor, offset: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return (N, L) actions, sampled step by step."""
        state = _with_position(features).expand(count, -1, -1)
        action = torch.full((count,), self.start)
        memory: tuple[Tensor, Tensor] | None = None
        chosen = []
        for step in range(state.shape[1]):
            inputs = torch.cat([state[:, step], self.embed(action)], dim=-1)[:, None]
            hidden, memory = self.lstm(inputs, memory)
            probabilities = torch.softmax(self.head(hidden[:, 0]) + offset[step], dim=-1)
            action = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            chosen.append(action)
        return torch.stack(chosen, dim=1)


def _with_position(features: Tensor) -> Tensor:
    """Append where in the sequence a step stands, as (L, 1 + 2 K) values that don't depend on the length L."""
    steps = features.shape[0]
    position = torch.arange(steps, dtype=torch.float32)[:, None] / max(steps - 1, 1)
    waves = [f(math.pi * k * position) for k in _FREQUENCIES for f in (torch.sin, torch.cos)]
    return torch.cat([features, position, *waves], dim=1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
