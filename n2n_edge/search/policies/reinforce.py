"""The policy that learns: REINFORCE over an LSTM, made to get by with tens to hundreds of candidates."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from n2n_edge.errors import InputError
from n2n_edge.search.policies.base import Observation, choose_distinct, numpy_generator, varied
from n2n_edge.search.policies.networks import RemovalNetwork, ShrinkageNetwork
from n2n_edge.search.problem import DecisionProblem, Proposal

__all__ = ["ReinforcePolicy", "ReinforceSettings"]

_TRIES_PER_NEIGHBOUR = 10
_LEAST_PRACTICE = 4


@dataclass(frozen=True)
class ReinforceSettings:
    """How the policy learns; the defaults were chosen on synthetic problems of 10 to 12 steps and 300 candidates."""

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
        self.name = "reinforce" if settings is None else "n2n"
        self._settings = settings or ReinforceSettings()
        self._features = torch.from_numpy(problem.features.astype("float32"))
        self._offset = _log_prior(problem, self._settings)
        network = RemovalNetwork if problem.kind == "removal" else ShrinkageNetwork
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._network = network(problem.features.shape[1], problem.actions, self._settings.hidden)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=self._settings.learning_rate)
        self._observed = 0
        self._practised = 0
        self._rewards: dict[Proposal, float] = {}
        self._baseline = 0.0
        self._variance = 0.0
        self._last = torch.tensor([problem.default])

    @property
    def entropy(self) -> float:
        """The mean entropy of the free steps as a share of the largest possible, along the last batch of candidates."""
        free = torch.tensor([choices > 1 for choices in self._problem.choices])
        if not free.any():
            return 0.0
        largest = torch.tensor(self._problem.choices, dtype=torch.float32).log()
        with torch.no_grad():
            _, entropy = self._evaluate(self._last)
        return float((entropy[:, free] / largest[free]).mean())

    def propose(self, count: int) -> list[Proposal]:
        """Return samples of the policy, unseen ones first, and neighbours of the best candidates so far."""
        generator = numpy_generator(self._seed, self._observed)
        sampler = torch.Generator().manual_seed(int(generator.integers(2**62)))
        around = self._neighbours(int(count * self._settings.neighbour_share), generator)
        number = self._settings.draws_per_proposal * count
        with torch.no_grad():
            sampled = self._network.sample(self._features, self._offset, number, sampler)
        draws = sorted((tuple(actions) for actions in sampled.tolist()), key=lambda actions: actions in self._rewards)
        return choose_distinct(self._problem, chain(around, draws), count, generator)

    def sample(self, count: int) -> list[Proposal]:
        """Return `count` samples of the policy as it is, repeats among them; other ones after every `practise`."""
        sampler = torch.Generator().manual_seed(
            int(numpy_generator(self._seed, self._observed, self._practised, 1).integers(2**62))
        )
        with torch.no_grad():
            sampled = self._network.sample(self._features, self._offset, count, sampler)
        return [tuple(actions) for actions in sampled.tolist()]

    def practise(self, proposals: Sequence[Proposal], rewards: Sequence[float]) -> None:
        """Learn from rewards that are only expected: a policy-gradient step like any other, in its own units."""
        self._practised += 1
        if not any(choices > 1 for choices in self._problem.choices) or len(proposals) < _LEAST_PRACTICE:
            return
        values = torch.tensor(rewards, dtype=torch.float64)
        spread = float(values.std())
        if not spread > 0:
            return
        advantages = ((values - values.mean()) / spread).clamp(
            -self._settings.advantage_clip, self._settings.advantage_clip
        )
        self._learn(torch.tensor(proposals), advantages.float(), imitate=False)

    def observe(self, results: Sequence[Observation]) -> None:
        """Learn from a batch of results; raises ValueError for an action not allowed or a reward that isn't finite."""
        for result in results:
            self._problem.check(result.actions)
            if not math.isfinite(result.reward):
                raise ValueError(f"the reward of a candidate must be finite, not {result.reward}")
        if not results:
            return
        advantages = self._advantages([result.reward for result in results])
        self._observed += len(results)
        self._rewards.update((result.actions, result.reward) for result in results)
        if any(choices > 1 for choices in self._problem.choices):
            self._last = torch.tensor([result.actions for result in results])
            self._learn(self._last, advantages)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's weights: what it learnt about layers, nothing about this network's candidates."""
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Start from the weights of another run; raises InputError if they are of another kind or size of policy."""
        if not state:
            raise InputError(
                "the policy to start from is empty (random and greedy learn nothing): name a reinforce run"
            )
        own = self._network.state_dict()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in state.items()}:
            raise InputError(
                f"the policy to start from doesn't fit the {self._problem.kind} policy of this version: "
                "name a run that the same version of n2n-edge wrote"
            )
        self._network.load_state_dict(dict(state))

    def _elites(self) -> list[Proposal]:
        return heapq.nlargest(self._settings.elites, self._rewards, key=self._rewards.__getitem__)

    def _neighbours(self, count: int, generator: np.random.Generator) -> list[Proposal]:
        """Return up to `count` unseen proposals one or two notches from an elite; none before there is an elite."""
        elites = self._elites()
        found: dict[Proposal, None] = {}
        for _ in range(_TRIES_PER_NEIGHBOUR * count if elites else 0):
            elite = elites[int(generator.integers(len(elites)))]
            neighbour = varied(self._problem, elite, generator, changes=int(generator.integers(1, 3)))
            if neighbour not in self._rewards:
                found.setdefault(neighbour)
            if len(found) == count:
                break
        return list(found)

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
