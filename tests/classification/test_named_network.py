"""Networks by a name, their published weights, and fine-tuning."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from classification.data import load_data
from classification.image_augment import DEVIATION, MEAN
from classification.image_recipes import IMAGE_FOLDER, ImageConfig
from classification.models import network_names
from classification.models.named_network import NamedNetwork, make_named_network
from classification.models.network_names import check_name, normalisation
from classification.models.pretrained import load_pretrained
from classification.models.resnet_image import make_image_resnet
from classification.predict import load_run
from classification.reading import Reading
from classification.recipes import resolved, run_name
from classification.train import TASK
from classification.training import Training
from common.errors import UserError
from common.training.run import run
from common.training.settings import plain, read_config
from common.training.signals import StopRequest
from tests.classification import own_networks
from tests.classification.small_images import CLASSES, settings, small_run, write_images
from tests.classification.synthetic import same_weights, to_the_end
from tests.classification.tape import captured, tensors_among
from tests.states import assert_same_state, written_and_read
from tests.stopping import StopAfter

CPU = torch.device("cpu")
OWN = "tests.classification.own_networks"
SMALL = "squeezenet1_1"
"""The fewest weights of torchvision's; it has dropout, and a convolution as its head."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "set")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(**changes: Any) -> ImageConfig:
    usual = {"network": f"{OWN}:steady"}
    config = resolved(replace(IMAGE_FOLDER, **settings("ce", **(usual | changes))))
    assert isinstance(config, ImageConfig)
    return config


def training(images: Path, pretrained: Path | None = None, **changes: Any) -> Training:
    """A run at its first step."""
    config = config_of(**changes)
    data = load_data(config, CPU, images, Reading())
    return Training(config, data, CPU, pretrained=pretrained and (pretrained, "name another"))


