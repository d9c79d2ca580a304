import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from n2n_edge.errors import InputError
from n2n_edge.search.policies.base import Observation, choose_distinct, numpy_generator
from n2n_edge.search.policies.networks import RemovalNetwork, ShrinkageNetwork
from n2n_edge.search.problem import DecisionProblem, Proposal


@dataclass(frozen=True)
class S:
    hidden: int = 48
    lr: float = 5e-3
    steps: int = 6
    clip: float = 0.2
    elite: int = 0
    elite_weight: float = 0.3
    ent: float = 0.01
    ent_end: float = 0.0
    decay: float = 0.9
    draws: int = 4
    unseen: bool = True
    tab: float = 0.0
    keep: float = 0.8
    tilt: float = 0.5
    advclip: float = 3.0
    grad: float = 1.0


class ReinforcePolicy:
    name = "reinforce"

    def __init__(self, problem, *, seed, expected_candidates, s=S()):
        self._p = problem; self._seed = seed; self.s = s; self._n = 0; self._exp = expected_candidates
        kind = RemovalNetwork if problem.kind == "removal" else ShrinkageNetwork
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.net = kind(problem.features.shape[1], problem.actions, s.hidden)
        self.x = torch.from_numpy(problem.features)
        off = np.full(problem.mask.shape, -np.inf, np.float32)
        for i in range(problem.steps):
            o = problem.by_change(i)
            for r, a in enumerate(o):
                if problem.bias is not None: off[i, a] = problem.bias[i, a]
                elif problem.kind == "removal": off[i, a] = 0.0 if r else math.log(s.keep / (1 - s.keep))
                else: off[i, a] = -s.tilt * r
        self.off0 = torch.from_numpy(off)
        self.tab = nn.Parameter(torch.zeros(problem.mask.shape))
        ps = [{"params": list(self.net.parameters()), "lr": s.lr}]
        if s.tab: ps.append({"params": [self.tab], "lr": s.tab})
        self.opt = torch.optim.Adam(ps)
        self.base = None; self.var = None
        self.seen = {}

    @property
    def off(self): return self.off0 + self.tab if self.s.tab else self.off0

    def propose(self, count):
        g = torch.Generator().manual_seed(self._seed * 1000003 + self._n)
        with torch.no_grad():
            a = self.net.sample(self.x, self.off, self.s.draws * count, g)
        d = [tuple(r) for r in a.tolist()]
        if self.s.unseen: d = [r for r in d if r not in self.seen] + [r for r in d if r in self.seen]
        return choose_distinct(self._p, iter(d), count, numpy_generator(self._seed, self._n))

    def logp(self, a):
        lp = torch.log_softmax(self.net.logits(self.x, self.off, a), -1)
        ent = -(lp.exp() * lp.masked_fill(lp == -math.inf, 0)).sum(-1).mean()
        return lp.gather(2, a[..., None])[..., 0], ent

    def observe(self, res):
        s = self.s
        self._n += len(res)
        r = torch.tensor([o.reward for o in res], dtype=torch.float32)
        a = torch.tensor([o.actions for o in res])
        for o in res: self.seen[o.actions] = o.reward
        m = r.mean().item(); 
        if self.base is None: self.base = m; self.var = max(((r - m) ** 2).mean().item(), 1e-8)
        adv = ((r - self.base) / math.sqrt(self.var + 1e-8)).clamp(-s.advclip, s.advclip)
        self.var = s.decay * self.var + (1 - s.decay) * ((r - self.base) ** 2).mean().item()
        self.base = s.decay * self.base + (1 - s.decay) * m
        if s.elite:
            top = sorted(self.seen, key=self.seen.get, reverse=True)[: s.elite]
            e = torch.tensor(top)
        with torch.no_grad(): old, _ = self.logp(a)
        prog = min(self._n / self._exp, 1.0)
        beta = s.ent + (s.ent_end - s.ent) * prog
        for _ in range(s.steps):
            lp, ent = self.logp(a)
            ratio = (lp - old).exp()
            A = adv[:, None]
            loss = -torch.minimum(ratio * A, ratio.clamp(1 - s.clip, 1 + s.clip) * A).mean() - beta * ent
            if s.elite:
                loss = loss - s.elite_weight * self.logp(e)[0].mean()
            self.opt.zero_grad(); loss.backward()
            nn.utils.clip_grad_norm_([p for gr in self.opt.param_groups for p in gr["params"]], s.grad)
            self.opt.step()
