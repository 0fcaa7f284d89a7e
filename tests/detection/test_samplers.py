import math
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import common.sampler as core
from common.sampler import EpochSampler
from detection.samplers import (
    ImageDifficultySampler,
    RepeatFactorSampler,
    draw_episodes,
    repeat_factors,
)

thorough = settings(deadline=None, max_examples=60, derandomize=True)
# Images and categories of the LVIS v0.5 training set, and how many pairs they make.
LVIS_IMAGES, LVIS_CATEGORIES, LVIS_PAIRS = 56740, 1230, 201417
# Images 0..5; category 0 in four, 1 in two, 3 in one; 2 in none; image 5 without annotation.
IMAGES = torch.tensor([0, 1, 2, 3, 1, 4, 0])
CATEGORIES = torch.tensor([0, 0, 0, 0, 1, 1, 3])
N, C = 6, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rfs(seed: int = 0, threshold: float = 0.5) -> RepeatFactorSampler:
    return RepeatFactorSampler(IMAGES, CATEGORIES, N, seeded(seed), threshold)


def cdb_s(seed: int = 0) -> ImageDifficultySampler:
    return ImageDifficultySampler(IMAGES, CATEGORIES, N, C, seeded(seed))


SAMPLERS: list[Callable[[int], EpochSampler]] = [rfs, cdb_s]


def lvis_like() -> tuple[Tensor, Tensor]:
    """A long-tailed list of pairs as large as LVIS v0.5's: categories of 1 to 16,000 images."""
    generator = seeded(3)
    weights = torch.arange(1, LVIS_CATEGORIES + 1, dtype=torch.float64) ** -1.1
    sizes = (weights / weights.sum() * LVIS_PAIRS * 1.05).clamp(1, LVIS_IMAGES).long()
    category = torch.repeat_interleave(sizes)
    image = torch.randint(LVIS_IMAGES, category.shape, generator=generator)
    order = torch.randperm(category.numel(), generator=generator)[:LVIS_PAIRS]
    return image[order], category[order]


def slow_repeat_factors(pairs: set[tuple[int, int]], images: int, t: float) -> list[float]:
    factors = [1.0] * images
    for i, c in pairs:
        share = len({j for j, k in pairs if k == c}) / images
        factors[i] = max(factors[i], math.sqrt(t / share))
    return factors


pair_lists = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 5)), max_size=20)
    )
)


@thorough
@given(pair_lists, st.floats(1e-3, 1))
def test_repeat_factors_agree_with_their_definition(
    case: tuple[int, list[tuple[int, int]]], threshold: float
) -> None:
    n, pairs = case
    image, category = (torch.tensor([p[k] for p in pairs], dtype=torch.int64) for k in (0, 1))
    factors = repeat_factors(image, category, n, threshold)
    assert factors.tolist() == pytest.approx(slow_repeat_factors(set(pairs), n, threshold))


def test_repeat_factors_of_a_hand_worked_list() -> None:
    # f = 4/6, 2/6, -, 1/6; at t = 1/2: r_0 = 1, r_1 = sqrt(3/2), r_3 = sqrt(3)
    root = math.sqrt(1.5)
    expected = [math.sqrt(3), root, 1, 1, root, 1]
    assert rfs().repeat_factors.tolist() == pytest.approx(expected)
    assert rfs().expected_length == pytest.approx(sum(expected))


def test_threshold_changes_the_repeat_factors() -> None:
    assert not torch.equal(rfs(threshold=0.5).repeat_factors, rfs(threshold=0.9).repeat_factors)


@pytest.mark.parametrize("threshold", [0.5, 5.0])  # factors from 1 to 1.7, from 2.7 to 5.5
def test_images_are_repeated_as_often_as_their_factor_says_on_average(threshold: float) -> None:
    sampler, epochs = rfs(threshold=threshold), 2000
    seen = torch.stack([sampler.draw().bincount(minlength=N) for _ in range(epochs)]).double()
    fraction = sampler.repeat_factors - sampler.repeat_factors.floor()
    deviation = (fraction * (1 - fraction) / epochs).sqrt()
    assert bool(((seen.mean(dim=0) - sampler.repeat_factors).abs() <= 4 * deviation).all())
    # Rounded down or up, nothing else: with it the mean fixes the whole distribution.
    assert bool((seen >= sampler.repeat_factors.floor()).all())
    assert bool((seen <= sampler.repeat_factors.ceil()).all())


