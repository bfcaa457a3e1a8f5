"""CAFA, ISA and IHTA: adaptation of people's poses without target labels or with few (Xu & Zou, ACM MM 2020).

CAFA lets images of both domains attend to each other and makes the attended features alike. IHTA makes the features of
joints, seen through a graph network along the bones, alike in poses of both domains that are similar. With few labelled
target images (`config.data.labelled`) these are trained on, and ISA makes the maps of unlabelled ones like theirs.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxpose.config import Config
from jaxpose.limits import AT_LEAST_0, AT_LEAST_1, SHARE, limited
from jaxpose.losses import heatmap, structure
from jaxpose.models import functional
from jaxpose.models.cross_attention import CrossAttention
from jaxpose.models.semgcn import Places, SemGCN, pointwise
from jaxpose.ops import graph as graphs
from jaxpose.ops import heatmaps, kernels
from jaxpose.ops.heatmaps import Grid
from jaxpose.recipes import detector, inputs, supervised, views
from jaxpose.recipes.detector import WHOLE, Detector, Features, Trees
from jaxpose.recipes.inputs import Labelled
from jaxpose.recipes.stage import Batch, Metrics, Stage, State, Task, Update, next_state, reads

Seen = dict[str, Features]  # of `source`, `target` and, where there are some, `labelled`
# (detector, parameters, statistics, images by domain) -> what is seen of them, and all statistics
Looking = Callable[[Detector, Trees, Trees, Mapping[str, Array]], tuple[Seen, Trees]]
Comparison = Callable[[Array, Array, Grid], Array]  # maps of labelled (A, ...) and other rows (B, ...) -> scalar
Term = tuple[Array, tuple[Trees, Metrics]]  # what is minimised, with all statistics after it
# what is seen, parameters and statistics -> features (B, h, w, c) by domain, and a loss of theirs
Aligning = Callable[["Adaptation", Seen, Trees, Trees], tuple[dict[str, Array], Array]]


@dataclasses.dataclass(kw_only=True)
class CAFA:
    """The hyper-parameters; the defaults are a form of the method that cannot collapse, `literal_settings` the paper's.

    Attributes:
      trade_off: of all that adapts, beta_da of Eq. 11 with beta_sup = 1.
      alignment, structure, entropy, topology: weights of CAFA, of ISA and the entropy, and of IHTA (Eq. 16); 0: off.
      labelled: weight of the labelled target rows: the source's, so that without all that adapts S+T is left
        (`few_labels`); the paper's is 0.5 (Eq. 14).
      anchor: weight of a loss by which the graph network's output must tell where the source's joints are; without it,
        an output that is always the same has no loss left.
      look: how images are seen: `plain`, as at test, or `attended`, after attention.
      align: what is made alike: `beside`, features after attention, by which the source's joints must be found too, or
        `as_seen`, those that `look` has attended to.
      compare: ISA's maps: `centred`, by their shapes around their peaks; `literal`, place by place; `nearest`, so, each
        only with the labelled pose that is nearest.
      threshold: tau of Eq. 9; pairs of poses that are at least as similar are made alike.
      relative: whether a joint's features are compared by what they differ from its mean over the batch: features after
        a ReLU are all alike, and every pair would be chosen.
      sure: whether similarity is divided by the joints' confidences (or by their number, as it is printed).
      pooled: whether joints' features are means over all pixels, as in Eq. 5, or over the joint's own.
      bandwidth, unbiased: of the discrepancy, see `kernels.mmd`.
      hidden, blocks: of the graph network.
      loss, maps, mean, coding: as in `supervised.Supervised`.
    """

    name: str = "cafa"
    trade_off: float = limited(0.5, *AT_LEAST_0)
    alignment: float = limited(0.5, *AT_LEAST_0)
    structure: float = limited(0.5, *AT_LEAST_0)
    entropy: float = limited(0.5, *AT_LEAST_0)
    topology: float = limited(0.5, *AT_LEAST_0)
    labelled: float = limited(1.0, *AT_LEAST_0)
    anchor: float = limited(1.0, *AT_LEAST_0)
    look: Looking = dataclasses.field(default_factory=lambda: plain)
    align: Aligning = dataclasses.field(default_factory=lambda: beside)
    compare: Comparison = dataclasses.field(default_factory=lambda: centred)
    threshold: float = limited(0.7, *SHARE)
    relative: bool = True
    sure: bool = True
    pooled: bool = False
    bandwidth: Callable[[Array], Array] = kernels.mean_bandwidth
    unbiased: bool = False
    hidden: int = limited(128, *AT_LEAST_1)
    blocks: int = limited(4, *AT_LEAST_0)
    loss: supervised.Loss = heatmap.spatial_kl
    maps: views.ConfidenceMaps = views.softmax_maps
    mean: supervised.Reduction = heatmap.masked_mean
    coding: inputs.Coding = inputs.CLEAN

    def stages(self, task: Task, config: Config) -> tuple[Stage, ...]:
        """Pretrain on the source, then adapt."""
        networks = detector.build(task, config, coding=self.coding)
        first = supervised.pretrain(task, config, networks, loss=self.loss, maps=self.maps, mean=self.mean)
        return first, adapt(task, config, networks, self)


def literal_settings() -> CAFA:
    """The paper but for its sign errors: what is called similarity rises with it, and losses fall with it."""
    return CAFA(
        name="cafa_literal",
        labelled=0.5,
        anchor=0.0,
        look=attended,
        align=as_seen,
        compare=literal,
        relative=False,
        sure=False,
        pooled=True,
        loss=heatmap.summed_l2,
        maps=views.plain_maps,
    )


def adapt(task: Task, config: Config, networks: Detector, settings: CAFA) -> Stage:
    """Trains the pretrained detector on, with everything that has a weight."""
    few = config.data.labelled is not None
    graph = graphs.of_bones(len(task.skeleton), task.skeleton.bone_indices)
    make_graph = functools.partial(
        SemGCN,
        graph=graph,
        inputs=networks.width,
        hidden=settings.hidden,
        blocks=settings.blocks,
        non_local=True,
        readout=lambda channels, rngs: pointwise(channels, channels, rngs),
    )
    own = {
        "attention": functional.network(
            functools.partial(CrossAttention, inputs=networks.channels[-1]), dtype=detector.compute_dtype(config.dtype)
        ),
        "graph": functional.network(make_graph),
        "places": functional.network(functools.partial(Places, inputs=settings.hidden)),
    }
    networks = dataclasses.replace(networks, networks={**networks.networks, **own})
    apply_gradients = detector.adaptation(config)
    domains = {"source": inputs.LABELLED, "target": inputs.UNLABELLED} | ({"labelled": inputs.LABELLED} if few else {})

    def init(key: Array, previous: State | None) -> State:
        return next_state(
            key, previous, networks, dict.fromkeys((*WHOLE, *own), apply_gradients.rule), fresh=tuple(own)
        )

    def step(state: State, batch: Batch, key: Array) -> tuple[State, Metrics]:
        keys = dict(zip(domains, jax.random.split(key, len(domains)), strict=True))
        labels = {
            name: inputs.labelled(keys[name], batch[name], task, networks.draw) for name in domains if name != "target"
        }
        images = {name: of.images for name, of in labels.items()}
        images["target"] = inputs.unlabelled(keys["target"], batch["target"], task)
        seen, pull, stats = jax.vjp(
            lambda params: settings.look(networks, params, state.stats, images), state.params, has_aux=True
        )
        adaptation = Adaptation(networks=networks, settings=settings, labels=labels)
        grads = jax.tree.map(jnp.zeros_like, state.params)
        slope, metrics = jax.tree.map(jnp.zeros_like, seen), {}
        for name, term in adaptation.terms().items():
            gradient = jax.grad(term, argnums=(0, 1), has_aux=True)
            (at_features, at_params), (stats, logged) = gradient(seen, state.params, stats)
            slope, grads = (jax.tree.map(jnp.add, a, b) for a, b in ((slope, at_features), (grads, at_params)))
            metrics |= logged | {f"gradient/{name}": optax.tree.norm(at_features)}
        grads = jax.tree.map(jnp.add, grads, pull(slope)[0])
        return dataclasses.replace(apply_gradients(state, grads), stats=stats), metrics

    return Stage(
        name="adapt",
        steps=config.steps_of("adapt"),
        init=init,
        updates=(Update(reads=reads(**domains), step=step),),
        evaluations=(networks.evaluation(normal=settings.maps),),
        apply_gradients=apply_gradients,
    )


def plain(networks: Detector, params: Trees, stats: Trees, images: Mapping[str, Array]) -> tuple[Seen, Trees]:
    """Images as they are seen at test; running statistics are of these passes."""
    source, target, stats = networks.features_of_both(params, stats, images["source"], images["target"])
    seen = {"source": source, "target": target}
    if "labelled" in images:
        # Of the same domain as the target's other images, but few: they do not move what is normalised by at test.
        seen["labelled"], _ = networks.features(params, stats, images["labelled"], train=True)
    return seen, stats


def attended(networks: Detector, params: Trees, stats: Trees, images: Mapping[str, Array]) -> tuple[Seen, Trees]:
    """Images after attention to one of the other domain (Eqs. 1-2), which there is none of at test."""
    layers, seen = {}, {}
    for name in images:  # the target's last, as they are at test
        layers[name], stats = networks.backbone(params, stats, images[name], train=True)
    for name, deep in attend(networks, params, {name: of[-1] for name, of in layers.items()}).items():
        by_layer = (*layers[name][:-1], deep)
        up, stats = networks.upsample(params, stats, by_layer, train=True)
        seen[name] = Features(layers=by_layer, up=up)
    return seen, stats


def attend(networks: Detector, params: Trees, deep: Mapping[str, Array]) -> dict[str, Array]:
    """The backbone's last features (B, h, w, c) of all domains after attention.

    Labelled target images attend to other source images than the unlabelled ones.
    """
    attention = networks.networks["attention"]
    apply = functools.partial(attention.apply, params["attention"], {}, train=True)
    (source, target), _ = apply((deep["source"], deep["target"]))
    found = {"source": source, "target": target}
    if "labelled" in deep:
        others = jnp.roll(deep["source"], 1, axis=0)[: len(deep["labelled"])]
        found["labelled"] = apply((others, deep["labelled"]))[0][1]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The method (Sec. 3) in one step: functions of what is seen, all parameters and statistics."""

    networks: Detector
    settings: CAFA
    labels: Mapping[str, Labelled]

    def terms(self) -> dict[str, Callable[[Seen, Trees, Trees], Term]]:
        """Those that have a weight."""
        weights = self.settings
        chosen: dict[str, Any] = {"supervision": self.supervision}
        if weights.trade_off and weights.alignment:
            chosen["alignment"] = self.alignment
        if weights.trade_off and "labelled" in self.labels and (weights.structure or weights.entropy):
            chosen["structure"] = self.structure
        if weights.trade_off and weights.topology:
            chosen["topology"] = self.topology
        return chosen

    def supervision(self, seen: Seen, params: Trees, stats: Trees) -> Term:
        """The labels' maps, of source and of labelled target images (Eqs. 12-14)."""
        networks, settings, metrics = self.networks, self.settings, {}
        before = stats["head"]
        losses = {}
        for name, labels in self.labels.items():
            maps, moved = networks.head("head", params["head"], stats, seen[name].up, train=True)
            stats = stats if name == "labelled" else moved
            losses[name] = settings.mean(settings.loss(labels.maps, maps), labels.mask)
            metrics[f"loss/{name}"] = losses[name]
        if networks.target_statistics:
            stats |= {"head": before}
        _, stats = networks.head("head", jax.lax.stop_gradient(params["head"]), stats, seen["target"].up, train=True)
        total = losses["source"] + settings.labelled * losses.get("labelled", 0.0)
        return total, (stats, metrics)

    def alignment(self, seen: Seen, params: Trees, stats: Trees) -> Term:
        """CAFA: attended features of both domains are alike (Eq. 3), and fit to find joints by."""
        settings = self.settings
        deep, supervision = settings.align(self, seen, params, stats)
        pooled = [jnp.mean(deep[name].astype(jnp.float32), axis=(1, 2)) for name in ("source", "target")]
        distance = functools.partial(kernels.mmd, *pooled, bandwidth=settings.bandwidth)
        value = distance(unbiased=settings.unbiased)
        gates = [jnp.abs(params["attention"][f"{name}_gate"]) for name in ("source", "target")]
        metrics = {"loss/alignment": value, "mmd_u": distance(unbiased=True), "gate": jnp.maximum(*gates)}
        return settings.trade_off * settings.alignment * value + supervision, (stats, metrics)

    def structure(self, seen: Seen, params: Trees, stats: Trees) -> Term:
        """ISA: maps of unlabelled target images are like those of labelled ones, and sure (Eqs. 4 and 15)."""
        settings = self.settings
        few, target = (self.maps(seen[name], params, stats) for name in ("labelled", "target"))
        value = settings.compare(jax.lax.stop_gradient(few), target, self.networks.grid)
        entropy = jnp.mean(structure.entropy(target))
        total = settings.trade_off * (settings.structure * value + settings.entropy * entropy)
        return total, (stats, {"loss/structure": value, "loss/entropy": entropy})

    def topology(self, seen: Seen, params: Trees, stats: Trees) -> Term:
        """IHTA: joints of similar poses have like features in the graph network (Eqs. 5-10)."""
        networks, settings, labels = self.networks, self.settings, self.labels["source"]
        features, sure = {}, {}
        for name in ("source", "target"):
            maps = self.maps(seen[name], params, stats)
            features[name] = structure.keypoint_features(seen[name].up, maps, pooled=settings.pooled)
            sure[name] = jnp.clip(jnp.max(maps, axis=(1, 2)), 0.0, 1.0)
        both = jnp.concatenate([features["source"], features["target"]])
        usual = jnp.mean(both, axis=0, keepdims=True) if settings.relative else jnp.zeros((1, 1, 1))
        alike = structure.cosines(features["source"] - usual, features["target"] - usual)
        similar = structure.pair_similarity(alike, sure["source"], sure["target"], over_all=not settings.sure)
        chosen = jax.lax.stop_gradient(similar) >= settings.threshold
        graph = networks.networks["graph"]
        found, moved = graph.apply(params["graph"], stats["graph"], both, train=True)
        first, second = jnp.split(found, [len(features["source"])])
        value = structure.mean_of_pairs(1 - structure.cosines(first, second), chosen)
        places, _ = networks.networks["places"].apply(params["places"], {}, first, train=True)
        true = networks.read(labels.maps)[0] / (networks.grid.size * networks.grid.stride)
        anchor = heatmap.masked_mean(jnp.sum(jnp.square(places - true), axis=-1), labels.mask)
        spread = jnp.mean(jnp.var(found, axis=0)) / (jnp.mean(jnp.square(found)) + 1e-12)
        metrics = {"loss/topology": value, "loss/anchor": anchor, "pairs": jnp.mean(chosen.astype(jnp.float32))}
        total = settings.trade_off * settings.topology * value + settings.anchor * anchor
        return total, (stats | {"graph": moved}, metrics | {"graph_variance": spread})

    def maps(self, seen: Features, params: Trees, stats: Trees) -> Array:
        """Maps (B, H, W, K) >= 0 whose labels have peaks of 1."""
        maps, _ = self.networks.head("head", params["head"], stats, seen.up, train=True)
        return self.settings.maps(maps) / views.label_peak(self.settings.maps, self.networks.grid)


