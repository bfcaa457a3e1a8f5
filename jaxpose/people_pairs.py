"""The published pairs of top-down people, MPII and COCO; see `pairs`."""

from jaxpose.config import Config, Data
from jaxpose.models.simple_baseline import SimpleBaseline
from jaxpose.ops.augment import Augmentation
from jaxpose.pair import Pair, with_adam

_BATCH = 32
_EPOCH = 22_246 // _BATCH  # updates; a pass over MPII, the smaller of the two
_COCO = "coco:coco?annotations=person_keypoints_train2017&test_annotations=person_keypoints_val2017&joints=common12"
_MPII = "tfds:mpii?joints=common12"


def mpii_coco() -> Pair:
    """MPII to COCO, CAFA's Table 1. Data: a prepared `mpii`, and a folder `coco`; see `top_down`.

    AP on val2017 in percent: source-only 56.7, DAN 57.2, strong-weak alignment 60.1, CAFA alone 63.4, CAFA and IHTA
    64.4; with labels of 40 % of the target all of CAFA, ISA and IHTA 66.5; supervised 70.4.

    The paper has 150 epochs. It does not say how it gets an AP of 17 joints from the twelve that MPII shares with COCO;
    here AP is that of the twelve. It does not say whose boxes it takes either: here those of the labels, with
    `&detections=FILE` behind the target those of a detector.
    """
    return top_down("mpii_coco", _MPII, _COCO, metric="ap", epochs=150)


def coco_mpii() -> Pair:
    """COCO to MPII, CAFA's Table 2. Data: as `mpii_coco`; see `top_down`.

    PCKh@0.5 on the validation list in percent: source-only 77.3, DAN 79.1, strong-weak alignment 81.6, CAFA alone 84.5,
    CAFA and IHTA 85.2; with labels of 40 % of the target all of CAFA, ISA and IHTA 87.8; supervised, says the paper,
    91.5, but the network's authors reach 88.5.

    The paper has 135 epochs. Its mean counts a head that COCO does not label; here it is that of the twelve joints.
    """
    return top_down("coco_mpii", _COCO, _MPII, metric="pckh", epochs=135)


def top_down(name: str, source: str, target: str, *, metric: str, epochs: int) -> Pair:
    """CAFA's settings: a ResNet-50 at 256 pixels, Adam at 1e-4, evaluated with the mirror image.

    The folder `coco` holds the owners' `annotations`, `train2017` and `val2017`. `model.weights` is torchvision's first
    ImageNet file, looked for where the run starts.

    The paper's numbers contradict each other: IHTA alone (AP 64.8, PCKh 85.6) is better than CAFA and IHTA (64.4,
    85.2), and its supervised PCKh is out of reach of the network. So its differences are to be reached, such as 7.7
    points of AP and 7.9 of PCKh from source-only to CAFA and IHTA, rather than its values.

    What differs from the paper, or what it does not say:
      - Half of the epochs, whose passes are over MPII's images, train on the source alone; in the paper all is trained
        at once. Batches are of 32 images of each domain; the rate is constant.
      - Magnifications of 0.7 to 1.3 are uniform in their logarithm, turns of up to 40 degrees uniform; SimpleBaselines
        draws both from clipped normal distributions, and turns 60 % of the images.
      - The joints are the twelve of the limbs, which both data sets label.
      - Crops are squares of 1.25 times the longer side of the box, as SimpleBaselines has them for square inputs.
      - Maps are drawn and read in the project's own way; the words `msra`, `dark` and `udp` choose others.

    Args:
      name: of the pair.
      source, target: see `data.schemes`.
      metric: `ap` or `pckh`.
      epochs: of all updates together.

    Source: Xu and Zou, ACM MM 2020, Sec. 4; Xiao et al., ECCV 2018.
    """
    half = epochs * _EPOCH // 2
    config = Config(
        method=None,
        pair=name,
        steps={"pretrain": half, "adapt": half},
        metrics=(metric, "pck"),
        flip_test=True,
        eval_every=5 * _EPOCH,
        checkpoint_every=5 * _EPOCH,
        data=Data(source=source, target=target, image_size=256, batch_size=_BATCH, margin=1.25),
        augmentation=Augmentation(
            rotation=40.0,
            scale=(0.7, 1.3),
            translation=0.0,
            mirror=0.5,
            brightness=0.0,
            contrast=0.0,
            saturation=0.0,
            blur=0.0,
        ),
        model=SimpleBaseline(depth=50, sigma=2.0, weights="resnet50-0676ba61.pth"),
    )
    return Pair(config=with_adam(config, 1e-4, adapt_decay=0.0), of_a_paper=True)
