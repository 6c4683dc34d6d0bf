"""Where images come from: what :func:`load` takes by name, or any folder of images."""

from pretrain.data.face_painter import FACE_ATTRIBUTES, TINTS, faces, tinted_faces
from pretrain.data.image_sets import ImageSet, Pixels
from pretrain.data.images import Images
from pretrain.data.sources import MADE, PUBLISHED, load

__all__ = [
    "FACE_ATTRIBUTES",
    "MADE",
    "PUBLISHED",
    "TINTS",
    "ImageSet",
    "Images",
    "Pixels",
    "faces",
    "load",
    "tinted_faces",
]