def test_image_without_annotation_is_seen_once_an_epoch() -> None:
    sampler = rfs()
    assert all(int((sampler.draw() == 5).sum()) == 1 for _ in range(20))


def test_repeated_epochs_are_shuffled() -> None:
    sampler = rfs(threshold=1e-9)  # nothing repeated: six images in random order
    first = torch.stack([sampler.draw()[0] for _ in range(1200)]).bincount(minlength=N)
    assert chisquare(first.tolist()).pvalue > 1e-3


def test_epochs_vary_in_length_around_the_expected_one() -> None:
    sampler, epochs = rfs(), 2000
    assert len(sampler) == round(sampler.expected_length)
    lengths = []
    for _ in range(epochs):
        lengths.append(sampler.draw().numel())
        assert len(sampler) == lengths[-1]
    assert len(set(lengths)) > 1
    fraction = sampler.repeat_factors - sampler.repeat_factors.floor()
    deviation = math.sqrt(float((fraction * (1 - fraction)).sum()) / epochs)
    assert sum(lengths) / epochs == pytest.approx(sampler.expected_length, abs=4 * deviation)


def image_probabilities(p: list[float], empty_share: float) -> list[float]:
    """Chance of each image in one draw, from the definition: category by p_c, then uniformly."""
    pairs = set(zip(IMAGES.tolist(), CATEGORIES.tolist(), strict=True))
    chances = [0.0] * (N - 1) + [empty_share]
    present = {c for _, c in pairs}
    total = sum(p[c] for c in present)
    for i, c in pairs:
        images_of_c = sum(k == c for _, k in pairs)
        chances[i] += (1 - empty_share) * p[c] / total / images_of_c
    return chances


@pytest.mark.parametrize("p", [[0.25] * 4, [0.1, 0.2, 0.4, 0.3], [0.02, 0.9, 0.0, 0.08]])
def test_images_are_drawn_by_category_then_uniformly(p: list[float]) -> None:
    sampler = cdb_s()
    sampler.set_class_probabilities(torch.tensor(p, dtype=torch.float64))
    seen = torch.cat([sampler.draw() for _ in range(4000)]).bincount(minlength=N)
    expected = [chance * float(seen.sum()) for chance in image_probabilities(p, 1 / 6)]
    assert chisquare(seen.tolist(), expected).pvalue > 1e-3


def test_chi_square_would_notice_other_category_probabilities() -> None:
    sampler = cdb_s()
    seen = torch.cat([sampler.draw() for _ in range(4000)]).bincount(minlength=N)
    wrong = image_probabilities([0.3, 0.35, 0.0, 0.35], 1 / 6)
    assert chisquare(seen.tolist(), [w * float(seen.sum()) for w in wrong]).pvalue < 1e-3


def test_images_without_annotation_keep_their_share_whatever_the_difficulties() -> None:
    for p in ([1.0, 0, 0, 0], [0, 0, 0, 1.0]):
        sampler = cdb_s()
        sampler.set_class_probabilities(torch.tensor(p))
        assert float(sampler.probabilities[-1]) == pytest.approx(1 / 6)
        assert float(sampler.probabilities.sum()) == pytest.approx(1)


def test_categories_without_image_leave_their_probability_to_the_others() -> None:
    sampler = cdb_s()
    sampler.set_class_probabilities(torch.tensor([0.1, 0.2, 0.6, 0.1]))
    assert sampler.probabilities.tolist() == pytest.approx([5 / 24, 10 / 24, 5 / 24, 1 / 6])


