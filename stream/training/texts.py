"""Fit a release's models of text on what was said, what is written, and what was labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.attack_direction import AttackDirection
from models.delegation import Delegation
from models.ngrams import NGrams, token_shapes
from models.role_surprise import RoleSurprise
from models.second_look import SecondLook, Transforms
from models.text_models import TextModels
from models.token_tagger import TokenTagger
from models.wordpiece import TokenBags
from stream.errors import UsageError
from stream.steps.content import JUDGED, TOOL, USER
from stream.training.attacks import AttackTexts
from stream.training.delegations import Requests
from stream.training.effort import Effort
from stream.training.events import FOLDS
from stream.training.examples import ATTACK, LOOK_ALIKE, RETURNED, TASK, Examples
from stream.training.said import TrainingTexts
from stream.training.teaching import Lesson

if TYPE_CHECKING:
    from models.training.attack_classifier import Taught
    from models.training.role_surprise import Beside


class TooFewAttacks(UsageError):
    """Labelled attacks that are not enough to learn any class from."""


def fitted_texts(
    texts: TrainingTexts,
    tokens: Sequence[str],
    seed: int,
    base: TextModels | None = None,
    attacks: AttackTexts | None = None,
    second: SecondLook | None = None,
    lesson: Lesson | None = None,
    beside: Beside | None = None,
    examples: Examples | None = None,
    tagger: TokenTagger | None = None,
    requests: Requests | None = None,
    effort: Effort = Effort(),
) -> TextModels:
    """The text models of benign segments; nobody's role is a surprise where users or tools have said nothing.

    Parameters
    ----------
    tokens
        The vocabulary (V,).
    base
        Of an earlier release, whose classifier of known attacks, if it has one, stays where there are no `attacks`; the
        n-grams are then its own too.
    attacks
        Labelled ones, to learn a classifier from.
    second
        What a transformer adds.
    lesson
        What the classifier learns beside the labels.
    beside
        What role surprise learns beside them (`stream.training.voices`).
    examples
        What a classifier learns beside the labels, or where there are none.
    tagger
        Reads what role surprise finds strange once more; it learns nothing here.
    requests
        Teach which of a user's hand over to what texts say; without them none do.
    effort
        Of the fits.

    Raises
    ------
    UsageError
        When there are too few of them.
    """
    # Imports that only training needs, and takes a second for.
    from models.training.delegation import fit_delegation
    from models.training.role_surprise import Fit, fit_role_surprise

    spoke = {role for role in (USER, TOOL) if (texts.role == role).any()}
    if not spoke:
        return TextModels.silent()
    kept = base if base is not None and base.attacks is not None and attacks is None else None
    ngrams = kept.ngrams if kept is not None else NGrams.fit(texts.bags, texts.tenant, token_shapes(tokens))
    # Where one of the two has never spoken, nobody can be taken for the other.
    surprise = delegation = None
    if len(spoke) > 1:
        how = Fit()
        how = replace(how, passes=effort.passes, splices=effort.splices_of(how.splices))
        surprise = RoleSurprise(
            fit_role_surprise(texts.bags, texts.role, texts.tenant, ngrams, seed=seed, beside=beside, how=how)
        )
        if requests is not None:
            delegation = Delegation(
                fit_delegation(
                    requests.bags, requests.delegating, requests.weight, ngrams, seed=seed, passes=effort.passes
                )
            )
    else:
        second = tagger = None
    if kept is not None:
        return TextModels(ngrams, surprise, kept.attacks, second, kept.direction, tagger, delegation)
    learns = attacks is not None or examples is not None
    found = classifier(texts, attacks, ngrams, seed, lesson, examples, effort) if learns else None
    direction = direction_of(texts, examples, seed) if examples is not None else None
    return TextModels(ngrams, surprise, found, second, direction, tagger, delegation)


def direction_of(texts: TrainingTexts, examples: Examples, seed: int) -> AttackDirection | None:
    """Which way the examples' attacks lie from harmless ones and from tenants' texts; None without vectors."""
    from models.training.attack_direction import fit_attack_direction

    if texts.vectors is None:
        return None
    said, attack = np.flatnonzero(np.isin(texts.role, JUDGED)), examples.kind == ATTACK
    arrays = fit_attack_direction(
        examples.vectors[attack], examples.vectors[~attack], texts.vectors[said], texts.tenant[said], seed=seed
    )
    return AttackDirection(arrays)


@dataclass(frozen=True, slots=True)
class Again:
    """A transformer, and from which role surprise on it looks at a segment again."""

    transformer: Transforms
    gate: float


def looking(texts: TextModels, again: Again | None) -> TextModels:
    """The models as they will serve: with the transformer, if there is one and they have learned from it."""
    return texts if again is None or texts.second is None else texts.looking_again(again.transformer)


class SecondLooks:
    """What a transformer adds, learnt of all segments or without those of one fold; each is read by it once."""

    def __init__(self, texts: TrainingTexts, again: Again, seed: int) -> None:
        from models.training.second_look import look

        self._again = again
        self._looked = look(texts.bags, texts.role, texts.tenant, texts.folds, again.transformer, seed=seed)

    def without(self, fold: int | None) -> SecondLook:
        """Of what sessions of the other folds hold; of everything for None."""
        from models.training.second_look import fit_second_look

        mine = self._again
        arrays = fit_second_look(self._looked, fold, gate=mine.gate, space_id=mine.transformer.space_id)
        return SecondLook(arrays)


def classifier(
    texts: TrainingTexts,
    attacks: AttackTexts | None,
    ngrams: NGrams,
    seed: int,
    lesson: Lesson | None = None,
    examples: Examples | None = None,
    effort: Effort = Effort(),
) -> AttackClassifier:
    """A classifier of attacks against what users and tools of every tenant say.

    Raises
    ------
    UsageError
        When there are too few of them.
    """
    from models.training.attack_classifier import Fit, fit_attack_classifier

    how = Fit()
    pile = pile_of(texts, attacks, lesson or Lesson(), examples)
    try:
        arrays = fit_attack_classifier(
            pile.bags,
            pile.labels,
            pile.source,
            pile.group,
            ngrams,
            seed=seed,
            tool=pile.tool,
            taught=pile.taught,
            hard=pile.hard if pile.hard.any() else None,
            how=replace(how, passes=effort.passes, splices=effort.splices_of(how.splices)),
        )
    except ValueError as error:
        raise TooFewAttacks(f"--task attack-classifier: {error} Name more --input.") from error
    return AttackClassifier(arrays)


def require_enough(attacks: AttackTexts) -> None:
    """Refuse attacks that no fit can learn a class from, before a teacher takes minutes over them.

    Raises
    ------
    TooFewAttacks
        When no class has as many distinct segments as the fit asks for.
    """
    from models.training.attack_classifier import Fit, texts_of

    rows = list({name: row for row, name in enumerate(texts_of(attacks.bags)) if name}.values())
    most, needed = int(attacks.labels[rows].sum(axis=0).max(initial=0)), Fit().positives_min
    if most < needed:
        raise TooFewAttacks(
            f"--task attack-classifier: an attack classifier needs {needed} segments of one class; got {most}. "
            "Name more --input."
        )


@dataclass(frozen=True, slots=True)
class Pile:
    """Segments (p): benign ones, attacks, hard negatives, and those that are made of others."""

    bags: TokenBags
    labels: NDArray[np.bool_]
    source: NDArray[np.int64]
    group: NDArray[np.int64]
    tool: NDArray[np.bool_]
    hard: NDArray[np.bool_]
    taught: Taught | None


def pile_of(
    texts: TrainingTexts, attacks: AttackTexts | None, lesson: Lesson, examples: Examples | None = None
) -> Pile:
    """What a classifier is fitted on."""
    from models.training.attack_classifier import Taught
    from models.training.splices import join

    if attacks is None:
        attacks = AttackTexts.none()
    benign = np.flatnonzero(np.isin(texts.role, JUDGED))
    tenants = int(texts.tenant.max(initial=-1)) + 1
    labels = [np.zeros((len(benign), attacks.labels.shape[1]), np.bool_), attacks.labels]
    # Whose text it is stands for where it comes from: tenants are the benign sources. Attacks are dealt by session:
    # were whole families held out, each fit would have another scale, and its scores could not be compared.
    source = [texts.tenant[benign], tenants + np.unique(attacks.source, return_inverse=True)[1]]
    # Benign text is dealt by tenant and the folds of its sessions: of few tenants too there is some in every fit.
    parts = np.unique(texts.tenant[benign] << FOLDS | texts.folds[benign], return_inverse=True)[1]
    group = [parts, int(parts.max(initial=-1)) + 1 + np.unique(attacks.group, return_inverse=True)[1]]
    bags = join(texts.bags.take(benign), attacks.bags)
    hard = [np.zeros(len(benign) + len(attacks.labels), np.bool_)]
    tool = [texts.role[benign] == TOOL, np.zeros(len(attacks.labels), np.bool_)]
    if lesson.hard is not None:
        judged = len(lesson.hard.group)
        bags = join(bags, lesson.hard.bags)
        labels.append(np.zeros((judged, labels[0].shape[1]), np.bool_))
        source.append(np.full(judged, _after(source)))
        group.append(_after(group) + np.unique(lesson.hard.group, return_inverse=True)[1])
        hard.append(np.ones(judged, np.bool_))
        tool.append(np.zeros(judged, np.bool_))
    if examples is not None:
        bags = join(bags, examples.bags)
        labels.append(examples.labels)
        # A source for each kind of harmless message, and one for each class of attacks.
        kinds = np.column_stack([examples.kind, examples.labels])
        source.append(_after(source) + np.unique(kinds, axis=0, return_inverse=True)[1].ravel())
        group.append(_after(group) + examples.group)
        hard.append(np.isin(examples.kind, (LOOK_ALIKE, TASK)))
        tool.append(examples.kind == RETURNED)
    said, taught = len(bags.offsets) - 1, None
    if (teaching := lesson.teaching) is not None:
        made = len(teaching.made_labels)
        unasked = np.full((said - len(benign) - len(attacks.labels), labels[0].shape[1]), np.nan, np.float32)
        soft = [teaching.texts[benign], teaching.attacks, unasked, teaching.made_soft]
        bags = join(bags, teaching.made)
        labels.append(teaching.made_labels)
        source.append(np.full(made, _after(source)))
        # A splice is held out with the attack whose words it holds.
        fresh = _after(group)
        group.append(np.where(teaching.made_of >= 0, group[1][teaching.made_of], fresh + np.arange(made)))
        hard.append(np.zeros(made, np.bool_))
        tool.append(np.zeros(made, np.bool_))
        taught = Taught(np.concatenate(soft), np.arange(said + made) >= said)
    return Pile(
        bags,
        np.concatenate(labels),
        np.concatenate(source),
        np.concatenate(group),
        np.concatenate(tool),
        np.concatenate(hard),
        taught,
    )


def _after(numbers: Sequence[NDArray[np.integer]]) -> int:
    """A number that none of them is."""
    return max(int(part.max(initial=-1)) for part in numbers) + 1
