"""What to judge next: the policy practises on expected rewards, and what is most worth knowing is chosen."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from n2n_edge.graph.teacher import Teacher
from n2n_edge.search.evaluator import Judged
from n2n_edge.search.policies.base import PractisingPolicy, numpy_generator, varied
from n2n_edge.search.policies.random import RandomPolicy
from n2n_edge.search.problem import Proposal
from n2n_edge.search.rehearsal import Expected, Rehearsal
from n2n_edge.search.stages import Design, RemovalStage, ShrinkageStage

__all__ = ["Practice"]

_BATCH = 4
"""Candidates judged before the policy learns again; few, since it can practise in between."""

_ROUNDS = {"removal": 6, "shrinkage": 10}
_SAMPLES = {"removal": 24, "shrinkage": 96}
"""Rounds of practice before each batch, and designs in each: every new choice of layers has to be analysed."""

_STRANGERS = {"removal": 32, "shrinkage": 96}
"""Random designs of every size that join them: what the policy would never sample may still be worth knowing."""

_CLIMBS = {"removal": 2, "shrinkage": 4}
_CLIMBERS = 6
_TRIES = 6
"""Local search in the surrogate: steps, how many of the best designs take part, and changes tried of each."""

_BOLDNESS_START, _BOLDNESS_END = 1.5, 0.3
"""How many standard deviations of doubt count as promise when candidates are chosen to be judged."""

_BRANCH_MOVES = 0.5

_THINNED = (0.25, 0.5, 0.75)
"""Shares of the residual branches that stage 1 removes to begin with, those first that are missed least."""

_CHOICES = 5
_NEIGHBOURS = 16
_VARIATIONS = 24
"""Choices of layers that may lead the next round of stage 2: of the best judged, layers tried beside the first of
them, and designs tried for each."""


@dataclass
class Practice:
    """Chooses what a run judges, from what its rehearsal expects; `seed` alone decides what is drawn."""

    rehearsal: Rehearsal
    seed: int
    _asked: int = field(default=0, init=False)
    _best: dict[frozenset[str], Judged] = field(default_factory=dict, init=False)

    def learn(self, judged: Judged) -> None:
        """Take in a real judgement."""
        self.rehearsal.learn([judged])
        best = self._best.get(judged.architecture.removed)
        if judged.feasible and (best is None or judged.reward > best.reward):
            self._best[judged.architecture.removed] = judged

    def propose(
        self,
        stage: RemovalStage | ShrinkageStage,
        policy: PractisingPolicy,
        wanted: int,
        judged_before: set[Proposal],
        progress: float,
    ) -> list[Proposal]:
        """Return the next proposals to judge, those most worth knowing after the policy has practised.

        None where practice finds nothing that would be another architecture.
        """
        known: dict[Proposal, Expected] = {}
        for _ in range(_ROUNDS[stage.name]):
            samples = policy.sample(_SAMPLES[stage.name])
            self._expect(stage, samples, known, progress)
            policy.practise(samples, [known[sample].reward for sample in samples])
        generator = numpy_generator(self.seed, len(judged_before), 2)
        strangers = RandomPolicy(stage.problem, seed=int(generator.integers(2**31)))
        self._expect(stage, strangers.propose(_STRANGERS[stage.name]), known, progress)
        self._expect(stage, [*self.starts(stage), *sorted(judged_before)], known, progress)
        for _ in range(_CLIMBS[stage.name]):
            best = heapq.nlargest(_CLIMBERS, known, key=lambda proposal: known[proposal].reward)
            steps = [_moved(stage, proposal, generator) for proposal in best for _ in range(_TRIES)]
            self._expect(stage, steps, known, progress)
        return self._most_worth_knowing(known, judged_before, min(_BATCH, wanted), progress)

    def starts(self, stage: RemovalStage | ShrinkageStage) -> list[Proposal]:
        """Return what a stage begins with.

        Stage 1 with everything as wide as the budgets allow, and without the branches that the profile finds least
        important; stage 2 with the best widths that were judged for its layers, and those that the profile suggests.
        """
        if isinstance(stage, ShrinkageStage):
            best = self._best.get(stage.removed)
            first = (
                stage.problem.default if best is None else stage.nearest(self.rehearsal.ratios_of(best.architecture))
            )
            return list(dict.fromkeys([first, stage.nearest(self.rehearsal.shaped(stage.removed))]))
        if not self.rehearsal.is_bound:
            return [stage.problem.default]
        layers = stage.teacher.layers
        missed = {
            branch: sum(self.rehearsal.profile.layers.get(layers[step].name, 0.0) for step in branch)
            / max(sum(self.rehearsal.share(layers[step]) for step in branch), 1e-9)
            for branch in stage.branches
        }
        ranked = sorted(stage.branches, key=lambda branch: missed[branch])
        thinned = [ranked[: round(share * len(ranked))] for share in _THINNED]
        return list(dict.fromkeys([stage.problem.default, *(stage.without(chain(*gone)) for gone in thinned)]))

    def design(self, stage: RemovalStage | ShrinkageStage, proposal: Proposal) -> Design:
        """Return what a proposal means: a choice of layers takes the widths that the sensitivity profile suggests."""
        design = stage.design(proposal)
        if isinstance(stage, ShrinkageStage):
            return design
        return Design(design.removed, self.rehearsal.shaped(design.removed))

    def leading_layers(self, teacher: Teacher, feasible: Sequence[Judged], progress: float) -> frozenset[str]:
        """Return the choice of layers to remove whose best widths are expected to earn most.

        Tried are the choices of the best candidates in `feasible`, and single layers more or less than the first.
        """
        ranked = sorted(feasible, key=lambda judged: -self.rehearsal.reward_of(judged))
        choices = dict.fromkeys(judged.architecture.removed for judged in ranked)
        best = list(choices)[:_CHOICES]
        self._asked += 1
        generator = numpy_generator(self.seed, self._asked, 3)
        removable = [layer.name for layer in teacher.layers if layer.removable]
        toggled = [removable[place] for place in generator.permutation(len(removable))[:_NEIGHBOURS]]
        best += [teacher.repaired(best[0] ^ {name}) for name in toggled]
        widths = {judged.architecture.removed: judged for judged in reversed(ranked)}
        worth: dict[frozenset[str], float] = {}
        for removed in dict.fromkeys(best):
            shaped = self.rehearsal.shaped(removed)
            known = self.rehearsal.ratios_of(widths.get(removed, ranked[0]).architecture)
            starts = [shaped, {**shaped, **{name: known[name] for name in known if name in shaped}}]
            designs = [Design(removed, {}), *(Design(removed, start) for start in starts)]
            for _ in range(_VARIATIONS if shaped else 0):
                start = starts[int(generator.integers(len(starts)))]
                factors = np.exp(generator.normal(0.0, 0.3, len(start)) * (generator.random(len(start)) < 0.3))
                designs.append(
                    Design(
                        removed,
                        {name: ratio * float(f) for (name, ratio), f in zip(start.items(), factors, strict=True)},
                    )
                )
            worth[removed] = max(expected.reward for expected in self.rehearsal.expect(designs, progress))
        return max(worth, key=lambda removed: worth[removed])

    def _expect(
        self,
        stage: RemovalStage | ShrinkageStage,
        proposals: Sequence[Proposal],
        known: dict[Proposal, Expected],
        progress: float,
    ) -> None:
        """Add to `known` what those of `proposals` are expected to earn that aren't in it."""
        new = [proposal for proposal in dict.fromkeys(proposals) if proposal not in known]
        designs = [self.design(stage, one) for one in new]
        known.update(zip(new, self.rehearsal.expect(designs, progress), strict=True))

    def _most_worth_knowing(
        self, known: Mapping[Proposal, Expected], judged_before: set[Proposal], count: int, progress: float
    ) -> list[Proposal]:
        """Return up to `count` proposals that haven't been judged, each another architecture."""
        done = {known[proposal].identity for proposal in judged_before if proposal in known}
        fresh: dict[object, Proposal] = {}
        for proposal, expected in known.items():
            if proposal not in judged_before and expected.identity not in done:
                fresh.setdefault(expected.identity, proposal)
        feasible = [proposal for proposal in fresh.values() if known[proposal].feasible]
        boldness = _BOLDNESS_START + progress * (_BOLDNESS_END - _BOLDNESS_START)
        places = self.rehearsal.surrogate.choose(
            [known[proposal].sketch for proposal in feasible],
            np.array([known[proposal].reward for proposal in feasible]),
            np.array([known[proposal].slope for proposal in feasible]),
            count,
            boldness,
        )
        chosen = [feasible[place] for place in places]
        others = [proposal for proposal in fresh.values() if not known[proposal].feasible]
        others.sort(key=lambda proposal: -known[proposal].reward)
        return chosen + others[: count - len(chosen)]


def _moved(stage: RemovalStage | ShrinkageStage, proposal: Proposal, generator: np.random.Generator) -> Proposal:
    """Return `proposal` with one or two steps changed, in stage 1 as often with a whole branch gone or back."""
    if isinstance(stage, ShrinkageStage) or generator.random() < _BRANCH_MOVES:
        return varied(stage.problem, proposal, generator, changes=int(generator.integers(1, 3)))
    branch = stage.branches[int(generator.integers(len(stage.branches)))]
    gone = all(proposal[step] == 0 for step in branch)
    actions = list(proposal)
    for step in branch:
        actions[step] = stage.problem.default[step] if gone else 0
    return tuple(actions)