def random_file(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """A file of published weights: none of them is the network's own."""
    torch.manual_seed(7)
    state = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(state, path)
    return state


# Names.


def test_a_networks_weights_are_drawn_from_the_runs_stream_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (
        make_named_network(4, generator(seed), SMALL, crop=32).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["network.classifier.1.weight"], other["network.classifier.1.weight"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mobilenet_v3", "did you mean .*mobilenet_v3_small"),
        ("resnet99", "did you mean resnet50 or resnet34 or resnet18"),
        ("restnet18", "did you mean resnet18"),
        ("???", "name one of torchvision's classification networks, timm:NAME"),
        ("a/b:c", "name one of torchvision"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_is_read(name: str, words: str) -> None:
    arguments = TASK.parse(["image-folder", "--network", name, "--data", "nowhere"])
    with pytest.raises(UserError, match=f"^--network .* is not known; .*{words}"):
        TASK.resolve(arguments)
    with pytest.raises(UserError, match="--network"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no.such.module:net", r"cannot be imported \(ModuleNotFoundError: .*PYTHONPATH"),
        (f"{OWN}:nothing", "has no function nothing"),
        (f"{OWN}:without_classes", "is called with num_classes=4 alone, which it does not take"),
        ("torch:zeros", "is called with num_classes=4 alone, which it does not take"),
        (f"{OWN}:failing", r"failing fails \(KeyError: 'weights'\)"),
        (f"{OWN}:number", "gives int, not a torch.nn.Module"),
        (f"{OWN}:features", r"gives no logits of 4 classes for each image, but \(1, 5\) for one"),
        (f"{OWN}:headless", "has no linear layer of 4 outputs"),
        (f"{OWN}:unpassable", r"does not take images of --crop 32 \(IndexError\)"),
        ("vit_b_32", "does not take images of --crop 32 .*choose another --crop"),
    ],
)
def test_what_is_no_network_for_these_images_is_refused_in_one_sentence(
    name: str, words: str
) -> None:
    with pytest.raises(UserError, match=f"^--network {name}[: ].*{words}.*[.]$"):
        make_named_network(4, generator(), name, crop=32)


@pytest.mark.parametrize(
    ("code", "words"),
    [("def f(:", "SyntaxError: .*line 1"), ("import nosuch", "ModuleNotFoundError: .* 'nosuch'"),
     ("raise ValueError('no licence')", "ValueError: no licence")],
)  # fmt: skip
def test_a_module_that_cannot_be_imported_is_refused_with_what_it_says(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_own_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"users_own_module cannot be imported \({words}.*\)"):
        make_named_network(4, generator(), "users_own_module:net", crop=32)


def test_what_gives_more_than_logits_in_training_is_refused_in_one_sentence() -> None:
    network = make_named_network(4, generator(), f"{OWN}:auxiliary", crop=32).train()
    with pytest.raises(UserError, match=r"^the network gives tuple in training; .*[.]$"):
        network(torch.zeros(2, 3, 32, 32))


def test_one_image_alone_in_a_batch_is_refused_by_what_the_network_makes_of_it(
    images: Path,
) -> None:
    normalised = f"{OWN}:normalised_features"
    for size in (1, 9):
        with pytest.raises(UserError, match=f"--batch-size {size} .* batch statistics"):
            training(images, network=normalised, crop=40, batch_size=size)
    # Its maps are of 4 x 4.
    last = training(images, batch_size=9)
    assert last.run_epoch(StopRequest())


def test_timm_is_asked_for_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timm:
        list_models = staticmethod(lambda: ["tiny_net"])

        @staticmethod
        def get_pretrained_cfg(name: str) -> Any:
            if name not in ("tiny_net", "tiny_net.a1"):
                raise RuntimeError("Invalid pretrained tag")
            return type("Cfg", (), {"mean": (0.5,) * 3, "std": (0.25,) * 3})

        @staticmethod
        def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
            assert (name, pretrained) == ("tiny_net.a1", False)
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, num_classes))

    monkeypatch.setattr(network_names, "_timm", lambda: Timm)
    network = make_named_network(4, generator(), "timm:tiny_net.a1", crop=8)
    assert heads_of(network) == ["1"]
    assert normalisation("timm:tiny_net.a1") == ((0.5,) * 3, (0.25,) * 3)
    for refused in (normalisation, lambda name: make_named_network(4, generator(), name, crop=8)):
        with pytest.raises(UserError, match="timm has no tiny_nat; did you mean tiny_net"):
            refused("timm:tiny_nat")
        with pytest.raises(UserError, match=r"has no weights b2 of tiny_net; leave \.b2 out"):
            refused("timm:tiny_net.b2")


# Heads.


def heads_of(network: NamedNetwork) -> list[str]:
    """Names of the layers that give logits."""
    return [
        name
        for name, part in network.network.named_modules()
        if any(part is head for head in network.heads)
    ]


@pytest.mark.parametrize(
    ("name", "classes", "heads"),
    [
        (SMALL, 4, ["classifier.1"]),
        (f"{OWN}:convolution", 6, ["1"]),
        (f"{OWN}:distilled", 4, ["classifier", "distilled"]),
        # Of these, other layers have as many outputs as there are classes.
        (f"{OWN}:distilled", 6, ["classifier", "distilled"]),
        (f"{OWN}:steady", 6, ["classifier"]),
        (f"{OWN}:like_vit", 16, ["heads.head"]),
        (f"{OWN}:like_convnext", 16, ["classifier.2"]),
        (f"{OWN}:like_mobilenet", 24, ["classifier.3"]),
        ("squeezenet1_0", 64, ["classifier.1"]),
    ],
)
def test_the_head_is_what_follows_the_number_of_classes(
    name: str, classes: int, heads: list[str]
) -> None:
    assert heads_of(make_named_network(classes, generator(), name, crop=32)) == heads


def test_a_second_network_to_find_the_head_changes_no_weight() -> None:
    ambiguous = make_named_network(6, generator(), f"{OWN}:steady", crop=32)
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator())))
    plain = own_networks.steady(6).state_dict()
    assert_same_state(dict(ambiguous.network.state_dict()), dict(plain))


