"""Training on labels and on pseudo-labels together, however these were found."""

from collections.abc import Callable

import jax

from jaxpose.recipes import supervised
from jaxpose.recipes.detector import Detector, Trees
from jaxpose.recipes.inputs import Labelled
from jaxpose.recipes.stage import Metrics


def gradients(
    networks: Detector,
    params: Trees,
    stats: Trees,
    labels: Labelled,
    pseudo_labels: Labelled,
    *,
    loss: supervised.Loss,
    mean: supervised.Reduction,
    weight: float,
    align: Callable[[jax.Array], jax.Array] = lambda maps: maps,
) -> tuple[Trees, Trees, Metrics]:
    """Gradients by network, statistics and metrics of one batch of each.

    Args:
      networks: with a head `head`.
      params, stats: by network; a gradient goes to all of `params`.
      labels: of the source.
      pseudo_labels: of the target.
      loss, mean: of maps against labels, and the mean over joints.
      weight: of the loss on pseudo-labels.
      align: brings the target's maps to where the pseudo-labels lie.
    """

    def objective(params: Trees) -> tuple[jax.Array, tuple[Trees, Metrics]]:
        first, second, updated = networks.features_of_both(params, stats, labels.images, pseudo_labels.images)
        maps, after = networks.head("head", params["head"], updated, first.up, train=True)
        source = mean(loss(labels.maps, maps), labels.mask)
        updated |= {"head": networks.before_target(stats["head"], after["head"])}
        maps, updated = networks.head("head", params["head"], updated, second.up, train=True)
        target = mean(loss(pseudo_labels.maps, align(maps)), pseudo_labels.mask)
        return source + weight * target, (updated, {"loss/source": source, "loss/target": target})

    grads, (updated, metrics) = jax.grad(objective, has_aux=True)(params)
    return grads, updated, metrics
