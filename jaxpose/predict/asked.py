"""What a command asks for: which part of a collection, in which formats. Imports little, as flags are checked by it."""

import dataclasses

from jaxpose.spelling import did_you_mean

FORMATS = ("dlc", "lightning", "coco", "slp", "parquet")  # functions of `jaxpose.predict.formats`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several jobs that share a collection: files or, where there is only one, its frames."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str | None) -> "Shard":
        """`3/100`, the third of a hundred; None: all.

        Raises:
          ValueError: if it is no such text.
        """
        if text is None:
            return cls()
        number, _, of = text.partition("/")
        if not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
            raise ValueError(f"--shard: found {text!r}, expected NUMBER/OF such as 3/100, from 1/100 to 100/100")
        return cls(number=int(number), of=int(of))

    def frames(self, count: int) -> tuple[int, int]:
        """First and last frame, exclusive, of so many."""
        return (self.number - 1) * count // self.of, self.number * count // self.of


def formats_of(text: str) -> list[str]:
    """The formats that `dlc,coco` names.

    Raises:
      ValueError: naming one that is not known.
    """
    chosen = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in chosen if name not in FORMATS]:
        hint = did_you_mean(unknown[0], FORMATS)
        raise ValueError(f"--formats: found {unknown[0]!r}, expected some of {', '.join(FORMATS)}{hint}")
    if not chosen:
        raise ValueError(f"--formats: found none, expected some of {', '.join(FORMATS)}")
    return chosen