def test_runs_are_named_after_the_network_and_without_what_folders_cannot_hold() -> None:
    config = config_of(network="timm:hf-hub:some/net", start="pretrained", patience=2)
    assert run_name(config) == (
        "ce_epochs-3_batch-size-10_learning-rate-0.05_network-timm--hf-hub--some+net_"
        "start-pretrained_stored-side-40_crop-32_precision-float32_patience-2_seed-0"
    )


def test_runs_from_before_were_started_at_random_by_sgd_and_trained_to_the_end() -> None:
    before = plain(resolved(IMAGE_FOLDER))
    for name in ("start", "trained", "optimizer", "patience", "augmentation"):
        before.pop(name, None)
    assert read_config(before, {"image-folder": IMAGE_FOLDER}) == resolved(IMAGE_FOLDER)
    assert run_name(IMAGE_FOLDER) == "ce_seed-0"


# Mixed precision.


@pytest.mark.parametrize("name", ["steady", "cosine", "convolution", "distilled"])
def test_in_bfloat16_every_kind_of_head_still_gives_float32(name: str) -> None:
    network = make_named_network(4, generator(), f"{OWN}:{name}", crop=32, mixed=True).eval()
    image = torch.rand(2, 3, 32, 32, generator=generator())
    given: list[Tensor] = []
    for head in network.heads:
        head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        head.register_forward_hook(lambda *call: given.append(call[2]))
    logits = network(image)
    assert [value.dtype for value in given] == [torch.bfloat16, torch.float32] * len(network.heads)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_a_float32_head_computes_what_its_own_class_does() -> None:
    for name in ("steady", "cosine", "convolution"):
        made = make_named_network(4, generator(), f"{OWN}:{name}", crop=32, mixed=False).eval()
        plain = getattr(own_networks, name)(4).eval()
        plain.load_state_dict(made.network.state_dict())
        image = torch.rand(2, 3, 32, 32, generator=generator())
        assert torch.equal(made(image), plain(image))


@pytest.mark.parametrize("network", [*own_networks.LIKE, f"{OWN}:distilled"])
def test_in_bfloat16_any_kind_of_network_trains_and_a_resumed_run_is_the_whole_one(
    images: Path, network: str
) -> None:
    changes = {"network": network, "precision": "bfloat16", "learning_rate": 0.01, "epochs": 2}
    whole = to_the_end(training(images, **changes))
    stopped = training(images, **changes)
    stopped.run_epoch(StopAfter(2))
    resumed = training(images, **changes)
    resumed.load_state_dict(written_and_read(stopped.state_dict()))
    assert_same_state(to_the_end(resumed).state_dict(), whole.state_dict())
    assert all(map(math.isfinite, whole.history.rows["loss"]))
    kinds = {value.dtype for value in tensors_among(whole.state_dict())}
    assert kinds.isdisjoint({torch.bfloat16, torch.float16})


@pytest.mark.parametrize("network", own_networks.LIKE)
def test_passes_of_bfloat16_depart_from_those_of_float32_and_give_float32(network: str) -> None:
    made = make_named_network(4, generator(), network, crop=32).eval()
    image = torch.randn(2, 3, 32, 32, generator=generator())
    logits = made(image)
    made.mixed = False
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, made(image))
    torch.testing.assert_close(logits, made(image), atol=0.05, rtol=0.05)


def test_the_further_classifiers_of_googlenet_are_left_out() -> None:
    made = make_named_network(4, generator(), "googlenet", crop=32, pretrained=True).train()
    assert not [name for name in made.network.state_dict() if name.startswith("aux")]
    assert made(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert made.network.transform_input is True


# Published weights.


def test_a_vision_transformer_is_made_for_the_images_of_its_published_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, int] = {}

    def get_model(name: str, **options: int) -> nn.Module:
        asked.update(options)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, options["num_classes"]))

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    make_named_network(4, generator(), "vit_h_14", crop=8)
    assert asked == {"num_classes": 4}
    make_named_network(4, generator(), "vit_h_14", crop=8, pretrained=True)
    assert asked == {"num_classes": 4, "image_size": 518}