def beside(adaptation: Adaptation, seen: Seen, params: Trees, stats: Trees) -> tuple[dict[str, Array], Array]:
    """Features after attention, by which the source's joints must be found as well."""
    networks, settings, labels = adaptation.networks, adaptation.settings, adaptation.labels["source"]
    deep = attend(networks, params, as_seen(adaptation, seen, params, stats)[0])
    by_layer = (*seen["source"].layers[:-1], deep["source"])
    up, _ = networks.upsample(params, stats, by_layer, train=True)
    maps, _ = networks.head("head", params["head"], stats, up, train=True)
    return deep, settings.mean(settings.loss(labels.maps, maps), labels.mask)


def as_seen(adaptation: Adaptation, seen: Seen, params: Trees, stats: Trees) -> tuple[dict[str, Array], Array]:
    """The features that all else is made of."""
    del adaptation, params, stats
    return {name: of.layers[-1] for name, of in seen.items()}, jnp.zeros(())


def literal(few: Array, others: Array, grid: Grid) -> Array:
    """Eq. 4 with its sign turned: maps are alike where joints are at the same place."""
    del grid
    return jnp.mean(1 - structure.cosines(structure.whole(few), structure.whole(others)))


def centred(few: Array, others: Array, grid: Grid) -> Array:
    """Maps are alike around their peaks, wherever these are."""
    parts = (structure.around_peaks(maps, reach=round(3 * grid.sigma)) for maps in (few, others))
    return jnp.mean(1 - structure.cosines(*parts))


def nearest(few: Array, others: Array, grid: Grid) -> Array:
    """As `literal`, each with the labelled image alone whose pose is nearest."""
    del grid
    points = (heatmaps.argmax_points(jax.lax.stop_gradient(maps)) for maps in (few, others))
    values = 1 - structure.cosines(structure.whole(few), structure.whole(others))
    return structure.mean_of_pairs(values, structure.nearest_rows(*points))
