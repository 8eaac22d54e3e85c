"""Whatever is asked for and whatever happens, a worker comes to what is desired, and never computes else."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.models import Held, ModelCard, Models, WorkerState
from rootserve.server.workers.reconcile import Discard, GetReady, Load, Swap, next_step

NAMES = ("nin-orig", "nin-root-16", "nin-col-2")
MOST_STEPS = 20


def card(name: str, sha256: str) -> ModelCard:
    variant = get_variant(name)
    return ModelCard(variant, network_cost(variant), None, None, sha256)


class Reconciling(RuleBasedStateMachine):
    """One worker, which does what it is told, fails to, or dies."""

    def __init__(self) -> None:
        super().__init__()
        self.models = Models(card(name, "0") for name in NAMES)
        self.models.select([NAMES[0]])
        self.state = self.models.workers["w"] = WorkerState()
        self.started = False
        self.behind = False
        self.versions = 0
        # What its process has, by what it was told alone.
        self.computes: dict[str, ModelCard] = {}
        self.has_behind: dict[str, ModelCard] = {}

    def settle(self) -> None:
        """Do all that is to be done now, as the pool does."""
        for _ in range(MOST_STEPS):
            step = next_step(self.models, self.state) if self.started else None
            match step:
                case None:
                    return
                case Discard(name, running):
                    self.state.staged.pop(name, None)
                    self.has_behind.pop(name, None)
                    if running:
                        del self.state.held[name]
                        del self.computes[name]
                case Swap(name):
                    self.computes[name] = self.has_behind.pop(name)
                    self.state.held[name] = self.state.staged.pop(name)
                case Load(new, behind):
                    assert self.state.loading is None, "one at a time"
                    assert behind == self.state.ready
                    self.state.loading, self.behind = new, behind
                case GetReady():
                    assert not self.state.ready
                    self.state.ready = True
        raise AssertionError("it never comes to an end")

    @rule()
    def start(self) -> None:
        self.started = True
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def serve_new_weights(self, name: str) -> None:
        """Begin a load as model control does, one at a time."""
        if all(model.next is None for model in self.models):
            self.versions += 1
            self.models[name].next = card(name, str(self.versions))
        self.settle()

    @rule(gives_up=st.booleans())
    def end_load(self, gives_up: bool) -> None:
        """Commit when the worker has it behind, or is not ready; or give up."""
        for model in self.models:
            if model.next is not None:
                name = model.card.name
                if gives_up:
                    model.next = None
                elif not self.state.ready or name in self.state.staged:
                    model.card, model.served, model.next = model.next, True, None
        self.settle()

    @rule(name=st.sampled_from(NAMES), retires=st.booleans())
    def unload(self, name: str, retires: bool) -> None:
        model = self.models[name]
        if model.next is None:
            model.served, model.retiring = False, retires
        self.settle()

    @precondition(lambda self: self.state.loading is not None)
    @rule(fails=st.booleans())
    def be_done_loading(self, fails: bool) -> None:
        loaded, self.state.loading = self.state.loading, None
        assert loaded is not None
        name = loaded.name
        if fails and self.behind:
            if self.models[name].next is loaded:
                self.models[name].next = None
        elif fails:
            self.state.failed[name] = loaded, "it is broken"
        elif self.behind:
            self.has_behind[name] = loaded
            self.state.staged[name] = Held(loaded, "fake", "fp32")
        else:
            self.computes[name] = loaded
            self.state.held[name] = Held(loaded, "fake", "fp32")
        self.settle()

    @rule()
    def die(self) -> None:
        self.started = False
        self.state.reset()
        self.computes, self.has_behind = {}, {}

    @invariant()
    def what_is_kept_of_it_is_what_its_process_has(self) -> None:
        assert {name: held.card for name, held in self.state.held.items()} == self.computes
        assert {name: held.card for name, held in self.state.staged.items()} == self.has_behind

    @invariant()
    def it_computes_only_what_is_desired(self) -> None:
        if not self.started:
            return
        for name, computed in self.computes.items():
            model = self.models[name]
            assert model.is_wanted
            assert computed is model.card
            assert not self.state.ready or model.served == model.is_ready

    @invariant()
    def at_rest_it_has_all_that_it_can_have(self) -> None:
        if self.started and self.state.loading is None:
            assert self.state.ready
            for model in self.models:
                if model.next is not None:
                    assert model.card.name in self.state.staged


TestReconciling = Reconciling.TestCase