def test_our_resnet18_computes_torchvisions_features_from_torchvisions_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "file.pth")
    ours = make_image_resnet(4, generator(), "resnet18", mixed=False)
    load_pretrained(ours, tmp_path / "file.pth", "none")
    theirs.fc = ours.classifier
    image = torch.rand(2, 3, 32, 32)
    assert torch.allclose(ours.eval()(image), theirs.eval()(image), atol=1e-5)


@pytest.mark.parametrize("name", [SMALL, f"{OWN}:steady", f"{OWN}:distilled"])
def test_everything_but_the_head_is_taken_from_the_file(name: str, tmp_path: Path) -> None:
    classes = {"network": 5, "file": 9}
    network = make_named_network(classes["network"], generator(), name, crop=32)
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    of_file = make_named_network(classes["file"], generator(1), name, crop=32).network
    state = random_file(of_file, tmp_path / "file.pth")
    load_pretrained(network, tmp_path / "file.pth", "none")
    for key, value in network.network.state_dict().items():
        of_head = key.rpartition(".")[0] in heads_of(network)
        assert torch.equal(value, (before if of_head else state)[key]), key


def test_names_of_densenets_first_files_are_understood(tmp_path: Path) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denselayer1 = nn.ModuleDict({"norm1": nn.BatchNorm1d(2)})
            self.fc = nn.Linear(2, 3)

    network = NamedNetwork(Dense(), ["fc"])
    state = {
        name.replace("norm1.", "norm.1."): value + 1 for name, value in Dense().state_dict().items()
    }
    torch.save(state, tmp_path / "old.pth")
    load_pretrained(network, tmp_path / "old.pth", "none")
    taken = network.network.state_dict()["denselayer1.norm1.weight"]
    assert torch.equal(taken, torch.full((2,), 2.0))


@pytest.mark.parametrize("own", [True, False])
def test_further_classifiers_in_a_file_are_taken_where_the_network_has_them(
    own: bool, tmp_path: Path
) -> None:
    parts = {"body": nn.Linear(2, 2), "aux1": nn.Linear(2, 2), "fc": nn.Linear(2, 3)}
    torch.save(nn.ModuleDict(parts).state_dict(), tmp_path / "file.pth")
    others = {name: nn.Linear(2, 2) for name in ("body", *(["aux1"] if own else []))}
    network = NamedNetwork(nn.ModuleDict(others | {"fc": nn.Linear(2, 4)}), ["fc"])
    load_pretrained(network, tmp_path / "file.pth", "none")
    for name, part in others.items():
        assert torch.equal(part.weight, parts[name].weight)


