"""What a sample holds beside its text: the input that a shape is for."""

from __future__ import annotations

from dataclasses import dataclass

from pruners.errors import UnsupportedModelError, shown
from pruners.shape_limits import MOST_PIXELS, MOST_TILES


@dataclass(frozen=True)
class Inputs:
    """What a sample holds beside its text.

    Attributes:
        image_size: Height and width of each image or frame, in pixels; None for the family's usual.
        images: Images.
        frames: Frames of one video in place of images.
        tiles: Tiles per image, where the configuration does not decide them.

    Raises:
        UnsupportedModelError: A number is not positive, or larger than any sample needs.
    """

    image_size: tuple[int, int] | None = None
    images: int = 1
    frames: int | None = None
    tiles: int | None = None

    def __post_init__(self) -> None:
        counts = {"images": self.images, "frames": self.frames, "tiles": self.tiles}
        limits = dict.fromkeys(counts, MOST_TILES)
        for side, pixels in zip(("height", "width"), self.image_size or (), strict=False):
            counts[f"image_size's {side}"] = pixels
            limits[f"image_size's {side}"] = MOST_PIXELS
        for what, count in counts.items():
            if count is not None and count < 1:
                raise UnsupportedModelError(f"{what} is {count}; expected at least 1")
            if count is not None and count > limits[what]:
                raise UnsupportedModelError(
                    f"{what} is {shown(count)}; expected at most {limits[what]}"
                )
        if self.frames is not None and self.images != 1:
            raise UnsupportedModelError(
                f"frames is {self.frames} and images is {self.images}; a shape is for one video or "
                "for images: leave one out"
            )

    def refuse(self, family: str, *, frames: bool = False, tiles: bool = True) -> None:
        """Refuse what a family does not take.

        Args:
            family: The family, for the message.
            frames: Whether videos are refused.
            tiles: Whether a number of tiles is refused.

        Raises:
            UnsupportedModelError: The input has what is refused.
        """
        if frames and self.frames is not None:
            raise UnsupportedModelError(
                f"frames is {self.frames}, but {family} takes no videos; pass images"
            )
        if tiles and self.tiles is not None:
            raise UnsupportedModelError(
                f"tiles is {self.tiles}, but {family} works them out; pass image_size"
            )
