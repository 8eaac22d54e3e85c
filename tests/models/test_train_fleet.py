"""Variants side by side: each as it would be alone, one compilation for all, and what a teacher adds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from rootmodels.cifar10 import LabelledImages, read_cifar10
from rootmodels.cifar10_facts import CLASSES
from rootmodels.families.nin import NIN
from rootmodels.network import Network
from rootmodels.teacher import Teacher, TeacherInfo, load_teacher, load_teachers, save_teacher
from rootmodels.train_batches import Batch
from rootmodels.train_dense import DenseForm, dense_form, dense_weight
from rootmodels.train_fleet import Computing, variants_fleet
from rootmodels.train_job import Options, Training
from rootmodels.train_networks import Trainee
from rootmodels.train_recipe import Recipe
from rootmodels.train_run import Run, accuracy
from rootmodels.train_teacher import held_out, train_teacher
from rootmodels.variants import FAMILIES, VARIANTS
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, read_info

RECIPE = Recipe(epochs=2, batch_size=16, small_share=0.0)
CPU = Computing(torch.device("cpu"))
NAMES = ["nin-root-16", "nin-col-4"]
CHOSEN = [VARIANTS[name] for name in NAMES]


@pytest.fixture(scope="module")
def tiny(sample_path: Path) -> LabelledImages:
    data = read_cifar10(sample_path, "test")
    return LabelledImages(data.images[:64], data.labels[:64])


@settings(deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3, 4, 6]), kernel=st.sampled_from([1, 3]), seed=st.integers(0, 9)
)
def test_a_grouped_convolution_is_a_dense_one_whose_weights_are_zero_between_groups(
    groups: int, kernel: int, seed: int
) -> None:
    torch.manual_seed(seed)
    grouped = nn.Conv2d(12, 24, kernel, padding=kernel // 2, groups=groups, bias=False).double()
    images = torch.randn(2, 12, 5, 5, dtype=torch.float64)
    towards = torch.randn(2, 24, 5, 5, dtype=torch.float64)
    expected = grouped(images)
    (gradient,) = torch.autograd.grad((expected * towards).sum(), grouped.weight)
    dense = dense_weight(grouped.weight, groups)
    assert dense.shape == (24, 12, kernel, kernel)
    assert (dense != 0).sum() == grouped.weight.numel()
    found = functional.conv2d(images, dense, padding=kernel // 2)
    torch.testing.assert_close(found, expected)
    (of_dense,) = torch.autograd.grad((found * towards).sum(), grouped.weight)
    torch.testing.assert_close(of_dense, gradient)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_that_differ_in_their_groups_alone_have_one_form(name: str) -> None:
    variant = VARIANTS[name]
    revisions = [
        one for one in FAMILIES[variant.family].variants if one.revision == variant.revision
    ]
    (alone,) = [one for one in revisions if set(one.groups) == {1}]
    forms = [dense_form(one, 32, 4, CPU.device, compiled=False) for one in (variant, alone)]
    assert forms[0] is forms[1]
    assert dense_form(variant, 48, 4, CPU.device, compiled=False) is not forms[0]


def test_variants_side_by_side_are_as_alone(tiny: LabelledImages) -> None:
    """The same weights bit for bit; with dense convolutions the same losses, but for rounding."""
    together = variants_fleet(CHOSEN, RECIPE, 3, tiny, CPU)
    dense = variants_fleet(CHOSEN, RECIPE, 3, tiny, replace(CPU, dense=True))
    for fleet in (together, dense):
        for _ in range(3):
            fleet.train_step()
    for place, name in enumerate(NAMES):
        alone = variants_fleet([VARIANTS[name]], RECIPE, 3, tiny, CPU)
        for _ in range(3):
            alone.train_step()
        for key, value in alone.runs[0].state().items():
            assert torch.equal(value, together.runs[place].state()[key]), key
        losses = (run.sums[0] for run in (alone.runs[0], dense.runs[place]))
        torch.testing.assert_close(*losses, rtol=1e-3, atol=0.0)


# The compiler looks at the gradients of all tensors it is given, and is told that some have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_one_compilation_serves_all_variants(
    tiny: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes longer than some epochs on a GPU: fourteen would leave no time to train."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        compiled.append(1)
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda what, **how: _compile(what, **(how | {"backend": backend}))
    )
    form = DenseForm(NIN.variants[0], None, None, CPU.device, compiled=True)
    images = torch.from_numpy(tiny.images[:4])
    for variant in NIN.variants:
        network = Network(variant).train()
        found = form(network, images)
        network.load_state_dict(Network(variant).state_dict() | network.state_dict())
        torch.testing.assert_close(found, network(images), rtol=1e-3, atol=1e-3)
    assert len(compiled) == 1


_compile = torch.compile


@settings(deadline=None)
@given(
    share=st.floats(0.0, 1.0),
    temperature=st.floats(0.5, 8.0),
    mixed=st.floats(0.0, 0.5),
    seed=st.integers(0, 99),
)
def test_the_loss_is_that_of_the_papers(
    share: float, temperature: float, mixed: float, seed: int
) -> None:
    """Written out in float64: T^2 KL(teacher, own) and cross-entropies, mixed as the images are."""
    torch.manual_seed(seed)
    logits, teaching = torch.randn(2, 6, 10, dtype=torch.float64) * 3
    labels, others = torch.randint(0, 10, (2, 6))
    recipe = Recipe(teacher_share=share, temperature=temperature, label_smoothing=0.1)
    run = Run(nn.Conv2d(1, 1, 1), recipe)
    lam = torch.tensor(mixed, dtype=torch.float64)
    found = run.loss(logits, Batch(logits, labels, others, lam, teaching))

    def cross_entropy(wanted: Tensor) -> Tensor:
        target = functional.one_hot(wanted, 10) * 0.9 + 0.01
        return -(target * logits.log_softmax(1)).sum(1).mean()

    p, q = (teaching / temperature).softmax(1), (logits / temperature).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    told = (1 - mixed) * cross_entropy(labels) + mixed * cross_entropy(others)
    expected = share * temperature**2 * divergence + (1 - share) * told
    torch.testing.assert_close(found, expected)


def test_without_a_teacher_the_labels_count_alone() -> None:
    logits, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    run = Run(nn.Conv2d(1, 1, 1), Recipe(teacher_share=0.7))
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(run.loss(logits, Batch(logits, labels)), expected)


def test_averages_follow_the_weights_and_are_taken_at_the_end(tiny: LabelledImages) -> None:
    recipe = replace(RECIPE, averaging=0.5)  # over two steps of four an epoch
    fleet = variants_fleet(CHOSEN[:1], recipe, 0, tiny, CPU)
    (run,) = fleet.runs
    key = "body.conv1a.conv.weight"
    average = run.model.state_dict()[key].clone()
    for _ in range(3):
        fleet.train_step()
        average = 0.5 * average + 0.5 * run.model.state_dict()[key]
    last = run.model.state_dict()[key].clone()
    run.take_averages()
    torch.testing.assert_close(run.model.state_dict()[key], average)
    assert not torch.equal(last, average)


def test_averages_are_in_the_checkpoint(tmp_path: Path, tiny: LabelledImages) -> None:
    recipe = replace(RECIPE, averaging=0.5)
    options = Options(tmp_path, tmp_path, CPU, side_by_side=2)
    trainees = [Trainee(variant) for variant in CHOSEN]
    training = Training(trainees, recipe, 0, tiny, options)
    training.fleet.train_step()
    training.save()
    again = Training(trainees, recipe, 0, tiny, options)
    assert again.fleet.step == 1
    for run, other in zip(training.fleet.runs, again.fleet.runs, strict=True):
        assert any(key.startswith("average/") for key in run.state())
        assert all(torch.equal(value, other.state()[key]) for key, value in run.state().items())


def test_epochs_are_chosen_to_fit_and_the_timing_leaves_no_trace(tiny: LabelledImages) -> None:
    fleet = variants_fleet(CHOSEN[:1], replace(RECIPE, small_share=0.5), 0, tiny, CPU)
    before = {key: value.clone() for key, value in fleet.runs[0].state().items()}
    few, many = fleet.epochs_within(1e-9), fleet.epochs_within(1e5)
    assert few == 1 < many
    assert fleet.step == 0
    assert all(torch.equal(value, before[key]) for key, value in fleet.runs[0].state().items())


def test_a_teacher_learns_is_kept_and_teaches(tmp_path: Path, tiny: LabelledImages) -> None:
    train, rest = held_out(tiny, 8)
    recipe = Recipe(epochs=1, batch_size=28, small_share=0.0, label_smoothing=0.0)
    teacher, info = train_teacher(train, rest, recipe, CPU)
    assert (info.train_images, info.held_out, info.epochs) == (56, 8, 1)
    assert info.accuracy == accuracy(teacher, rest, CPU.device)
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, teacher, info)
    again, read = load_teacher(path)
    assert read == info
    images = torch.from_numpy(tiny.images[:4])
    torch.testing.assert_close(again(images), teacher(images), rtol=0.02, atol=0.02)

    recipe = replace(RECIPE, teacher_share=1.0, temperature=2.0)
    fleet = variants_fleet(CHOSEN[:1], recipe, 0, tiny, CPU, teacher=again)
    fleet.train_step()
    loss, _, seen = fleet.runs[0].sums.tolist()
    assert loss > 0
    assert seen == 16
    assert not again.training


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    with pytest.raises(WeightsError, match="is no teacher"):
        load_teacher(path)
    save_teacher(path, Teacher(4), TeacherInfo(0.5, 1, 2, 3, 5, "", {}))
    with pytest.raises(WeightsError, match=r"is no teacher \(.*size mismatch"):
        load_teacher(path)


def test_several_teachers_teach_the_mean_of_their_logits(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    save_teacher(path, Teacher(), TeacherInfo(0.5, 1, 2, 3, 10, "", {}))
    shipped = PRETRAINED_DIR / f"{NAMES[0]}.safetensors"
    both, words = load_teachers([path, shipped], CLASSES)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.manual_seed(1)).float()
    alone = [load_teachers([one], CLASSES)[0](images) for one in (path, shipped)]
    torch.testing.assert_close(both(images), (alone[0] + alone[1]) / 2)
    assert not both.training
    accuracy = read_info(shipped).accuracy
    assert words == f"teacher, 0.5000; {NAMES[0]}, {accuracy:.4f}"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    shipped = PRETRAINED_DIR / f"{NAMES[0]}.safetensors"
    with pytest.raises(WeightsError, match="has 10 classes, the data has 4"):
        load_teachers([shipped], CLASSES[:4])
    with pytest.raises(WeightsError, match="is no teacher"):
        load_teachers([tmp_path / "nothing"], CLASSES)


def test_the_teacher_sees_what_the_networks_see() -> None:
    facts = NIN
    teacher = Teacher().eval()
    grey = torch.tensor(facts.mean).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    seen: list[Tensor] = []
    teacher.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    teacher(grey)
    assert float(seen[0].abs().max()) < 1e-5