def test_categories_are_equally_likely_where_no_probability_is_left() -> None:
    sampler = cdb_s()
    sampler.set_class_probabilities(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert sampler.probabilities.tolist() == pytest.approx([5 / 18] * 3 + [1 / 6])
    assert torch.equal(sampler.probabilities, cdb_s().probabilities)


def test_epoch_of_difficulty_sampling_has_as_many_images_as_the_training_set() -> None:
    assert len(cdb_s()) == cdb_s().draw().numel() == N


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [-0.1, 1, 0, 0], [math.nan, 1, 1, 1], [0.0] * 4])
def test_impossible_category_probabilities_are_refused_and_change_nothing(
    wrong: list[float],
) -> None:
    sampler = cdb_s()
    before = sampler.probabilities.clone()
    with pytest.raises(ValueError, match="category probabilities"):
        sampler.set_class_probabilities(torch.tensor(wrong))
    assert torch.equal(sampler.probabilities, before)


def test_resumed_sampler_continues_bit_for_bit() -> None:
    sampler = cdb_s()
    sampler.set_class_probabilities(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    sampler.draw()
    state, generator_state = sampler.state_dict(), sampler.generator.get_state()
    expected = torch.cat([sampler.draw() for _ in range(9)])
    resumed = cdb_s(seed=7)
    resumed.generator.set_state(generator_state)
    assert not torch.equal(torch.cat([resumed.draw() for _ in range(9)]), expected)
    resumed.load_state_dict(state)
    resumed.generator.set_state(generator_state)
    assert torch.equal(torch.cat([resumed.draw() for _ in range(9)]), expected)


def test_repeat_factor_sampler_needs_no_state_but_its_generator_s() -> None:
    sampler = rfs()
    sampler.draw()
    state = sampler.generator.get_state()
    expected = [sampler.draw() for _ in range(5)]
    resumed = rfs(seed=7)
    resumed.generator.set_state(state)
    assert all(torch.equal(resumed.draw(), indices) for indices in expected)


@pytest.mark.parametrize("make", SAMPLERS)
def test_draws_depend_on_the_sampler_s_own_generator_only(
    make: Callable[[int], EpochSampler],
) -> None:
    draws = []
    for seed, global_seed in [(0, 1), (0, 2), (5, 1)]:
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        sampler = make(seed)
        draws.append([i for _ in range(5) for i in sampler.draw().tolist()])
        assert torch.equal(torch.get_rng_state(), state)
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("make", SAMPLERS)
def test_data_loader_takes_the_sampler_as_it_is(make: Callable[[int], EpochSampler]) -> None:
    loader = DataLoader(TensorDataset(torch.arange(N)), batch_size=4, sampler=make(0))
    for epoch in range(3):
        seen = torch.cat([one[0] for one in loader])
        reference = make(0)
        drawn = [reference.draw() for _ in range(epoch + 1)][-1]
        assert torch.equal(seen, drawn)


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_get_equal_shares_that_cover_the_draw(
    make: Callable[[int], EpochSampler], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(0).draw().tolist()
    monkeypatch.setattr(core, "world_size", lambda: ranks)
    shares = []
    for number in range(ranks):
        monkeypatch.setattr(core, "rank", lambda number=number: number)
        shares.append(make(0).draw_for_rank().tolist())
        assert len(shares[-1]) == math.ceil(len(whole) / ranks)
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert together[: len(whole)] == whole


def test_pair_named_twice_counts_once() -> None:
    twice = torch.cat([IMAGES, IMAGES[4:]]), torch.cat([CATEGORIES, CATEGORIES[4:]])
    factors = repeat_factors(*twice, N, threshold=0.5)
    assert torch.equal(factors, rfs().repeat_factors)
    drawn = ImageDifficultySampler(*twice, N, C, seeded()).draw()
    assert torch.equal(drawn, cdb_s().draw())


@pytest.mark.parametrize("images", [1, 4])
def test_set_without_any_annotation_is_sampled_uniformly(images: int) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    repeated = RepeatFactorSampler(nothing, nothing, images, seeded())
    assert sorted(repeated.draw().tolist()) == list(range(images))
    difficult = ImageDifficultySampler(nothing, nothing, images, C, seeded())
    difficult.set_class_probabilities(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    seen = torch.cat([difficult.draw() for _ in range(500)]).bincount(minlength=images)
    assert images == 1 or chisquare(seen.tolist()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("image", "category", "words"),
    [
        ([0, 6], [0, 1], r"image index 6 is outside 0\.\.5"),
        ([0, -1], [0, 1], r"image index -1 is outside 0\.\.5"),
        ([0, 1], [0, -1], r"category -1 is outside"),
        ([0, 1], [0], "not a list of pairs"),
    ],
)
def test_impossible_pairs_are_refused(image: list[int], category: list[int], words: str) -> None:
    pairs = torch.tensor(image), torch.tensor(category)
    with pytest.raises(ValueError, match=words):
        RepeatFactorSampler(*pairs, N, seeded())
    with pytest.raises(ValueError, match=words):
        ImageDifficultySampler(*pairs, N, C, seeded())


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold must be greater than 0"):
        rfs(threshold=0.0)
    with pytest.raises(ValueError, match="at least 1 image"):
        RepeatFactorSampler(IMAGES[:0], CATEGORIES[:0], 0, seeded())
    with pytest.raises(ValueError, match=r"category 3 is outside 0\.\.2"):
        ImageDifficultySampler(IMAGES, CATEGORIES, N, 3, seeded())


def test_episodes_hold_images_of_their_categories_drawn_uniformly() -> None:
    images, categories = draw_episodes(IMAGES, CATEGORIES, 2000, seeded())
    assert images.shape == categories.shape == (2000, 16)
    seen = (images * C + categories).flatten().bincount(minlength=N * C).view(N, C)
    expected = torch.zeros(N, C, dtype=torch.float64)
    for i, c in zip(IMAGES.tolist(), CATEGORIES.tolist(), strict=True):
        expected[i, c] = 32000 / 3 / CATEGORIES.tolist().count(c)
    assert bool((seen[expected == 0] == 0).all())
    drawn = expected > 0
    assert chisquare(seen[drawn].tolist(), expected[drawn].tolist()).pvalue > 1e-3


def test_episodes_have_the_number_of_categories_asked_for() -> None:
    images, categories = draw_episodes(IMAGES, CATEGORIES, 3, seeded(), categories_per_episode=5)
    assert images.shape == categories.shape == (3, 5)
    with pytest.raises(ValueError, match="no image holds a category"):
        draw_episodes(IMAGES[:0], CATEGORIES[:0], 3, seeded())


def test_lists_of_lvis_size_are_set_up_and_drawn_in_less_than_a_second_each() -> None:
    image, category = lvis_like()
    assert image.numel() == LVIS_PAIRS
    start = time.process_time()
    repeated = RepeatFactorSampler(image, category, LVIS_IMAGES, seeded())
    middle = time.process_time()
    difficult = ImageDifficultySampler(image, category, LVIS_IMAGES, LVIS_CATEGORIES, seeded())
    end = time.process_time()
    assert max(middle - start, end - middle) < 1.0
    assert repeated.draw().numel() > LVIS_IMAGES
    assert difficult.draw().numel() == LVIS_IMAGES
    assert time.process_time() - end < 1.0


def test_lvis_size_draws_follow_the_category_probabilities() -> None:
    image, category = lvis_like()
    sampler = ImageDifficultySampler(image, category, LVIS_IMAGES, LVIS_CATEGORIES, seeded())
    p = torch.zeros(LVIS_CATEGORIES)
    rarest = int(category.bincount(minlength=LVIS_CATEGORIES).argmin())
    p[rarest] = 1.0
    sampler.set_class_probabilities(p)
    drawn = sampler.draw()
    of_rarest = torch.isin(drawn, image[category == rarest])
    annotated = image.unique().numel() / LVIS_IMAGES
    deviation = math.sqrt(annotated * (1 - annotated) / LVIS_IMAGES)
    assert float(of_rarest.double().mean()) == pytest.approx(annotated, abs=4 * deviation)


def test_instance_balanced_every_image_is_drawn_once_whatever_its_categories() -> None:
    sampler = cdb_s(3)
    sampler.set_instance_balanced()
    expected = torch.randperm(N, generator=seeded(3))
    assert torch.equal(sampler.draw(), expected)
    sampler.set_class_probabilities(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert set(sampler.draw().tolist()) <= {0, 5}