def test_a_file_of_another_network_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    network = make_named_network(4, generator(), f"{OWN}:steady", crop=32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({"body.0.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth does not fit: it lacks body.0.bias, .*more"):
        load_pretrained(network, tmp_path / "other.pth", "name another")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_missing_file_is_named_with_its_place_and_never_downloaded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    words = small_run("ce", "--network", SMALL, "--start", "pretrained")
    arguments = TASK.parse([*words, "--data", str(images), "--out", str(tmp_path / "runs")])
    file = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    place = tmp_path / "torch/hub/checkpoints" / file
    with pytest.raises(UserError) as refused:
        run(TASK, arguments)
    assert str(refused.value).startswith(f"{place} is missing; put torchvision's {file} (")
    assert str(refused.value).endswith("there, or name its place with --weights.")
    assert not place.exists()


def test_without_a_known_file_weights_has_to_name_one() -> None:
    with pytest.raises(UserError, match="no file of weights is known for --network resnet10"):
        config_of(network="resnet10", start="pretrained").usual_weights()
    assert config_of(start="pretrained").usual_weights()[0] == Path("own.pth")


def test_weights_without_a_pretrained_start_are_refused(images: Path) -> None:
    words = [*small_run("ce"), "--data", str(images), "--weights", "file.pth"]
    with pytest.raises(UserError, match=r"--weights file.pth has no effect without --start"):
        TASK.resolve(TASK.parse(words))


def test_a_pretrained_runs_record_has_the_files_checksum_and_predicts_with_its_network(
    images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.pth"
    random_file(make_named_network(9, generator(), f"{OWN}:dropping", crop=32).network, file)
    words = small_run("ce", "--network", f"{OWN}:dropping", "--start", "pretrained")
    out = ["--data", str(images), "--weights", str(file), "--out", str(tmp_path / "runs")]
    arguments = TASK.resolve(TASK.parse([*words, *out]))
    record = run(TASK, arguments)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["provenance"]["versions"]["pretrained_weights_sha256"] == digest
    model = load_run(TASK.folder(arguments))
    assert model(torch.zeros(1, *model.preprocessing.shape)).shape == (1, CLASSES)


def test_a_resumed_run_names_the_file_that_it_began_with(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    words = small_run("ce", "--network", f"{OWN}:steady", "--start", "pretrained")
    paths = ["--data", str(images), "--weights", str(file)]
    arguments = TASK.resolve(TASK.parse([*words, *paths]))
    network = make_named_network(9, generator(), f"{OWN}:steady", crop=32).network
    random_file(network, file)
    begun = TASK.begin(arguments, CPU, None)
    assert begun.start_digest == hashlib.sha256(file.read_bytes()).hexdigest()
    torch.save(network.state_dict(), file)
    resumed = TASK.begin(arguments, CPU, None)
    assert resumed.start_digest != begun.start_digest
    resumed.load_state_dict(written_and_read(begun.state_dict()))
    assert resumed.start_digest == begun.start_digest


def test_a_missing_file_is_told_before_the_images_are_read(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classification.training.load_data", None)
    words = small_run("ce", "--network", SMALL, "--start", "pretrained", "--data", str(images))
    for file, told in ((tmp_path / "none.pth", "is missing"), (tmp_path, "is a folder")):
        arguments = TASK.resolve(TASK.parse([*words, "--weights", str(file)]))
        with pytest.raises(UserError, match=rf"{file} {told}; name another file with --weights"):
            TASK.begin(arguments, CPU, None)


def test_pretrained_weights_own_normalisation_reaches_training_evaluation_and_predictions(
    images: Path,
) -> None:
    half, usual = ((0.5,) * 3, (0.5,) * 3), (MEAN, DEVIATION)
    pretrained = config_of(network="efficientnet_v2_l", start="pretrained")
    assert pretrained.normalisation == half
    # Weights that are drawn at random know no other images.
    assert config_of(network="efficientnet_v2_l").normalisation == usual
    assert config_of(network="resnet18", start="pretrained").normalisation == usual
    middle = pretrained.make_preprocessing()
    assert middle.describe()["mean"] == [127.5] * 3
    data = load_data(pretrained, CPU, images, Reading())
    for part in (data.train, data.difficulty, data.test):
        assert (part.augmentation.mean, part.augmentation.deviation) == half  # type: ignore[union-attr]
    batch, _ = next(iter(data.test.evaluation_batches()))
    assert torch.equal(middle(data.test.reader.files.path(0)), batch[0])  # type: ignore[union-attr]
    # x in [0, 1]: (x - 0.5) / 0.5 = 2 x - 1.
    by_imagenet, _ = next(
        iter(load_data(config_of(), CPU, images, Reading()).test.evaluation_batches())
    )
    mean, deviation = (torch.tensor(v)[:, None, None] for v in usual)
    assert torch.allclose(batch, 2 * (by_imagenet * deviation + mean) - 1, atol=1e-5)


# Fine-tuning.


@pytest.mark.parametrize(
    "network", [f"{OWN}:{name}" for name in ("steady", "dropping", "distilled")]
)
def test_the_heads_alone_are_trained_and_batch_statistics_stay(images: Path, network: str) -> None:
    start = training(images, network=network, trained="head")
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    after = to_the_end(start).model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    heads = [name for name in ("classifier", "distilled") if f"network.{name}.bias" in after]
    assert changed == {f"network.{name}.{kind}" for name in heads for kind in ("weight", "bias")}


def test_resnets_train_their_classifier_alone() -> None:
    network = make_image_resnet(4, generator(), mixed=False)
    network.train_head_alone()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}
    network.train()
    assert network.classifier.training
    assert not any(layer.training for layer in network.layers.modules())


def test_dropout_draws_from_the_runs_stream_and_a_resumed_run_is_the_whole_one(
    images: Path,
) -> None:
    torch.manual_seed(1)
    whole = to_the_end(training(images, network=f"{OWN}:dropping"))
    torch.manual_seed(2)
    stopped = training(images, network=f"{OWN}:dropping")
    stopped.run_epoch(StopAfter(2))
    torch.manual_seed(3)
    resumed = training(images, network=f"{OWN}:dropping")
    resumed.load_state_dict(stopped.state_dict())
    assert_same_state(to_the_end(resumed).state_dict(), whole.state_dict())
    assert not same_weights(whole, to_the_end(training(images)))


def test_adamw_takes_the_steps_of_torchs_plain_loop(images: Path) -> None:
    run = training(images, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    copies = {n: p.detach().clone().requires_grad_() for n, p in run.model.named_parameters()}
    plain_steps = torch.optim.AdamW(
        copies.values(), lr=0.5, betas=(0.9, 0.999), weight_decay=0.1, foreach=False
    )
    for rate in (0.01, 0.002):
        run.set_rate(rate)
        plain_steps.param_groups[0]["lr"] = rate
        batch = next(run.batches(run.draw_epoch(), 0))
        run.step(batch)
        for name, parameter in run.model.named_parameters():
            assert parameter.grad is not None
            copies[name].grad = parameter.grad.clone()
        plain_steps.step()
        for name, parameter in run.model.named_parameters():
            assert torch.allclose(parameter, copies[name], atol=1e-7), name


def test_captured_steps_of_adamw_equal_the_eager_ones_and_resume(images: Path) -> None:
    changes: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 0.01}
    eager, recorded = training(images, **changes), captured(training(images, **changes))
    recorded.run_epoch(StopAfter(2))
    resumed = training(images, **changes)
    resumed.load_state_dict(recorded.state_dict())
    to_the_end(captured(resumed))
    assert same_weights(resumed, to_the_end(eager))
    assert len(set(eager.history.rows["learning_rate"])) == 3


def test_a_run_ends_when_patience_does_and_a_resumed_one_no_later(images: Path) -> None:
    # A rate that changes nothing: the first epoch stays the best.
    changes: dict[str, Any] = {"learning_rate": 1e-12, "epochs": 9, "patience": 2}
    whole = to_the_end(training(images, **changes, trained="head"))
    assert whole.history.rows["epoch"] == [1, 2, 3]
    stopped = training(images, **changes, trained="head")
    for _ in range(2):
        stopped.run_epoch(StopAfter(100))
        stopped.end_epoch()
    assert not stopped.complete()
    resumed = training(images, **changes, trained="head")
    resumed.load_state_dict(stopped.state_dict())
    assert to_the_end(resumed).history.rows["epoch"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trained": "head", "network": "resnet10"}, "--trained head .* --start pretrained"),
        ({"patience": 3}, "--patience 3 has no effect on 3 epochs"),
        ({"patience": -1}, "--patience must be at least 0"),
        ({"optimizer": "adam"}, "--optimizer adam is not one of sgd, adamw"),
        ({"optimizer": "adamw", "learning_rate": 0.2}, "at --learning-rate 0.2 moves every"),
    ],
)
def test_settings_of_fine_tuning_that_make_no_sense_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        config_of(**changes)


def test_settings_are_plain_json() -> None:
    config = config_of(start="pretrained", trained="head", optimizer="adamw", patience=1)
    assert json.loads(json.dumps(plain(config)))["trained"] == "head"
